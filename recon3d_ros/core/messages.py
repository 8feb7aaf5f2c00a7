# SPDX-License-Identifier: Apache-2.0
"""Values of ROS messages. Works on any object with the fields of the message: those of rclpy and those that a bag reader
makes. Images have a module of their own, `core.image_messages`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import model_name
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import pose, rotation_from_quaternion
from recon3d_ros.core.gravity import Inertia
from recon3d_ros.core.types import Pose

#: Metres; the centre of the Earth is nearer.
_FARTHEST = 1e8
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")


def stamp_ns(message: Any) -> int:
    """Acquisition time of a message with a header, nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def base_topic(topic: str) -> str:
    """The image topic without the name of its transport: `/cam/image_raw/compressed` -> `/cam/image_raw`."""
    head, _, tail = topic.rpartition("/")
    return head if tail in _TRANSPORTS else topic


def camera_info_topic(topic: str) -> str:
    """The camera_info that belongs to an image topic: the one beside it."""
    return base_topic(topic).rpartition("/")[0] + "/camera_info"


def is_depth_topic(topic: str) -> bool:
    """True for image topics that hold depth by their name."""
    return "depth" in topic.lower()


def one_per_image(topics: Iterable[str]) -> list[str]:
    """One topic for each image, sorted: raw before its compressed forms, which sort after it."""
    chosen: dict[str, str] = {}
    for topic in sorted(topics):
        chosen.setdefault(base_topic(topic), topic)
    return list(chosen.values())


def is_rectified(topic: str) -> bool:
    """True for topics of rectified images: `image_rect`, `image_rect_color`, `image_rect_raw`..."""
    return re.search(r"(^|_)rect(_|$|ified)", base_topic(topic).rpartition("/")[2]) is not None


def camera_from_info(message: Any, rectified: bool = False) -> Camera | None:
    """The camera of the images that a CameraInfo describes, or None when it is uncalibrated (k[0] is 0).

    rectified: the images are rectified ones, whose matrix is P. Binning, then the region of interest, are applied.
    Raises InputError for an unknown distortion model, or values that are no calibration.
    """
    if message.k[0] == 0:
        return None
    width, height = int(message.width), int(message.height)
    p, k = message.p, message.k
    if rectified:
        fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] != 0 else (k[0], k[4], k[2], k[5])
        camera = Camera(width, height, float(fx), float(fy), float(cx), float(cy))
    else:
        # Without coefficients nothing is known of the distortion: none is assumed, whatever the model's name.
        coefficients = tuple(float(c) for c in message.d)
        model = model_name(str(message.distortion_model)) if coefficients else "pinhole"
        if model == "pinhole" and any(coefficients):
            model = "plumb_bob"
        camera = Camera(
            width, height, float(k[0]), float(k[4]), float(k[2]), float(k[5]), model, coefficients
        )
    return _binned(_windowed(camera, message.roi), int(message.binning_x), int(message.binning_y))


def pose_from_message(message: Any) -> Pose:
    """4x4 pose of a geometry_msgs Pose or Transform. Raises FrameError for NaN, a place beyond the Earth, or a
    quaternion that is no rotation."""
    position = getattr(message, "position", None) or message.translation
    q = getattr(message, "orientation", None) or message.rotation
    T = np.array([position.x, position.y, position.z], dtype=np.float64)
    try:
        R = rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w], dtype=np.float64))
    except ValueError as error:
        raise FrameError("prior", f"pose message: {error}") from error
    if not (np.abs(T) < _FARTHEST).all():
        raise FrameError("prior", f"pose message: position {T.tolist()}")
    return pose(R, T)


def inertia_from_message(message: Any) -> Inertia:
    """The reading of a sensor_msgs Imu without what it does not give: first element of a covariance -1 (REP-145)."""

    def given(covariance: Any) -> bool:
        return float(covariance[0]) != -1.0

    force, turn, q = message.linear_acceleration, message.angular_velocity, message.orientation
    return Inertia(
        np.array([force.x, force.y, force.z]) if given(message.linear_acceleration_covariance) else None,
        np.array([turn.x, turn.y, turn.z]) if given(message.angular_velocity_covariance) else None,
        np.array([q.x, q.y, q.z, q.w]) if given(message.orientation_covariance) else None,
    )


def _windowed(camera: Camera, roi: Any) -> Camera:
    # All zero means the full image; the window is given in pixels before binning.
    if not (roi.x_offset or roi.y_offset or roi.width or roi.height):
        return camera
    width = int(roi.width) or camera.width - int(roi.x_offset)
    height = int(roi.height) or camera.height - int(roi.y_offset)
    return camera.cropped(int(roi.x_offset), int(roi.y_offset), width, height)


def _binned(camera: Camera, x: int, y: int) -> Camera:
    x, y = max(x, 1), max(y, 1)
    return camera if (x, y) == (1, 1) else camera.resized(camera.width // x, camera.height // y)
