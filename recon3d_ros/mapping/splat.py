# SPDX-License-Identifier: Apache-2.0
"""Points of a keyframe back into the depth image they came from: one path for every way in which a keyframe arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Floats, Image, Keyframe
from recon3d_ros.mapping.blocks import UNIT_WEIGHT
from recon3d_ros.mapping.jit import kernel

Intrinsics = tuple[float, float, float, float]

_NO_CONFIDENCE = np.ones(0, np.float32)


@dataclass(frozen=True, eq=False)
class DepthImage:
    """What a camera saw. camera: ideal pinhole. depth: float32 [h,w] along z, 0 = none. colours: uint8 [h,w,3].
    weights: uint8 [h,w], confidence * 64, at least 1 where there is depth."""

    camera: Camera
    depth: Floats
    colours: Image
    weights: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.depth.nbytes + self.colours.nbytes + self.weights.nbytes


def median_depth(keyframe: Keyframe) -> float:
    """Median depth along z of about 5000 points of a keyframe; 0 if none is in front of the camera."""
    points = keyframe.points[:: max(1, len(keyframe.points) // 5000)].astype(np.float64)
    T_cam_map = inverse(keyframe.T_map_cam)
    with np.errstate(invalid="ignore", over="ignore"):
        z = points @ T_cam_map[2, :3] + T_cam_map[2, 3]
        known = z[np.isfinite(z) & (z > 0)]
    return float(np.median(known)) if len(known) else 0.0


def splat(keyframe: Keyframe, limit: float) -> tuple[DepthImage, int, int]:
    """Depth image of a keyframe's points; of points that meet in a pixel the nearest stays.

    Returns the image, the number of its pixels with depth, and the number of points dropped because a coordinate or the
    confidence is not finite or the depth passes `limit` (map units)."""
    camera = keyframe.camera
    shape = (camera.height, camera.width)
    image = DepthImage(
        camera, np.zeros(shape, np.float32), np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    )
    filled, dropped = _splat(
        readonly(keyframe.points, np.float32),
        readonly(keyframe.colours, np.uint8),
        readonly(_NO_CONFIDENCE if keyframe.confidence is None else keyframe.confidence, np.float32),
        inverse(keyframe.T_map_cam),
        intrinsics(camera),
        float(limit),
        image.depth,
        image.colours,
        image.weights,
    )
    return image, filled, dropped


def intrinsics(camera: Camera) -> Intrinsics:
    """(fx, fy, cx, cy) for a kernel."""
    return float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)


def readonly(array: NDArray, dtype: type) -> NDArray:  # type: ignore[type-arg]
    """A contiguous read-only view (a copy only where needed). To numba, read-only is a type of its own: this way a
    kernel is compiled once."""
    view: NDArray = np.ascontiguousarray(array, dtype).view()  # type: ignore[type-arg]
    view.flags.writeable = False
    return view


@kernel
def _splat(points, colours, confidence, T_cam_map, view, limit, depth, image, weights):
    fx, fy, cx, cy = view
    height, width = depth.shape
    # Scalars, because the compiler cannot know that writing the images leaves the matrix alone.
    xx, xy, xz, xt = T_cam_map[0, 0], T_cam_map[0, 1], T_cam_map[0, 2], T_cam_map[0, 3]
    yx, yy, yz, yt = T_cam_map[1, 0], T_cam_map[1, 1], T_cam_map[1, 2], T_cam_map[1, 3]
    zx, zy, zz, zt = T_cam_map[2, 0], T_cam_map[2, 1], T_cam_map[2, 2], T_cam_map[2, 3]
    filled = dropped = 0
    for i in range(len(points)):
        px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        z = zx * px + zy * py + zz * pz + zt
        share = confidence[i] if len(confidence) else np.float32(1.0)
        if not (z <= limit and np.isfinite(share)):  # catches NaN
            dropped += 1
            continue
        weight = math.floor(min(share, np.float32(1.0)) * UNIT_WEIGHT + 0.5)
        if z <= 0 or weight < 1:
            continue
        inverse_z = 1.0 / z
        u = fx * (xx * px + xy * py + xz * pz + xt) * inverse_z + cx + 0.5
        v = fy * (yx * px + yy * py + yz * pz + yt) * inverse_z + cy + 0.5
        if not (0 <= u < width and 0 <= v < height):
            continue
        row, column = np.uint32(np.int32(v)), np.uint32(np.int32(u))
        known = depth[row, column]
        if known > 0 and known <= z:
            continue
        filled += known == 0
        depth[row, column] = z
        weights[row, column] = weight
        for c in range(3):
            image[row, column, c] = colours[i, c]
    return filled, dropped
