# SPDX-License-Identifier: Apache-2.0
"""Gravity in the axes of the camera from the topic `imu` (REP-145)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Imu

from recon3d_ros.core.config import Config
from recon3d_ros.core.gravity import GravityFilter
from recon3d_ros.core.messages import inertia_from_message, stamp_ns
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.listening import IsOld, Kind, Listener
from recon3d_ros.ros.tf import Transforms, unlinked


class GravityInput:
    """`at` is called by the worker, messages come in callbacks. counts: what gave nothing, by reason."""

    def __init__(self, node: ManagedNode, config: Config, transforms: Transforms, is_old: IsOld) -> None:
        self._log = node.get_logger()
        self._tolerance_ns = round(config.input.sync * 1e9)
        self._transforms = transforms
        self.readings = GravityFilter()
        self._frame: str | None = None
        kind = Kind("sensor_msgs/msg/Imu", lambda: Imu, self._on_imu)
        self._listener = Listener(node, "imu", "imu", (kind,), is_old)
        self.counts, self.source = self._listener.counts, self._listener.source
        self.begin, self.look = self._listener.begin, self._listener.look

    def reset(self) -> None:
        """Forget all readings: time went back."""
        self.readings.reset()

    def at(self, stamp_ns: int, camera_frame: str) -> NDArray[np.float64] | None:
        """Unit vector [3] against gravity in optical axes; None while the drone accelerates, or nothing is known."""
        if self._frame is None:
            return None
        T_camera_imu = self._transforms.lookup(camera_frame, self._frame, stamp_ns, self._tolerance_ns)
        if T_camera_imu is None:
            self.counts["imu without transform"] += 1
            self._log.warning(
                f"the IMU is not used: {unlinked(self._frame, camera_frame)}, or set scale.imu to false",
                throttle_duration_sec=5.0,
            )
            return None
        up = self.readings.up(stamp_ns, self._tolerance_ns)
        return None if up is None else T_camera_imu[:3, :3] @ up

    def _on_imu(self, message: Imu) -> None:
        inertia = inertia_from_message(message)
        if inertia.force is None:
            self.counts["imu without acceleration"] += 1
            return
        self._frame = message.header.frame_id.lstrip("/")
        try:
            self._listener.add(self.readings, stamp_ns(message), inertia)
        except ValueError:
            self.counts["imu invalid"] += 1
