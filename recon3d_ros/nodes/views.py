# SPDX-License-Identifier: Apache-2.0
"""What goes out for viewers: the path so far and the clouds of keyframes, no more often than asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.publisher import Publisher
from sensor_msgs.msg import PointCloud2

from recon3d_ros.core.config import CloudParams
from recon3d_ros.core.types import Update
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import cloud_message
from recon3d_ros.store.backproject import Backprojection

#: Poses on ~/path: beyond it every second one is left out. Seconds between two paths.
_POSES, _PERIOD = 1000, 1.0

#: Publishes a message and counts it.
Send = Callable[[Publisher[Any], Any], None]


class PathOutput:
    """The poses so far on ~/path, newest last. `add` and `publish` may be called by two threads."""

    def __init__(self, node: ManagedNode, send: Send) -> None:
        self.publisher = node.add_publisher(Path, "~/path", qos.LATCHED)
        self._send = send
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._poses: list[PoseStamped] = []
        self._count, self._stride = 0, 1
        self._is_new, self._due = False, 0.0

    def add(self, pose: PoseStamped) -> None:
        """One more pose."""
        if self._count % self._stride == 0:
            self._poses.append(pose)
            self._is_new = True
        self._count += 1
        if len(self._poses) > _POSES:
            self._poses = self._poses[::2]
            self._stride *= 2

    def publish(self, now: bool = False) -> None:
        """Send the poses, if there are new ones and, unless `now`, the last time is long enough ago."""
        if self._is_new and (now or time.monotonic() >= self._due):
            self._is_new, self._due = False, time.monotonic() + _PERIOD
            poses = list(self._poses)
            self._send(self.publisher, Path(header=poses[-1].header, poses=poses))


class CloudOutput:
    """The points of keyframes on ~/cloud, in the map frame."""

    def __init__(self, node: ManagedNode, send: Send) -> None:
        self.publisher = node.add_publisher(PointCloud2, "~/cloud", qos.OUTPUT)
        self._send = send
        self.reset()

    def reset(self) -> None:
        """The next cloud is due, whenever that is."""
        self._stamp_ns: int | None = None

    def publish(self, update: Update, params: CloudParams, map_frame: str) -> None:
        """Send the cloud of a keyframe, if one is due."""
        if not self._is_due(update.stamp_ns, params.publish_rate):
            return
        assert update.depth is not None and update.camera is not None
        assert update.T_map_cam is not None and update.colours is not None
        pixels = Backprojection(
            update.depth,
            update.camera,
            update.T_map_cam,
            update.colours,
            update.confidence,
            stride=params.stride,
            min_confidence=params.min_confidence,
        )
        points, colours = np.empty((pixels.count, 3), np.float32), np.empty((pixels.count, 3), np.uint8)
        confidence = None if update.confidence is None else np.empty(pixels.count, np.float32)
        pixels.fill(points, colours, confidence)
        message = cloud_message(points, colours, confidence, update.stamp_ns, map_frame)
        self._send(self.publisher, message)

    def _is_due(self, stamp_ns: int, rate: float) -> bool:
        """True for a cloud that may be published; stamps that went back begin anew."""
        last = self._stamp_ns
        is_due = not rate or last is None or not 0 <= stamp_ns - last < 1e9 / rate
        if is_due:
            self._stamp_ns = stamp_ns
        return is_due
