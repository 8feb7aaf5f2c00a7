# SPDX-License-Identifier: Apache-2.0
"""What arrived for one image, and the frame it becomes. Knows nothing of ROS."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image_messages import decode_depth_message, decode_image_message
from recon3d_ros.core.types import Floats, Frame

log = logging.getLogger(__name__)

#: What is known at a stamp (ns) for an optical frame, or None.
At = Callable[[int, str], NDArray[np.float64] | None]

#: Seconds between warnings about images of the same kind that cannot be used.
_QUIET = 5.0
#: Cameras whose fit to the images is remembered.
_CAMERAS = 100


def nothing(stamp_ns: int, frame_id: str) -> NDArray[np.float64] | None:
    """There is no such sensor."""
    return None


@dataclass(frozen=True)
class Aids:
    """What sensors beside the camera know, as `Frame` has it: its pose, its position, the direction against gravity."""

    prior: At = nothing
    position: At = nothing
    up: At = nothing


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
    """Makes frames of captures; depth that cannot be used is counted in `drops`. optical: the frame_id of images -> the
    name of their frame on TF."""

    def __init__(
        self,
        aids: Aids,
        drops: Counter[str],
        optical: Callable[[str], str] = lambda frame_id: frame_id,
    ) -> None:
        self._aids = aids
        self._warned: dict[str, float] = {}
        self._optical = optical
        self._drops = drops
        self._cameras: dict[Camera, Camera] = {}

    def frame(self, capture: Capture) -> Frame:
        """The frame. Raises FrameError for an image that cannot be used."""
        image = decode_image_message(capture.image)
        frame_id = self._optical(capture.image.header.frame_id or "camera")
        camera = self._fitted(capture.camera, image.shape)
        depth = self._depth(capture)
        return Frame(
            stamp_ns=capture.stamp_ns,
            image=image,
            camera=camera,
            depth=depth,
            depth_camera=None if depth is None else self._own(capture.depth_camera, depth.shape, camera),
            prior=self._aids.prior(capture.stamp_ns, frame_id),
            frame_id=frame_id,
            position=self._aids.position(capture.stamp_ns, frame_id),
            up=self._aids.up(capture.stamp_ns, frame_id),
        )

    def warn(self, error: FrameError) -> None:
        """Say why an image cannot be used, not too often for each reason."""
        self._say(error.reason, f"images are dropped: {error}")

    def _say(self, reason: str, text: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(reason, -_QUIET) >= _QUIET:
            self._warned[reason] = now
            log.warning(text)

    def _depth(self, capture: Capture) -> Floats | None:
        """A damaged depth image costs itself, not the image."""
        if capture.depth is None:
            return None
        ours, theirs = capture.image.header.frame_id, capture.depth.header.frame_id
        if ours != theirs:
            self._say(
                "depth frame",
                f"depth is of frame '{theirs}', the images are of '{ours}': it is taken as registered to them; "
                "where it is not, publish aligned depth (realsense2_camera: align_depth.enable:=true)",
            )
        try:
            return decode_depth_message(capture.depth)
        except FrameError as error:
            self._drops[f"depth: {error.reason}"] += 1
            self._say(f"depth: {error.reason}", f"depth is dropped: {error}")
            return None

    def _fitted(self, camera: Camera | None, shape: tuple[int, ...]) -> Camera | None:
        """The camera for the size of the first image that came with it; images of another size are for the backend to
        refuse."""
        if camera is not None and camera not in self._cameras:
            if len(self._cameras) >= _CAMERAS:  # lenses that zoom have another camera in every message
                self._cameras.clear()
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
