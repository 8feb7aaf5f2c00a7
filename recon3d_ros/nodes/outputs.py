# SPDX-License-Identifier: Apache-2.0
"""What goes out: steps of the pipeline as poses, transforms, clouds and keyframe notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.duration import Duration
from rclpy.publisher import Publisher
from sensor_msgs.msg import PointCloud2

from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Frame, Keyframe, Pose, Update
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import (
    cloud_message,
    header,
    keyframe_message,
    odometry_message,
    pose_message,
    pose_stamped,
    transform_stamped,
)
from recon3d_ros.ros.messages import Keyframe as KeyframeMessage
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.ros.tf import MapToOdom, StaticTransforms
from recon3d_ros.runtime.pipeline import Step
from recon3d_ros.store.backproject import Backprojection
from recon3d_ros.store.keyframe_store import KeyframeStore

#: Poses on ~/path: beyond it every second one is left out.
_PATH = 1000
#: How long a subscriber that hangs may delay the end, for each topic.
_PATIENCE = Duration(seconds=1.0)


class Consumer(Protocol):
    """Who takes keyframes inside this process, by reference."""

    def put(self, keyframe: Keyframe) -> None: ...

    def correct(self, poses: Mapping[int, Pose]) -> None: ...

    def reset(self) -> None: ...


class StepPublisher:
    """Publishes steps. Called by one thread at a time; `published` counts messages by topic.

    A notice with sequence 0 begins a new map: whoever follows it starts anew.
    """

    def __init__(
        self, node: ManagedNode, config: Config, transforms: StaticTransforms, consumer: Consumer | None
    ) -> None:
        self.config = config
        self.published: Counter[str] = Counter()
        self._log = node.get_logger()
        self._transforms = transforms
        self._consumer = consumer
        self._pose = node.add_publisher(PoseStamped, "~/pose", qos.OUTPUT)
        self._odometry = node.add_publisher(Odometry, "~/odometry", qos.OUTPUT)
        self._path = node.add_publisher(Path, "~/path", qos.LATCHED)
        self._cloud = node.add_publisher(PointCloud2, "~/cloud", qos.OUTPUT)
        self._notice = node.add_publisher(KeyframeMessage, "~/keyframe", qos.NOTICES)
        self._tf = node.add_publisher(TFMessage, "/tf", qos.TF)
        self._camera_frame = ""
        self._map_to_odom = MapToOdom()
        self._path_is_new = False
        self._begin()

    def publish(self, step: Step, frame: Frame | None, store: KeyframeStore) -> None:
        """Send all that a step brought. frame: the one that led to it, None at the end."""
        update = step.update
        if step.begins:
            self._change_map()
        self._map_to_odom.follow(update)
        if frame is not None:
            self._camera_frame = (self.config.frames.camera or frame.frame_id).lstrip("/")
        if update.T_map_cam is not None and not update.revises:
            prior = frame.prior if frame is not None and frame.stamp_ns == update.stamp_ns else None
            self._publish_pose(update.stamp_ns, update.T_map_cam, prior)
        if update.corrections:
            self._publish_corrections(update)
        if step.keyframe is not None:
            self._publish_keyframe(step.keyframe, update, store)

    def publish_path(self) -> None:
        """Send the poses so far, if there are new ones."""
        if self._path_is_new:
            self._path_is_new = False
            poses = list(self._poses)
            self._send(self._path, Path(header=poses[-1].header, poses=poses))

    def flush(self) -> None:
        """Wait, not for ever, until subscribers have what was sent."""
        self.publish_path()
        for publisher in (self._cloud, self._notice, self._tf, self._pose, self._odometry, self._path):
            publisher.wait_for_all_acked(_PATIENCE)

    def reset(self) -> None:
        """Begin a new map, and say so to those who follow the keyframes."""
        self._begin()
        if self._consumer is not None:
            self._consumer.reset()
        self._send_notice(KeyframeMessage(action=KeyframeMessage.REMOVE))

    def _change_map(self) -> None:
        """Begin anew in another map, or the same in another scale. Odometry goes on from where it was."""
        elsewhere = self._map_to_odom.elsewhere()
        self.reset()
        self._map_to_odom = elsewhere

    def _begin(self) -> None:
        self._map_to_odom = MapToOdom()
        self._poses: list[PoseStamped] = []
        self._path_is_new = False
        self._path_stride = 1
        self._answers = 0
        self._sequence = 0

    def _send(self, publisher: Publisher[Any], message: Any) -> None:
        publisher.publish(message)
        self.published[publisher.topic_name] += 1

    def _publish_pose(self, stamp_ns: int, T_map_cam: Pose, prior: Pose | None) -> None:
        frames = self.config.frames
        base = frames.base or self._camera_frame
        T_base_cam = self._transforms.lookup(base, self._camera_frame)
        if T_base_cam is None:
            self._log.warning(
                f"no pose and no TF: no static transform links frames.base '{base}' and the camera "
                f"'{self._camera_frame}'; publish it on /tf_static (ros2 run tf2_ros static_transform_publisher), or leave "
                "frames.base empty",
                throttle_duration_sec=5.0,
            )
            return
        T_map_base = T_map_cam @ inverse(T_base_cam)
        pose = pose_stamped(T_map_base, stamp_ns, frames.map)
        self._send(self._pose, pose)
        self._extend_path(pose)
        if prior is not None:  # odom -> base is published by whoever made the odometry
            self._send_tf(stamp_ns, T_map_cam @ inverse(prior), None, base)
            return
        T_odom_base = self._map_to_odom.in_odom(T_map_base)
        self._send(self._odometry, odometry_message(T_odom_base, stamp_ns, frames.odom, base))
        self._send_tf(stamp_ns, self._map_to_odom.T_map_odom, T_odom_base, base)

    def _send_tf(self, stamp_ns: int, T_map_odom: Pose, T_odom_base: Pose | None, base: str) -> None:
        frames, links = self.config.frames, []
        if frames.publish_tf:
            links.append(transform_stamped(T_map_odom, stamp_ns, frames.map, frames.odom))
        if frames.publish_odom_tf and T_odom_base is not None:
            links.append(transform_stamped(T_odom_base, stamp_ns, frames.odom, base))
        if links:
            self._send(self._tf, TFMessage(transforms=links))

    def _extend_path(self, pose: PoseStamped) -> None:
        if self._answers % self._path_stride == 0:
            self._poses.append(pose)
            self._path_is_new = True
        self._answers += 1
        if len(self._poses) > _PATH:
            self._poses = self._poses[::2]
            self._path_stride *= 2

    def _publish_corrections(self, update: Update) -> None:
        if self._consumer is not None:
            self._consumer.correct(update.corrections)
        for keyframe_id, T in update.corrections.items():
            message = KeyframeMessage(
                header=header(update.stamp_ns, self.config.frames.map),
                action=KeyframeMessage.UPDATE,
                id=keyframe_id,
            )
            message.pose = pose_message(T)
            self._send_notice(message)

    def _publish_keyframe(self, keyframe: Keyframe, update: Update, store: KeyframeStore) -> None:
        if self._consumer is not None:
            self._consumer.put(keyframe)
        message = keyframe_message(keyframe, self.config.frames.map)
        place = store.handle(keyframe.id)
        message.shm_name, message.generation = place.shm_name, place.generation
        message.shm_size = place.shm_size if place.shm_name else 0
        self._send_notice(message)
        self._publish_cloud(update)

    def _send_notice(self, message: KeyframeMessage) -> None:
        message.sequence = self._sequence
        self._sequence += 1
        self._send(self._notice, message)

    def _publish_cloud(self, update: Update) -> None:
        params = self.config.cloud
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
        self._send(
            self._cloud, cloud_message(points, colours, confidence, update.stamp_ns, self.config.frames.map)
        )
