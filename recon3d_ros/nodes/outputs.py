# SPDX-License-Identifier: Apache-2.0
"""What goes out: steps of the pipeline as poses, transforms and keyframe notices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.publisher import Publisher

from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Frame, Keyframe, Pose, Update
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.views import CloudOutput, PathOutput
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import (
    header,
    keyframe_message,
    odometry_message,
    pose_message,
    pose_stamped,
    transform_stamped,
)
from recon3d_ros.ros.messages import Keyframe as KeyframeMessage
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.ros.tf import MapToOdom, Transforms, unlinked
from recon3d_ros.runtime.pipeline import Step
from recon3d_ros.store.keyframe_store import KeyframeStore

#: How long a subscriber that hangs may delay the end, for each topic.
_PATIENCE = Duration(seconds=1.0)


class Consumer(Protocol):
    """Who takes keyframes inside this process, by reference."""

    def put(self, keyframe: Keyframe) -> None: ...

    def correct(self, poses: Mapping[int, Pose]) -> None: ...

    def reset(self) -> None: ...

    def save_map(self, folder: Path) -> list[str]: ...

    def load_map(self, folder: Path) -> None: ...


class StepPublisher:
    """Publishes steps. Called by one thread at a time; `published` counts messages by topic. places_body: whether poses
    from outside come without the transform odom -> base, which is then sent here.

    A notice with sequence 0 begins a new map: whoever follows it starts anew.
    """

    def __init__(
        self,
        node: ManagedNode,
        config: Config,
        transforms: Transforms,
        consumer: Consumer | None,
        places_body: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config
        self.published: Counter[str] = Counter()
        self._log = node.get_logger()
        self._transforms = transforms
        self._consumer = consumer
        self._places_body = places_body
        self._pose = node.add_publisher(PoseStamped, "~/pose", qos.OUTPUT)
        self._odometry = node.add_publisher(Odometry, "~/odometry", qos.OUTPUT)
        self._path = PathOutput(node, self._send)
        self._cloud = CloudOutput(node, self._send)
        self._notice = node.add_publisher(KeyframeMessage, "~/keyframe", qos.NOTICES)
        self._tf = node.add_publisher(TFMessage, "/tf", qos.TF)
        self._camera_frame = ""
        self._expected_until = 0.0
        self._odom_is_given = False
        self._map_to_odom = MapToOdom()
        self._begin()

    def publish(self, step: Step, frame: Frame | None, store: KeyframeStore) -> None:
        """Send all that a step brought. frame: the one that led to it, None at the end."""
        update = step.update
        if step.begins:
            self._change_map()
        self._map_to_odom.follow(update)
        if frame is not None:
            self._camera_frame = frame.frame_id
        if update.T_map_cam is not None and not update.revises:
            prior = frame.prior if frame is not None and frame.stamp_ns == update.stamp_ns else None
            self._publish_pose(update.stamp_ns, update.T_map_cam, prior)
        if update.corrections:
            self._publish_corrections(update)
        if step.keyframe is not None:
            self._publish_keyframe(step.keyframe, update, store)

    def publish_path(self) -> None:
        """Send the poses so far, if there are new ones, once in a while."""
        self._path.publish()

    def flush(self) -> None:
        """Wait, not for ever, until subscribers have what was sent."""
        self._path.publish(now=True)
        outputs = (self._cloud.publisher, self._path.publisher)
        for publisher in (self._notice, self._tf, self._pose, self._odometry, *outputs):
            publisher.wait_for_all_acked(_PATIENCE)

    def reset(self) -> None:
        """Begin a new map, and say so to those who follow the keyframes."""
        self._begin()
        if self._consumer is not None:
            self._consumer.reset()
        self._send_notice(KeyframeMessage(action=KeyframeMessage.REMOVE))

    @property
    def _map_frame(self) -> str:
        return self.config.frames.named(self.config.frames.map)

    def _change_map(self) -> None:
        """Begin anew in another map, or the same in another scale. Odometry goes on from where it was."""
        elsewhere = self._map_to_odom.elsewhere()
        self.reset()
        self._map_to_odom = elsewhere

    def _begin(self) -> None:
        self._map_to_odom = MapToOdom()
        self._T_map_given: Pose | None = None
        self._path.reset()
        self._cloud.reset()
        self._sequence = 0

    def _send(self, publisher: Publisher[Any], message: Any) -> None:
        publisher.publish(message)
        self.published[publisher.topic_name] += 1

    def _publish_pose(self, stamp_ns: int, T_map_cam: Pose, prior: Pose | None) -> None:
        frames = self.config.frames
        base = frames.named(frames.base) or self._camera_frame
        tolerance_ns = round(self.config.input.sync * 1e9)
        T_base_cam = self._transforms.lookup(base, self._camera_frame, stamp_ns, tolerance_ns)
        if T_base_cam is None:
            self._log.warning(
                f"no pose and no TF: {unlinked(base, self._camera_frame)}, or leave frames.base empty",
                throttle_duration_sec=5.0,
            )
            return
        T_map_base = T_map_cam @ inverse(T_base_cam)
        pose = pose_stamped(T_map_base, stamp_ns, self._map_frame)
        self._send(self._pose, pose)
        self._path.add(pose)
        if prior is not None:
            self._odom_is_given, self._T_map_given = True, T_map_cam @ inverse(prior)
        if self._odom_is_given:
            # odom -> base is the business of whoever made the odometry, also while it is late.
            if self._T_map_given is not None:
                sent_here = prior is not None and self._places_body()
                T_odom_base = inverse(self._T_map_given) @ T_map_base if sent_here else None
                self._send_tf(stamp_ns, self._T_map_given, T_odom_base, base)
            return
        if self._expects_odometry():
            return
        T_odom_base = self._map_to_odom.in_odom(T_map_base)
        self._send(self._odometry, odometry_message(T_odom_base, stamp_ns, frames.named(frames.odom), base))
        self._send_tf(stamp_ns, self._map_to_odom.T_map_odom, T_odom_base, base)

    def _expects_odometry(self) -> bool:
        """Whether poses from outside are asked for and may still come: then odom -> base is not to be sent for a moment by
        this node, and later by another one."""
        if not self.config.prior or self.config.input.prior_frame:  # odom -> base of that is never sent here
            return False
        self._expected_until = self._expected_until or time.monotonic() + self.config.input.wait
        return time.monotonic() < self._expected_until

    def _send_tf(self, stamp_ns: int, T_map_odom: Pose, T_odom_base: Pose | None, base: str) -> None:
        frames, links = self.config.frames, []
        odom = frames.named(frames.odom)
        if frames.publish_tf:
            links.append(transform_stamped(T_map_odom, stamp_ns, self._map_frame, odom))
        # What is looked up on TF belongs to somebody else, also while it is not there.
        if frames.publish_odom_tf and T_odom_base is not None and not self.config.input.prior_frame:
            links.append(transform_stamped(T_odom_base, stamp_ns, odom, base))
        if links:
            self._send(self._tf, TFMessage(transforms=links))

    def _publish_corrections(self, update: Update) -> None:
        if self._consumer is not None:
            self._consumer.correct(update.corrections)
        for keyframe_id, T in update.corrections.items():
            message = KeyframeMessage(
                header=header(update.stamp_ns, self._map_frame),
                action=KeyframeMessage.UPDATE,
                id=keyframe_id,
            )
            message.pose = pose_message(T)
            self._send_notice(message)

    def _publish_keyframe(self, keyframe: Keyframe, update: Update, store: KeyframeStore) -> None:
        if self._consumer is not None:
            self._consumer.put(keyframe)
        message = keyframe_message(keyframe, self._map_frame)
        place = store.handle(keyframe.id)
        message.shm_name, message.generation = place.shm_name, place.generation
        message.shm_size = place.shm_size if place.shm_name else 0
        self._send_notice(message)
        self._cloud.publish(update, self.config.cloud, self._map_frame)

    def _send_notice(self, message: KeyframeMessage) -> None:
        message.sequence = self._sequence
        self._sequence += 1
        self._send(self._notice, message)
