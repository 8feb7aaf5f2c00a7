# SPDX-License-Identifier: Apache-2.0
"""Which voxels are taken: one point to a voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import Floats
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.voxel_hash import EMPTY, pack, probe

_LEFT = -2


class VoxelSet:
    """Voxels of edge `size` (map units); with size 0 every point has one of its own."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.clear(0)

    def clear(self, room: int) -> None:
        """Forget all; there is room for at least `room` points."""
        # Beyond half full, searches become long. A voxel that was left still counts until all are forgotten.
        self._keys = np.full(1 << max(16, (2 * room).bit_length()), EMPTY, np.int64)
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
def _key(point, scale):  # type: ignore[no-untyped-def]
    """Key of the voxel that holds a point."""
    return pack(np.floor(point[0] * scale), np.floor(point[1] * scale), np.floor(point[2] * scale))


@kernel
def _take(keys, points, scale):  # type: ignore[no-untyped-def]
    free = np.zeros(len(points), np.bool_)
    for n in range(len(points)):
        key = _key(points[n], scale)
        place = probe(keys, key)
        free[n] = keys[place] == EMPTY
        keys[place] = key
    return free


@kernel
def _leave(keys, points, scale):  # type: ignore[no-untyped-def]
    for n in range(len(points)):
        key = _key(points[n], scale)
        place = probe(keys, key)
        if keys[place] == key:
            keys[place] = _LEFT
