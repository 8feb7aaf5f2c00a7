# SPDX-License-Identifier: Apache-2.0
"""Pixels of the delivered image -> centred pixels: undistorted, about the principal point, with one focal length. Points
are undistorted, never images; one focal length for the whole map lets cameras be swapped in mid-stream."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numba import njit

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats

#: Pixels between the nodes of the undistortion table. Interpolated there and corrected once by the model, a point is exact
#: to a few hundredths of a pixel even for wide lenses, at a tenth of the time of the exact inversion.
_STRIDE = 4


class Lens:
    """camera: of the image. focal: the pixels of a map, on which all cameras of it are brought. given, guess: the
    camera and the focal length as they were at first."""

    def __init__(self, camera: Camera, focal: float) -> None:
        self.given = self.camera = camera
        self.guess = focal
        #: Whether the focal length is a guess that `stretch` may refine, and whether it was refined for good.
        self.refinable = camera.estimated and camera.model == "pinhole"
        self.refined = False
        self.focal = focal
        self.size = max(camera.size)
        #: Thresholds in pixels are meant for images 640 pixels wide and grow with the size.
        self.scale = self.size / 640.0

    def centred(self, px: Floats) -> Array:
        """Centred pixels float64 [N,2] of pixels float32 [N,2]; NaN where the distortion model does not reach."""
        camera = self.camera
        if camera.model == "pinhole":
            gain = (self.focal / camera.fx, self.focal / camera.fy)
            return np.asarray((px.astype(np.float64) - (camera.cx, camera.cy)) * gain)
        xy = _interpolate(_undistortion(camera), px.astype(np.float64))
        off = px - camera.project(np.column_stack([xy, np.ones(len(xy))]))
        return np.asarray((xy + off / (camera.fx, camera.fy)) * self.focal)

    def stretch(self, factor: float) -> None:
        """Change the focal length of a camera without distortion together with that of its map: centred pixels stay."""
        self.focal *= factor
        self.camera = replace(self.camera, fx=self.camera.fx * factor, fy=self.camera.fy * factor)

    def project(self, T_cam_map: Array, points: Array) -> Floats:
        """Pixels float32 [N,2] in the delivered image of map points [N,3]; NaN behind the camera or outside the image."""
        px = self.camera.project(points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3])
        with np.errstate(invalid="ignore"):
            inside = np.all((px >= 0) & (px <= np.array(self.camera.size) - 1), axis=1)
        return np.where(inside[:, None], px, np.nan).astype(np.float32)


@lru_cache(maxsize=4)
def _undistortion(camera: Camera) -> Array:
    """Normalised coordinates at every `_STRIDE`th pixel, [h,w,2]."""
    u, v = np.arange(0, camera.width + _STRIDE, _STRIDE), np.arange(0, camera.height + _STRIDE, _STRIDE)
    pixels = np.stack(np.meshgrid(u, v), axis=-1).astype(np.float64)
    return camera.unproject(pixels.reshape(-1, 2)).reshape(pixels.shape)


@njit(cache=True, nogil=True)
def _interpolate(table, px):
    out = np.empty((len(px), 2))
    for n in range(len(px)):
        x = min(max(px[n, 0] / _STRIDE, 0.0), table.shape[1] - 1.001)
        y = min(max(px[n, 1] / _STRIDE, 0.0), table.shape[0] - 1.001)
        i, j = int(y), int(x)
        b, a = y - i, x - j
        for c in range(2):
            top = (1.0 - a) * table[i, j, c] + a * table[i, j + 1, c]
            bottom = (1.0 - a) * table[i + 1, j, c] + a * table[i + 1, j + 1, c]
            out[n, c] = (1.0 - b) * top + b * bottom
    return out
