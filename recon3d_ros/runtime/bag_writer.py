# SPDX-License-Identifier: Apache-2.0
"""Frames to a rosbag2 recording (mcap), as a camera driver would publish them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import require
from recon3d_ros.core.types import Frame

IMAGE_TOPIC = "/camera/image_raw"
CAMERA_INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"


def write_bag(
    path: Path,
    frames: Iterable[Frame],
    with_depth: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> None:
    """Write images (rgb8), camera_info and, if asked, depth (32FC1, registered) to the new folder `path`; each message
    is recorded at its stamp. Frames need a camera; `on_frame` is called after each (progress)."""
    rosbag2 = require("rosbags.rosbag2", extra="ros")
    types = _Messages()
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
        topics = {
            topic: bag.add_connection(topic, f"sensor_msgs/msg/{name}", typestore=types.store)
            for topic, name in (
                (CAMERA_INFO_TOPIC, "CameraInfo"),
                (IMAGE_TOPIC, "Image"),
                *([(DEPTH_TOPIC, "Image")] if with_depth else []),
            )
        }
        for frame in frames:
            for topic, message in types.of(frame, with_depth):
                data = types.store.serialize_cdr(message, message.__msgtype__)
                bag.write(topics[topic], frame.stamp_ns, data)
            on_frame()


class _Messages:
    """Messages as the bag library makes them, without ROS."""

    def __init__(self) -> None:
        typesys = require("rosbags.typesys", extra="ros")
        self.store = typesys.get_typestore(typesys.Stores.ROS2_KILTED)

    def of(self, frame: Frame, with_depth: bool) -> list[tuple[str, Any]]:
        """Topic and message of all that belongs to a frame."""
        assert frame.camera is not None
        out = [
            (CAMERA_INFO_TOPIC, self._info(frame, frame.camera)),
            (IMAGE_TOPIC, self._image(frame, frame.image, "rgb8")),
        ]
        if with_depth and frame.depth is not None:
            out.append((DEPTH_TOPIC, self._image(frame, frame.depth, "32FC1")))
        return out

    def _make(self, name: str, *fields: Any) -> Any:
        return self.store.types[name](*fields)

    def _header(self, frame: Frame) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", frame.stamp_ns // 10**9, frame.stamp_ns % 10**9)
        return self._make("std_msgs/msg/Header", stamp, frame.frame_id)

    def _image(self, frame: Frame, pixels: Any, encoding: str) -> Any:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        step = pixels.itemsize * pixels.size // height
        return self._make(
            "sensor_msgs/msg/Image", self._header(frame), height, width, encoding, 0, step, data
        )

    def _info(self, frame: Frame, camera: Camera) -> Any:
        model = "plumb_bob" if camera.model == "pinhole" else camera.model
        distortion = np.array(camera.distortion or (0.0,) * 5)
        projection = np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1)
        roi = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            self._header(frame),
            camera.height,
            camera.width,
            model,
            distortion,
            camera.K.reshape(-1),
            np.eye(3).reshape(-1),
            projection,
            0,
            0,
            roi,
        )
