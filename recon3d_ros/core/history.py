# SPDX-License-Identifier: Apache-2.0
"""What was heard last, by stamp: written by the thread that listens, read by the one that works."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from operator import itemgetter
from typing import Generic, TypeVar

from recon3d_ros.core.stamps import RisingStamps

T = TypeVar("T")
_stamp = itemgetter(0)

#: What has been silent for longer is not waited for.
_LATELY_NS = 1_000_000_000


class History(Generic[T]):
    """The newest `size` values by rising stamp (nanoseconds)."""

    def __init__(self, size: int) -> None:
        self._items: deque[tuple[int, T]] = deque(maxlen=size)
        self._rising = RisingStamps()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, stamp_ns: int, value: T) -> bool:
        """Take a value; False for one whose stamp does not rise. Where a clock was set back, what was before is
        forgotten."""
        with self._changed:
            if self._rising.refuse(stamp_ns):
                return False
            if self._items and stamp_ns <= self._items[-1][0]:
                self._items.clear()
            self._items.append((stamp_ns, value))
            self._changed.notify_all()
        return True

    def clear(self) -> int:
        """Forget all; returns how many."""
        with self._changed:
            known = len(self._items)
            self._items.clear()
            self._rising = RisingStamps()
        return known

    def wait(self, stamp_ns: int, seconds: float) -> None:
        """Until something is there that is as new as `stamp_ns`, or the time is over. What is silent is not waited for."""
        with self._changed:
            if not self._items or self._items[-1][0] < stamp_ns - _LATELY_NS:
                return
            self._changed.wait_for(lambda: self._items and self._items[-1][0] >= stamp_ns, seconds)

    def until(self, stamp_ns: int, span_ns: int) -> list[tuple[int, T]]:
        """What lies in the span that ends with a stamp, oldest first."""
        return [item for item in self._copy() if stamp_ns - span_ns <= item[0] <= stamp_ns]

    def around(self, stamp_ns: int) -> tuple[tuple[int, T] | None, tuple[int, T] | None]:
        """The newest item before a stamp and the oldest at or after it, None where there is none."""
        items = self._copy()
        right = bisect_left(items, stamp_ns, key=_stamp)
        return items[right - 1] if right else None, items[right] if right < len(items) else None

    def last_two(self, stamp_ns: int) -> tuple[tuple[int, T], tuple[int, T]] | None:
        """The items before and after a stamp; at the end the two newest, None where there are no two."""
        items = self._copy()
        right = min(bisect_left(items, stamp_ns, key=_stamp), len(items) - 1)
        return (items[right - 1], items[right]) if right > 0 else None

    def newest(self) -> tuple[int, T] | None:
        """The item added last."""
        items = self._copy()
        return items[-1] if items else None

    def _copy(self) -> list[tuple[int, T]]:
        with self._changed:
            return list(self._items)
