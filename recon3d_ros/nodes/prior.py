# SPDX-License-Identifier: Apache-2.0
"""Camera poses from outside, looked up by stamp: from the topic `odom`, whatever drones publish there, or from TF."""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.history import History
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.px4 import BootClock, pose_from_vehicle_odometry
from recon3d_ros.core.trajectory import pose_between
from recon3d_ros.core.types import Pose
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.listening import IsOld, Kind, Listener
from recon3d_ros.ros.graph import offered
from recon3d_ros.ros.messages import vehicle_odometry_type
from recon3d_ros.ros.tf import Transforms, unlinked

#: Poses kept, and the longest gap over which they are interpolated.
_KEPT, _GAP_NS = 200, 500_000_000
_WITH_TF = "nav_msgs/msg/Odometry"
#: The body of messages that do not name it (REP-105).
_BODY = "base_link"


class PosePrior:
    """`at` is called by the worker, messages come in callbacks. What is published on `odom` says how it is read; where
    nobody publishes it, `input.prior_frame` is looked up on TF.

    counts: messages and look-ups that gave no pose, by reason.
    """

    def __init__(self, node: ManagedNode, config: Config, transforms: Transforms, is_old: IsOld) -> None:
        self.poses: History[Pose] = History(_KEPT)
        self._node = node
        self._log = node.get_logger()
        self._world = config.input.prior_frame
        if self._world and self._world == config.frames.map:
            raise InputError(
                f"input.prior_frame must not be frames.map ('{self._world}'), which is placed by this node: name the frame "
                "that the flight stack flies by, such as odom"
            )
        self._tolerance_ns = round(config.input.sync * 1e9)
        self._transforms = transforms
        self._default_body = self._body = config.frames.base or _BODY
        self._clock = BootClock()
        self._resets: int | None = None
        self._listener = Listener(node, "odom", "odometry", self._kinds(), is_old)
        self.counts = self._listener.counts
        self.begin = self._listener.begin
        self._wait = config.input.wait
        self._next_hint = time.monotonic() + self._wait

    @property
    def has_no_tf(self) -> bool:
        """Whether the poses are of a kind that comes without a transform: those who send Odometry send it as a rule."""
        return self._listener.kind is not None and self._listener.kind.name != _WITH_TF

    def look(self) -> None:
        """Subscribe to what is published by now; while nothing is, say what there is, not too often."""
        self._listener.look()
        if self._listener.kind is None and not self._world and time.monotonic() > self._next_hint:
            self._next_hint = time.monotonic() + self._wait
            found = offered(self._node, [kind.name for kind in self._kinds()])
            choices = " or ".join(f"-r odom:={topic}" for topic in found)
            self._log.warning(
                f"prior is set, and nobody publishes {self._node.resolve_topic_name('odom')}: choose a topic with "
                f"{choices or '-r odom:=...'}, or a frame of /tf with -p input.prior_frame:=..."
            )

    def source(self) -> str:
        """The type of messages that are heard, or the frame that is looked up."""
        return f"/tf from {self._world}" if self._is_by_tf else self._listener.source()

    def reset(self) -> None:
        """Forget all poses: time went back."""
        self.poses.clear()
        self._clock = BootClock()

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """The pose of the camera at a stamp in the odometry's world, None if there is none within the tolerance. Waits as
        long as that for a message that comes later than its image."""
        if self._is_by_tf:
            return self._by_tf(stamp_ns, camera_frame)
        self.poses.wait(stamp_ns, self._tolerance_ns * 1e-9)
        if not len(self.poses):
            self.counts["no odometry"] += 1
            return None
        T_body_camera = self._transforms.lookup(self._body, camera_frame, stamp_ns, self._tolerance_ns)
        if T_body_camera is None:
            self.counts["odometry without transform"] += 1
            self._log.warning(
                f"odometry is not used: {unlinked(self._body, camera_frame)}",
                throttle_duration_sec=5.0,
            )
            return None
        around = self.poses.around(stamp_ns)
        T_odom_body = pose_between(*around, stamp_ns, self._tolerance_ns, _GAP_NS)
        if T_odom_body is None:
            self.counts["odometry at another time"] += 1
            return None
        return T_odom_body @ T_body_camera

    @property
    def _is_by_tf(self) -> bool:
        return bool(self._world) and self._listener.kind is None

    def _by_tf(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        T = self._transforms.lookup(self._world, camera_frame, stamp_ns, self._tolerance_ns)
        if T is None:
            self.counts["no transform from prior_frame"] += 1
            self._log.warning(
                f"no prior: /tf does not link input.prior_frame '{self._world}' and '{camera_frame}' at the stamps of the "
                "images; is it published in time (input.sync), and the camera on /tf_static?",
                throttle_duration_sec=5.0,
            )
        return T

    def _kinds(self) -> tuple[Kind, ...]:
        return (
            Kind(_WITH_TF, lambda: Odometry, self._on_odometry),
            Kind(
                "geometry_msgs/msg/PoseWithCovarianceStamped",
                lambda: PoseWithCovarianceStamped,
                lambda message: self._on_pose(message, message.pose.pose),
            ),
            Kind(
                "geometry_msgs/msg/PoseStamped",
                lambda: PoseStamped,
                lambda message: self._on_pose(message, message.pose),
            ),
            Kind("px4_msgs/msg/VehicleOdometry", vehicle_odometry_type, self._on_vehicle_odometry),
        )

    def _on_odometry(self, message: Odometry) -> None:
        self._on_pose(message, message.pose.pose, message.child_frame_id)

    def _on_pose(self, message: Any, pose: Any, body: str = "") -> None:
        try:
            T = pose_from_message(pose)
        except FrameError:
            self.counts["odometry invalid"] += 1
            return
        self._body = body.lstrip("/") or self._default_body
        self._listener.add(self.poses, stamp_ns(message), T)

    def _on_vehicle_odometry(self, message: Any) -> None:
        """PX4: what it knew before its estimator, or the board itself, began anew is forgotten."""
        stamp_us = int(message.timestamp_sample or message.timestamp)
        if self._resets not in (None, message.reset_counter) or self._clock.is_restart(stamp_us):
            self.counts["odometry before a reset"] += self.poses.clear()
            self._log.warning("the odometry of PX4 began anew", throttle_duration_sec=5.0)
        self._resets = message.reset_counter
        stamp = self._clock.ros_ns(stamp_us, self._node.get_clock().now().nanoseconds)
        try:
            T = pose_from_vehicle_odometry(message)
        except FrameError as error:
            self.counts[error.reason] += 1
            return
        self._listener.add(self.poses, stamp, T)
