# SPDX-License-Identifier: Apache-2.0
"""Camera poses from an odometry topic, looked up by stamp."""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np
from nav_msgs.msg import Odometry

from recon3d_ros.core.config import InputParams
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Pose
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros.qos import input_profile
from recon3d_ros.ros.tf import StaticTransforms
from recon3d_ros.runtime.sources.base import pose_at

#: Poses kept, and messages that may wait: some odometry comes in bursts.
_KEPT = 200


class OdometryPrior:
    """Listens to `odom` once the node is active. `at` is called by the worker, messages come in callbacks.

    counts: messages and look-ups that gave no pose, by reason.
    """

    def __init__(self, node: ManagedNode, params: InputParams, transforms: StaticTransforms) -> None:
        self.counts: Counter[str] = Counter()
        self._node = node
        self._log = node.get_logger()
        self._tolerance_ns = round(params.sync * 1e9)
        self._transforms = transforms
        self._poses: deque[tuple[int, Pose]] = deque(maxlen=_KEPT)
        self._body = ""
        self._arrived = threading.Condition()

    def listen(self) -> None:
        """Subscribe, until the node is deactivated."""
        # Best effort connects to every publisher.
        profile = input_profile("best_effort", (), _KEPT)
        self._node.add_subscription(Odometry, "odom", self._on_odometry, profile)

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """The pose of the camera at a stamp in the odometry's world, None if there is none within the tolerance. Waits as
        long as that for an odometry message that comes later than its image."""
        with self._arrived:
            self._arrived.wait_for(
                lambda: self._poses and self._poses[-1][0] >= stamp_ns, self._tolerance_ns * 1e-9
            )
            known = list(self._poses)
        if not known:
            self.counts["no odometry"] += 1
            return None
        T_body_camera = self._transforms.lookup(self._body, camera_frame.lstrip("/"))
        if T_body_camera is None:
            self.counts["odometry without transform"] += 1
            self._log.warning(
                f"odometry is not used: no static transform links '{self._body}' and '{camera_frame}'; publish it on "
                "/tf_static (ros2 run tf2_ros static_transform_publisher)",
                throttle_duration_sec=5.0,
            )
            return None
        stamps, poses = zip(*known, strict=True)
        T_odom_body = pose_at(Trajectory(np.array(stamps), np.array(poses)), stamp_ns, self._tolerance_ns)
        return None if T_odom_body is None else T_odom_body @ T_body_camera

    def _on_odometry(self, message: Odometry) -> None:
        try:
            pose = pose_from_message(message.pose.pose)
        except FrameError:
            self.counts["odometry invalid"] += 1
            return
        stamp = stamp_ns(message)
        with self._arrived:
            if self._poses and stamp <= self._poses[-1][0]:
                self.counts["odometry backwards"] += 1
                return
            self._body = message.child_frame_id.lstrip("/")
            self._poses.append((stamp, pose))
            self._arrived.notify_all()
