# SPDX-License-Identifier: Apache-2.0
"""From frames to views: depth and colours brought into one ideal pinhole camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.rgbd.kernels import JUMP, shrink
from recon3d_ros.core.backend_params import RgbdParams
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.image import resampled, resampling_map, to_grey
from recon3d_ros.core.types import Floats, Frame, Image

#: Depth is tracked at about this width; it is noisy enough for more pixels to add nothing.
WIDTH = 320


@dataclass(frozen=True, eq=False)
class View:
    """A frame in the ideal pinhole camera of its depth. colours: uint8 [H,W,3]. grey: uint8 [H,W]. depth: float32 [H,W],
    measurements beyond the limits or without a colour removed, or None. small: it at about `WIDTH`, of small_camera."""

    camera: Camera
    colours: Image
    grey: NDArray[np.uint8]
    depth: Floats | None
    small: Floats | None
    small_camera: Camera


class Rectifier:
    """Makes views. The image's and the depth's camera count as one point with the same axes, whatever their optics: a ray
    of one is a ray of the other, so the tables do not depend on depth."""

    def __init__(self, params: RgbdParams) -> None:
        self.params = params
        self.reset()

    def reset(self) -> None:
        """The next frame may have other sizes."""
        self._image_size: tuple[int, int] | None = None
        self._depth_camera: Camera | None = None

    def view(self, frame: Frame) -> View | None:
        """The view of a frame; None for frames before the first depth, as its camera is not known yet. Raises FrameError,
        and changes nothing, when a size is not that of the frames before or of its camera."""
        image_camera = self._image_camera(frame)
        camera = self._depth_camera if frame.depth is None else self._camera_of_depth(frame, image_camera)
        self._image_size = image_camera.size
        if camera is None:
            return None
        self._depth_camera = camera
        ideal = camera.undistorted()
        colours = resampled(frame.image, ideal, image_camera)
        depth = None if frame.depth is None else self._clean(frame.depth, ideal, camera, image_camera)
        factor = max(1, round(ideal.width / WIDTH))
        small = shrink(depth, factor, JUMP) if depth is not None and factor > 1 else depth
        return View(ideal, colours, to_grey(colours), depth, small, _shrunk(ideal, factor))

    def _image_camera(self, frame: Frame) -> Camera:
        height, width = frame.image.shape[:2]
        if frame.camera is None:
            raise FrameError("no camera", "the frame has no camera")
        if frame.camera.size != (width, height):
            raise FrameError(
                "image size",
                f"image of {width}x{height}, its camera of {frame.camera.width}x{frame.camera.height}",
            )
        if self._image_size not in (None, frame.camera.size):
            raise FrameError("image size", f"image of {width}x{height}, those before were of another size")
        return frame.camera

    def _camera_of_depth(self, frame: Frame, image_camera: Camera) -> Camera:
        assert frame.depth is not None
        height, width = frame.depth.shape
        camera = frame.depth_camera or image_camera.resized(width, height)
        if camera.size != (width, height):
            raise FrameError(
                "depth size", f"depth of {width}x{height}, its camera of {camera.width}x{camera.height}"
            )
        if self._depth_camera is not None and camera.size != self._depth_camera.size:
            raise FrameError("depth size", f"depth of {width}x{height}, that before was of another size")
        return camera

    def _clean(self, depth: Floats, ideal: Camera, camera: Camera, image_camera: Camera) -> Floats:
        if camera != ideal:
            table = resampling_map(ideal, camera)
            depth = cv2.remap(
                depth, table, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(math.nan,)
            )
        usable = (depth >= self.params.min_depth) & (depth <= self.params.max_depth)
        if image_camera != camera:
            usable &= _inside(ideal, image_camera)
        return np.where(usable, depth, np.float32(np.nan))


@lru_cache(maxsize=2)
def _inside(target: Camera, source: Camera) -> NDArray[np.bool_]:
    """Which pixels [H,W] of `target` the image of `source` shows."""
    table = resampling_map(target, source)
    low, high = np.float32(-0.5), np.array(source.size, np.float32) - np.float32(0.5)
    return np.asarray(((table > low) & (table < high)).all(axis=-1))


def _shrunk(camera: Camera, factor: int) -> Camera:
    """The camera of the image shrunk by a whole factor; rows and columns left over at its end are cut off."""
    width, height = camera.width // factor, camera.height // factor
    return camera.cropped(0, 0, width * factor, height * factor).resized(width, height)
