# SPDX-License-Identifier: Apache-2.0
"""The coloured cloud of the whole map: of all points in a voxel the first is kept, and the number of points is bounded. A
keyframe's points hang on its pose and follow it when it is corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import CloudParams
from recon3d_ros.core.geometry import apply_similarity, inverse, scale_of
from recon3d_ros.core.packing import pack, part_of, unpack, within
from recon3d_ros.core.types import Arrays, Floats, Image, Keyframe, Pose
from recon3d_ros.mapping.voxel_set import VoxelSet

KEPT = 0.9  #: Share of `max_points` that is left when the oldest points are dropped.


@dataclass
class _Part:
    """The points of one keyframe in its camera frame. T_voxels: the pose at which they took their voxels."""

    T_map_cam: Pose
    T_voxels: Pose
    points: Floats
    colours: Image

    def has_left(self, voxel_size: float) -> bool:
        """True if a point (of some that are looked at) has moved by a voxel since it took its own."""
        way = _move(self.T_map_cam - self.T_voxels, self.points[::64])
        return bool(np.linalg.norm(way, axis=1).max(initial=0.0) > voxel_size)

    def keep(self, rows: NDArray[np.bool_] | slice) -> None:
        self.points, self.colours = self.points[rows], self.colours[rows]


class CloudMap:
    """Keyframes in, at most `params.max_points` coloured points out. One thread calls it.

    voxel_size: map units; while it is 0 every point is kept. It may be set at any time and then holds for all points.
    """

    def __init__(self, params: CloudParams) -> None:
        self._max_points = params.max_points
        self._voxels = VoxelSet(params.voxel_size)
        self._parts: dict[int, _Part] = {}

    def reset(self) -> None:
        """Forget all points; the voxel size stays."""
        self._parts.clear()
        self._sort_in()

    @property
    def voxel_size(self) -> float:
        return self._voxels.size

    @voxel_size.setter
    def voxel_size(self, size: float) -> None:
        if size != self._voxels.size:
            self._voxels.size = size
            self._sort_in()

    def __len__(self) -> int:
        return sum(len(part.points) for part in self._parts.values())

    @property
    def nbytes(self) -> int:
        """Memory of points and colours, bytes; callable from any thread."""
        return sum(part.points.nbytes + part.colours.nbytes for part in list(self._parts.values()))

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
        known = self._parts.pop(keyframe.id, None)
        if known is not None:
            self._drop(known, len(known.points))
        if not self._voxels.has_room(len(keyframe.points)):
            self._sort_in(room=len(keyframe.points))
        free, pose = self._voxels.take(keyframe.points), keyframe.T_map_cam
        points = _move(inverse(pose), keyframe.points[free])
        self._parts[keyframe.id] = _Part(pose, pose, points, keyframe.colours[free])
        if len(self) > self._max_points:
            self._prune()

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Move the points of keyframes to newer poses (camera to map) of these; unknown ids are passed over."""
        moved = []
        for keyframe_id in poses.keys() & self._parts.keys():
            part = self._parts[keyframe_id]
            part.T_map_cam = poses[keyframe_id]
            if part.has_left(self._voxels.size):
                moved.append(part)
        # All leave their voxels before the first takes new ones: a part may move to where another was.
        for part in moved:
            self._voxels.leave(_move(part.T_voxels, part.points))
        if self._voxels.has_room(sum(len(part.points) for part in moved)):
            self._settle(moved)
        else:
            self._sort_in()

    def saved(self) -> Arrays:
        """All points by keyframe."""
        parts = self._parts.values()
        return {
            "voxel_size": np.array(self.voxel_size),
            "index": np.array(list(self._parts), np.int64),
            "T_map_cam": np.array([p.T_map_cam for p in parts]).reshape(-1, 4, 4),
            "T_voxels": np.array([p.T_voxels for p in parts]).reshape(-1, 4, 4),
            **within("points", pack([p.points for p in parts], np.empty((0, 3), np.float32))),
            **within("colours", pack([p.colours for p in parts], np.empty((0, 3), np.uint8))),
        }

    def resume(self, arrays: Arrays) -> None:
        """Hold what was saved instead of what is there."""
        columns = (unpack(part_of(name, arrays)) for name in ("points", "colours"))
        rows = zip(arrays["index"].tolist(), arrays["T_map_cam"], arrays["T_voxels"], *columns, strict=True)
        self._parts = {i: _Part(T, T_voxels, points, colours) for i, T, T_voxels, points, colours in rows}
        self._voxels.size = float(arrays["voxel_size"])
        self._voxels.clear(len(self))
        for each in self._parts.values():
            self._voxels.take(_move(each.T_voxels, each.points))
        if len(self) > self._max_points:
            self._prune()

    def absorb(self, other: CloudMap, S: Pose) -> None:
        """Take over the points of another cloud, whose coordinates the similarity S (4x4) carries into those of this one.
        Where both have a point in a voxel, the older keyframe's stays."""
        scale = np.float32(scale_of(S))
        for keyframe_id, part in other._parts.items():
            pose = apply_similarity(S, part.T_map_cam)
            self._parts[keyframe_id] = _Part(pose, pose, scale * part.points, part.colours)
        self._parts = dict(sorted(self._parts.items()))
        self._sort_in()
        if len(self) > self._max_points:
            self._prune()

    def _prune(self) -> None:
        """Drop the oldest points."""
        surplus = len(self) - int(KEPT * self._max_points)
        for part in self._parts.values():
            dropped = min(surplus, len(part.points))
            self._drop(part, dropped)
            surplus -= dropped
        self._parts = {i: part for i, part in self._parts.items() if len(part.points)}

    def _drop(self, part: _Part, count: int) -> None:
        """Drop the first `count` points of a part."""
        self._voxels.leave(_move(part.T_voxels, part.points[:count]))
        part.keep(slice(count, None))

    def _settle(self, parts: Iterable[_Part]) -> None:
        """Give points the voxels they lie in; those that find theirs taken are dropped."""
        for part in parts:
            part.keep(self._voxels.take(_move(part.T_map_cam, part.points)))
            part.T_voxels = part.T_map_cam

    def _sort_in(self, room: int = 0) -> None:
        """Give out all voxels anew, with space for `room` more points."""
        self._voxels.clear(len(self) + room)
        self._settle(self._parts.values())


def _move(T: Pose, points: Floats) -> Floats:
    return points @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32)
