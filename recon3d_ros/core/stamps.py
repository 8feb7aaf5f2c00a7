# SPDX-License-Identifier: Apache-2.0
"""Stamps that should rise, and what to do where they do not."""

from __future__ import annotations

#: So many older stamps in a row that rise themselves come from a clock that was set back, not from disorder.
_RUN = 10


class RisingStamps:
    """newest: the last stamp (nanoseconds) that was let through, None before the first."""

    def __init__(self) -> None:
        self.newest: int | None = None
        self._older: int | None = None
        self._run = 0

    def refuse(self, stamp_ns: int) -> str:
        """Why a stamp is not let through, `repeated` or `backwards`; empty when it is. After a clock was set back, or one
        stamp lay in the future, a run of older ones is waited for, and the last of it goes through."""
        if self.newest is None or stamp_ns > self.newest:
            return self._let_through(stamp_ns)
        if stamp_ns == self.newest:
            return "repeated"
        self._run = self._run + 1 if self._older is None or stamp_ns > self._older else 1
        self._older = stamp_ns
        return self._let_through(stamp_ns) if self._run >= _RUN else "backwards"

    def _let_through(self, stamp_ns: int) -> str:
        self.newest, self._older, self._run = stamp_ns, None, 0
        return ""
