# SPDX-License-Identifier: Apache-2.0
"""Where keyframes get their memory from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from recon3d_ros.store.layout import Bytes


@dataclass(frozen=True)
class SegmentHandle:
    """Where a keyframe lies. shm_name: file in shared memory, empty for memory of this process. shm_size: bytes.
    generation: counts the keyframes of a store from 1."""

    shm_name: str
    shm_size: int
    generation: int


@dataclass(frozen=True, eq=False)
class Slot:
    """Memory for one keyframe, uint8 [size]; it is not used again while an array made from it is alive."""

    memory: Bytes
    handle: SegmentHandle


class Arena(Protocol):
    """Memory in which one thread puts keyframes."""

    def reserve(self, size: int, generation: int) -> Slot:
        """Memory for `size` bytes. Raises StoreError with reason `full` if there is none."""
        ...

    def statistics(self) -> dict[str, float]:
        """Counters for the report."""
        ...

    def clear(self) -> None:
        """Withdraw everything that was handed out from readers of other processes."""
        ...

    def close(self) -> None:
        """Clear, and give back what the arena holds. May be called more than once."""
        ...
