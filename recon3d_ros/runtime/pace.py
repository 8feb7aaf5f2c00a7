# SPDX-License-Identifier: Apache-2.0
"""How often the live mesh is shown."""

from __future__ import annotations

import math
import time

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.types import Keyframe, Scale
from recon3d_ros.mapping.pace import Pace, Speed
from recon3d_ros.mapping.splat import median_depth

#: Seconds without a keyframe after which the mesh is shown however fast the camera was.
_SILENCE = 2.0


class MeshPace:
    """How often the mesh is to be shown, by the speed of the camera; without `mesh.adaptive` at any rate."""

    def __init__(self, params: MeshParams) -> None:
        self._adaptive = params.adaptive
        self._speed = Speed()
        self._pace = Pace(params.slow_speed, params.fast_speed, params.speed_keyframes)
        self._last = time.monotonic()

    @property
    def period(self) -> float:
        """Seconds; inf while the camera is fast."""
        if not self._adaptive:
            return 0.0
        return min(self._pace.period, _SILENCE if time.monotonic() - self._last > _SILENCE else math.inf)

    def add(self, keyframe: Keyframe) -> None:
        """Take a keyframe in. Where the unit of the map is unknown, lengths count in median depths."""
        if not self._adaptive or not is_pose(keyframe.T_map_cam):
            return
        self._last = time.monotonic()
        unit = 1.0 if keyframe.scale != Scale.UNKNOWN else median_depth(keyframe)
        if unit > 0:
            self._pace.add(self._speed.add(keyframe.stamp_ns, keyframe.T_map_cam, unit))
