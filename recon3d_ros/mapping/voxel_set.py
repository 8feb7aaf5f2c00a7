# SPDX-License-Identifier: Apache-2.0
"""Which voxels are taken: a hash table with open addressing and linear probing, one point to a voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import Floats
from recon3d_ros.mapping.jit import kernel

_EMPTY = -1
_LEFT = -2


class VoxelSet:
    """Voxels of edge `size` (map units); with size 0 every point has one of its own."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.clear(0)

    def clear(self, room: int) -> None:
        """Forget all; there is room for at least `room` points."""
        # Beyond half full, searches become long. A voxel that was left still counts until all are forgotten.
        self._keys = np.full(1 << max(16, (2 * room).bit_length()), _EMPTY, np.int64)
        self._used = 0

    def has_room(self, points: int) -> bool:
        """True if so many more points can be taken in."""
        return 2 * (self._used + points) <= len(self._keys)

    def take(self, points: Floats) -> NDArray[np.bool_]:
        """True [N] for points [N,3] whose voxel was free; it is taken from now on. The caller has seen to room."""
        if self.size <= 0:
            return np.ones(len(points), np.bool_)
        free = _take(self._keys, points, 1.0 / self.size)
        self._used += int(np.count_nonzero(free))
        return free

    def leave(self, points: Floats) -> None:
        """Free the voxels of points [N,3]."""
        if self.size > 0:
            _leave(self._keys, points, 1.0 / self.size)


@kernel
def _search(keys, point, scale):  # type: ignore[no-untyped-def]
    """The slot of the point's voxel, or the empty one where it belongs, and its key: three coordinates of 21 bits."""
    key = np.int64(0)
    for i in range(3):
        key = key << 21 | (np.int64(np.floor(point[i] * scale)) & 0x1FFFFF)
    mixed = (key ^ key >> 31) * np.int64(0x7FB5D329728EA185)
    slot = (mixed ^ mixed >> 29) & (len(keys) - 1)
    while keys[slot] != _EMPTY and keys[slot] != key:
        slot = (slot + 1) & (len(keys) - 1)
    return slot, key


@kernel
def _take(keys, points, scale):  # type: ignore[no-untyped-def]
    free = np.zeros(len(points), np.bool_)
    for n in range(len(points)):
        slot, key = _search(keys, points[n], scale)
        free[n] = keys[slot] == _EMPTY
        keys[slot] = key
    return free


@kernel
def _leave(keys, points, scale):  # type: ignore[no-untyped-def]
    for n in range(len(points)):
        slot, key = _search(keys, points[n], scale)
        if keys[slot] == key:
            keys[slot] = _LEFT
