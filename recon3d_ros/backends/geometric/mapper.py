# SPDX-License-Identifier: Apache-2.0
"""What happens at a keyframe: new corners, new points, and the local bundle adjustment that moves the latest keyframes."""

from __future__ import annotations

import numpy as np

from recon3d_ros.backends.geometric.frontend import Placed
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.map import CALIBRATED, Keyframe, Map
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.geometry import inverse, rotation_angle
from recon3d_ros.core.types import Pose, Tracking

#: Movements of a keyframe below this (median depths; radians) are not announced.
_NOTICED = 5e-4


class Mapper:
    """Adds keyframes to the map and knows which older ones moved since they were last told of."""

    def __init__(self, world: Map, tracker: Tracker, params: GeometricParams, stages: Stages) -> None:
        self.map, self.tracker, self.params, self.stages = world, tracker, params, stages
        self._announced: dict[int, Pose] = {}

    def insert(self, placed: Placed) -> Keyframe:
        """Make a keyframe of a view: its tracks and new corners are observed, points triangulated, the window adjusted."""
        view, located = placed.view, placed.located
        keyframe = Keyframe(view.index, view, located.T_cam_map, located.ids, located.px, located.uv)
        keyframe.baseline = located.tracking is Tracking.TRACKING
        self.map.add(keyframe)
        with self.stages("corners"):
            self.add_corners(keyframe)
        if keyframe.baseline:
            with self.stages("triangulate"):
                self.map.triangulate(keyframe, view.lens.scale)
            with self.stages("ba"):
                self.map.adjust(self.params.window, view.lens.scale)
            with self.stages("triangulate"):
                self.map.triangulate(keyframe, view.lens.scale)
        return keyframe

    def add_corners(self, keyframe: Keyframe) -> None:
        """Observe new corners where a keyframe has no tracks."""
        assert keyframe.view is not None
        px = self.tracker.corners(keyframe.view.grey, keyframe.px)
        uv = keyframe.view.lens.centred(px)
        known = found(uv)
        keyframe.observe(self.map.allocate(int(known.sum())), px[known], uv[known])

    def resume(self) -> None:
        """The map was filled with keyframes that are known to all."""
        latest = self.map.keyframes[-max(self.params.window, CALIBRATED) :]
        self._announced = {k.index: k.T_map_cam for k in latest}

    def forget(self) -> None:
        """All keyframes moved, and that is told otherwise."""
        self._announced = {k.index: k.T_map_cam for k in self.map.keyframes if k.index in self._announced}

    def corrections(self) -> dict[int, Pose]:
        """Poses, camera to map, of older keyframes that moved noticeably since they were given out."""
        *older, latest = self.map.keyframes[-max(self.params.window, CALIBRATED) :]
        depth = self.map.median_depth(latest)
        moved = {}
        for keyframe in older:
            T = keyframe.T_map_cam
            if keyframe.index in self._announced and _moved(self._announced[keyframe.index], T, depth):
                moved[keyframe.index] = T
            self._announced.setdefault(keyframe.index, T)
        self._announced = {k.index: self._announced[k.index] for k in older} | moved
        self._announced[latest.index] = latest.T_map_cam
        return moved


def _moved(before: Pose, now: Pose, depth: float) -> bool:
    T = inverse(before) @ now
    return bool(np.linalg.norm(T[:3, 3]) > _NOTICED * depth or rotation_angle(T[:3, :3]) > _NOTICED)
