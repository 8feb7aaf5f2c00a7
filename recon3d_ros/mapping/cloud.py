# SPDX-License-Identifier: Apache-2.0
"""The coloured cloud of the whole map: of all points in a voxel the first is kept, and the number of points is bounded. A
keyframe's points hang on its pose and follow it when it is corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import CloudParams
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Floats, Image, Keyframe, Pose
from recon3d_ros.mapping.jit import kernel

KEPT = 0.9  #: Share of `max_points` that is left when the oldest points are dropped.


@dataclass
class _Part:
    """The points of one keyframe in its camera frame. T_voxels: the pose at which they took their voxels."""

    T_map_cam: Pose
    T_voxels: Pose
    points: Floats
    colours: Image

    def keep(self, rows: NDArray[np.bool_] | slice) -> None:
        self.points, self.colours = self.points[rows], self.colours[rows]


class CloudMap:
    """Keyframes in, at most `params.max_points` coloured points out. One thread calls it.

    voxel_size: map units; while it is 0 every point is kept. It may be set at any time and then holds for all points.
    """

    def __init__(self, params: CloudParams) -> None:
        self._max_points = params.max_points
        self._voxel_size = params.voxel_size
        self.reset()

    def reset(self) -> None:
        """Forget all points; the voxel size stays."""
        self._parts: dict[int, _Part] = {}
        self._taken = _table(0)
        self._stale = False

    @property
    def voxel_size(self) -> float:
        return self._voxel_size

    @voxel_size.setter
    def voxel_size(self, size: float) -> None:
        if size != self._voxel_size:
            self._voxel_size = size
            self._sort_in()

    def __len__(self) -> int:
        return sum(len(part.points) for part in self._parts.values())

    @property
    def points(self) -> Floats:
        """All points float32 [N,3] in the map, oldest keyframe first."""
        located = [_move(part.T_map_cam, part.points) for part in self._parts.values()]
        return np.concatenate([np.empty((0, 3), np.float32), *located])

    @property
    def colours(self) -> Image:
        """Their colours uint8 [N,3]."""
        return np.concatenate([np.empty((0, 3), np.uint8), *(p.colours for p in self._parts.values())])

    def ranges(self) -> dict[int, slice]:
        """Where the points of each keyframe stand in `points`."""
        ends = np.cumsum([0, *(len(part.points) for part in self._parts.values())]).tolist()
        return dict(zip(self._parts, map(slice, ends, ends[1:]), strict=True))

    def add(self, keyframe: Keyframe) -> None:
        """Add the points that lie in free voxels. A keyframe that is known already is replaced."""
        if self._parts.pop(keyframe.id, None) is not None:
            self._stale = True
        if self._stale or 2 * (len(self) + len(keyframe.points)) > len(self._taken):
            self._sort_in(room=len(keyframe.points))
        free, pose = self._claim(keyframe.points), keyframe.T_map_cam
        points = _move(inverse(pose), keyframe.points[free])
        self._parts[keyframe.id] = _Part(pose, pose, points, keyframe.colours[free])
        if len(self) > self._max_points:
            self._prune()

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Move the points of keyframes to newer poses (camera to map) of these; unknown ids are passed over."""
        for keyframe_id in poses.keys() & self._parts.keys():
            part = self._parts[keyframe_id]
            part.T_map_cam = poses[keyframe_id]
            # Until some point has moved by a voxel the table is good enough; sorting all in anew takes a while.
            way = np.linalg.norm(_move(part.T_map_cam - part.T_voxels, part.points[::64]), axis=1)
            self._stale |= bool(way.max(initial=0.0) > self._voxel_size > 0)

    def _prune(self) -> None:
        """Drop the oldest points; their voxels become free when the points are next sorted in."""
        surplus = len(self) - int(KEPT * self._max_points)
        for part in self._parts.values():
            dropped = min(surplus, len(part.points))
            part.keep(slice(dropped, None))
            surplus -= dropped
        self._parts = {i: part for i, part in self._parts.items() if len(part.points)}
        self._stale = True

    def _sort_in(self, room: int = 0) -> None:
        """Give out all voxels anew, with space for `room` more; points that find theirs taken are dropped."""
        self._taken = _table(len(self) + room)
        for part in self._parts.values():
            part.keep(self._claim(_move(part.T_map_cam, part.points)))
            part.T_voxels = part.T_map_cam
        self._stale = False

    def _claim(self, points: Floats) -> NDArray[np.bool_]:
        """True [N] for points whose voxel was free; it is theirs from now on."""
        if self._voxel_size <= 0:
            return np.ones(len(points), np.bool_)
        return _claim(self._taken, points, 1.0 / self._voxel_size)


def _move(T: Pose, points: Floats) -> Floats:
    return points @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32)


def _table(points: int) -> NDArray[np.int64]:
    """An empty hash table of voxels, at most half full with `points` of them."""
    return np.full(1 << max(16, (2 * points).bit_length()), -1, np.int64)


@kernel
def _claim(taken, points, scale):
    """Open addressing with linear probing; a key packs three voxel coordinates of 21 bits."""
    free = np.zeros(len(points), np.bool_)
    mask = len(taken) - 1
    for n in range(len(points)):
        key = np.int64(0)
        for i in range(3):
            key = key << 21 | (np.int64(np.floor(points[n, i] * scale)) & 0x1FFFFF)
        mixed = (key ^ key >> 31) * np.int64(0x7FB5D329728EA185)
        slot = (mixed ^ mixed >> 29) & mask
        while taken[slot] != -1 and taken[slot] != key:
            slot = (slot + 1) & mask
        free[n] = taken[slot] == -1
        taken[slot] = key
    return free
