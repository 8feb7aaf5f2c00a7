# SPDX-License-Identifier: Apache-2.0
"""What PX4 sends (px4_msgs), in the conventions of ROS: NED and FRD become ENU and FLU, time since boot becomes ROS time.
Works on any object with the fields of the message."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import Array, pose, rotation_from_quaternion
from recon3d_ros.core.types import Pose

#: Rotations ENU <- NED and FLU <- FRD; each is its own inverse (px4_ros_com, MAVROS).
R_ENU_NED: Array = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
R_FLU_FRD: Array = np.diag([1.0, -1.0, -1.0])

#: VehicleOdometry.pose_frame -> rotation from that world to one whose z points up. FRD: of any heading.
_WORLDS = {1: R_ENU_NED, 2: R_FLU_FRD}

#: Metres from where the estimator began.
_FARTHEST = 1e7
#: Clocks of boards run apart by less than this.
_DRIFT = 1e-4
#: A stamp so much older than the one before comes from a board that has started anew.
_RESTART_US = 1_000_000


def pose_from_vehicle_odometry(message: Any) -> Pose:
    """Pose world <- body of a px4_msgs VehicleOdometry, 4x4: world ENU (pose_frame 1) or of any heading (2), body FLU.

    Raises FrameError for an unknown frame, and where position or orientation is not given (NaN).
    """
    world = _WORLDS.get(int(message.pose_frame))
    if world is None:
        raise FrameError("odometry frame", f"pose_frame {message.pose_frame} is neither NED (1) nor FRD (2)")
    position = np.array(message.position, dtype=np.float64)
    w, x, y, z = (float(value) for value in message.q)
    if not np.isfinite(position).all() or np.abs(position).max() > _FARTHEST:
        raise FrameError("odometry invalid", f"position {position.tolist()}")
    try:
        R_world_body = rotation_from_quaternion(np.array([x, y, z, w]))
    except ValueError as error:
        raise FrameError("odometry invalid", str(error)) from error
    return pose(world @ R_world_body @ R_FLU_FRD, world @ position)


class BootClock:
    """Maps microseconds since the boot of a board to ROS time by when messages arrive: the one that took least on its way
    says how far the clocks are apart, and an older one counts less the longer ago it came, since clocks drift."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._last = 0

    def is_restart(self, stamp_us: int) -> bool:
        """Whether a stamp can only come from a board that has started anew."""
        return self._offset is not None and stamp_us + _RESTART_US < self._last

    def ros_ns(self, stamp_us: int, arrived_ns: int) -> int:
        """ROS time, nanoseconds, of a stamp in a message that arrived at `arrived_ns`."""
        delay = arrived_ns - stamp_us * 1000
        if self._offset is None or self.is_restart(stamp_us):
            self._offset = delay
        else:
            elapsed_ns = max(stamp_us - self._last, 0) * 1000
            self._offset = min(self._offset + round(elapsed_ns * _DRIFT), delay)
        self._last = stamp_us
        return stamp_us * 1000 + self._offset
