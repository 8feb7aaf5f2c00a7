# SPDX-License-Identifier: Apache-2.0
"""What arrived for one image, and the frame it becomes. Knows nothing of ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image_messages import decode_depth_message, decode_image_message
from recon3d_ros.core.types import Floats, Frame, Pose

#: Pose of the camera at a stamp (ns) for an optical frame, or None.
PriorAt = Callable[[int, str], Pose | None]


def no_prior(stamp_ns: int, frame_id: str) -> Pose | None:
    """There is no odometry."""
    return None


@dataclass(frozen=True, eq=False)
class Capture:
    """What belongs to one image, as it came: messages are decoded in the worker, beside the callbacks.

    camera: of the calibration, None for an uncalibrated one. depth_camera: None where nothing is known of it.
    arrived: `time.perf_counter` when it was complete.
    """

    stamp_ns: int
    image: Any
    depth: Any | None
    camera: Camera | None
    depth_camera: Camera | None
    arrived: float


class Decoder:
    """Makes frames of captures; depth that cannot be used is counted in `drops`."""

    def __init__(self, prior_at: PriorAt, drops: Counter[str]) -> None:
        self._prior_at = prior_at
        self._drops = drops
        self._cameras: dict[Camera, Camera] = {}

    def frame(self, capture: Capture) -> Frame:
        """The frame. Raises FrameError for an image that cannot be used."""
        image = decode_image_message(capture.image)
        frame_id = capture.image.header.frame_id or "camera"
        camera = self._fitted(capture.camera, image.shape)
        depth = self._depth(capture)
        return Frame(
            stamp_ns=capture.stamp_ns,
            image=image,
            camera=camera,
            depth=depth,
            depth_camera=None if depth is None else self._own(capture.depth_camera, depth.shape, camera),
            prior=self._prior_at(capture.stamp_ns, frame_id),
            frame_id=frame_id,
        )

    def _depth(self, capture: Capture) -> Floats | None:
        """A damaged depth image costs itself, not the image."""
        if capture.depth is None:
            return None
        try:
            return decode_depth_message(capture.depth)
        except FrameError as error:
            self._drops[error.reason] += 1
            return None

    def _fitted(self, camera: Camera | None, shape: tuple[int, ...]) -> Camera | None:
        """The camera for the size of the first image that came with it; images of another size are for the backend to
        refuse."""
        if camera is not None and camera not in self._cameras:
            try:
                self._cameras[camera] = fit_camera(camera, shape[1], shape[0])
            except InputError as error:
                raise FrameError("image size", str(error)) from error
        return None if camera is None else self._cameras[camera]

    def _own(
        self, depth_camera: Camera | None, shape: tuple[int, ...], camera: Camera | None
    ) -> Camera | None:
        """The camera of the depth image, None where it is that of the image."""
        fitted = self._fitted(depth_camera, shape)
        if fitted is None or camera is None:
            return fitted
        return None if fitted == camera.resized(fitted.width, fitted.height) else fitted
