# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 recording: a folder, or one .mcap or .db3 file. Read by rosbags, which needs no ROS."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image_messages import decode_depth_message, decode_image_message
from recon3d_ros.core.messages import camera_from_info, camera_info_topic, is_rectified, stamp_ns
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, Frame
from recon3d_ros.runtime.sources.bag_poses import read_camera_poses
from recon3d_ros.runtime.sources.bag_reader import Bag, BagMessage
from recon3d_ros.runtime.sources.bag_topics import choose_depth, choose_image, choose_odometry
from recon3d_ros.runtime.sources.base import camera_text, name_of, pose_at
from recon3d_ros.runtime.sync import Pair, Synchroniser

_log = logging.getLogger(__name__)

#: Damaged messages at the start of a topic that are passed over in the search of one that can be decoded.
_PATIENCE = 20


class BagSource:
    """Frames of one image topic with the depth nearest in time, if the bag has any. The camera is that of the first
    camera_info beside the topic, looked up before the first frame. Topics not given are chosen where it is clear."""

    kind = "rosbag2"
    truth: Trajectory | None = None
    surface: Distance | None = None

    def __init__(
        self,
        path: Path,
        camera: Camera | None = None,
        prior: bool = False,
        image_topic: str | None = None,
        depth_topic: str | None = None,
        odometry_topic: str | None = None,
        tolerance_ns: int = 30_000_000,
    ) -> None:
        self.name = name_of(path)
        self.tolerance_ns = tolerance_ns
        self.skipped: Counter[str] = Counter()
        self.bag = Bag(path)
        with self.bag.opened():
            self.image = choose_image(self.bag, image_topic)
            self.depth = choose_depth(self.bag, depth_topic)
            self.length: int | None = self.bag.topics[self.image.topic].count
            self.has_depth = self.depth is not None
            first, size = self._first_image()
            self.camera = fit_camera(camera, *size) if camera else self._camera(self.image.topic, size)
            self.depth_camera = self._depth_camera()
            self.odometry = choose_odometry(self.bag, odometry_topic) if prior else None
            frame_id = first.header.frame_id
            self._prior = read_camera_poses(self.bag, self.odometry, frame_id) if self.odometry else None

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        with self.bag.opened():
            for pair in self._pairs():
                frame = self._frame(pair)
                if frame is not None:
                    yield frame

    def describe(self) -> str:
        parts = [f"{self.length} images on {self.image.topic}{self.image.why}", camera_text(self.camera)]
        if self.depth is not None:
            registered = "of the image's camera" if self.depth_camera is None else "with a camera of its own"
            parts.append(f"depth on {self.depth.topic}{self.depth.why}, {registered}")
        if self.odometry is not None:
            parts.append(f"prior from {self.odometry}")
        return f"{self.kind} {self.name}: {', '.join(parts)}"

    def _pairs(self) -> Iterator[Pair[Any, Any]]:
        sync: Synchroniser[Any, Any] = Synchroniser(self.tolerance_ns)
        topics = [self.image.topic] + ([self.depth.topic] if self.depth else [])
        for item in self.bag.messages(topics, self.skipped):
            stamp = stamp_ns(item.message) or item.log_time_ns  # a stamp never filled in is zero
            if item.topic != self.image.topic:
                yield from sync.add_depth(stamp, item.message)
            elif self.depth is None:
                yield Pair(stamp, item.message, None)
            else:
                yield from sync.add_image(stamp, item.message)
        yield from sync.flush()
        if sync.counts["image out of order"]:
            self.skipped["stamp backwards"] += sync.counts["image out of order"]

    def _frame(self, pair: Pair[Any, Any]) -> Frame | None:
        try:
            image = decode_image_message(pair.image)
        except FrameError as error:
            self.skipped[error.reason] += 1
            return None
        depth = None
        if pair.depth is not None:
            try:
                depth = decode_depth_message(pair.depth)
            except FrameError as error:
                self.skipped[error.reason] += 1
        return Frame(
            stamp_ns=pair.stamp_ns,
            image=image,
            camera=self.camera,
            depth=depth,
            depth_camera=self.depth_camera if depth is not None else None,
            prior=pose_at(self._prior, pair.stamp_ns, self.tolerance_ns) if self._prior else None,
            frame_id=pair.image.header.frame_id or "camera",
        )

    def _first_image(self) -> tuple[Any, tuple[int, int]]:
        """The first image message that can be decoded, and its (width, height)."""
        problem = "it is empty"
        for tried, item in enumerate(self._messages(self.image.topic)):
            try:
                height, width = decode_image_message(item.message).shape[:2]
                return item.message, (width, height)
            except FrameError as error:
                problem = str(error)
            if tried == _PATIENCE:
                break
        raise InputError(f"no image of {self.image.topic} can be used: {problem}")

    def _camera(self, image_topic: str, size: tuple[int, int]) -> Camera | None:
        topic = camera_info_topic(image_topic)
        if topic not in self.bag.topics:
            return None
        for item in self._messages(topic):
            camera = camera_from_info(item.message, is_rectified(image_topic))
            if camera is not None:
                return fit_camera(camera, *size)
            _log.warning("%s is not calibrated (k[0] is 0): give --camera FILE", topic)
            break
        return None

    def _depth_camera(self) -> Camera | None:
        """The camera of the depth images, None where it is that of the images, or nothing else is known."""
        if self.depth is None:
            return None
        for item in self._messages(self.depth.topic):
            try:
                height, width = decode_depth_message(item.message).shape
            except FrameError:
                continue
            camera = self._camera(self.depth.topic, (width, height))
            if camera is None or self.camera is None:
                return camera
            same = dataclasses.replace(self.camera.resized(width, height), estimated=camera.estimated)
            return None if same == camera else camera
        return None

    def _messages(self, topic: str) -> Iterator[BagMessage]:
        return self.bag.messages([topic], Counter())
