# SPDX-License-Identifier: Apache-2.0
"""The small, undistorted image of a keyframe on which dense depth is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.types import Floats, Image


@dataclass(frozen=True, eq=False)
class DenseKeyframe:
    """index, stamp_ns: of the frame. image: uint8 [h,w,3] RGB, undistorted; grey: uint8 [h,w], the same.
    camera: ideal pinhole of that small image."""

    index: int
    stamp_ns: int
    image: Image
    grey: Image
    camera: Camera


def prepare(
    index: int, stamp_ns: int, image: Image, camera: Camera, params: GeometricParams
) -> DenseKeyframe:
    """Shrink an RGB image uint8 [H,W,3] to `params.depth_width` (never enlarge it) and undistort it."""
    width = min(params.depth_width, camera.width)
    small = camera.resized(width, max(1, round(camera.height * width / camera.width)))
    if small.size != camera.size:
        image = cv2.resize(image, small.size, interpolation=cv2.INTER_AREA)
    if small.model != "pinhole":
        image = cv2.remap(image, _undistortion(small), None, cv2.INTER_CUBIC)
    return DenseKeyframe(index, stamp_ns, image, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), small.undistorted())


@lru_cache(maxsize=8)
def _undistortion(camera: Camera) -> Floats:
    """Pixel of the distorted image, float32 [h,w,2], for each pixel of the ideal pinhole with the same K; outside where
    the lens model has none."""
    rays = camera.undistorted().rays().reshape(-1, 2)
    pixels = camera.project(np.column_stack([rays, np.ones(len(rays))]))
    return np.nan_to_num(pixels, nan=-100.0).reshape(camera.height, camera.width, 2).astype(np.float32)
