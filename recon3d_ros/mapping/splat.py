# SPDX-License-Identifier: Apache-2.0
"""Points of a keyframe back into the depth image they came from: one path for every way in which a keyframe arrives."""

from __future__ import annotations

import math
import mmap
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

_BATCH = 1024  # points projected at once: their pixels stay in the cache
#: All pages at once where the system can.
_MAPPING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)


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


def blank(camera: Camera) -> DepthImage:
    """An image without depth. Its memory is fresh and all there: images are kept for long, and would otherwise take the
    memory that regions and messages leave to the next ones, page by page while a keyframe waits."""
    shape, pixels = (camera.height, camera.width), camera.height * camera.width
    memory = mmap.mmap(-1, 8 * pixels, _MAPPING)
    depth = np.frombuffer(memory, np.float32, pixels).reshape(shape)
    colours = np.frombuffer(memory, np.uint8, 3 * pixels, 4 * pixels).reshape(*shape, 3)
    return DepthImage(
        camera, depth, colours, np.frombuffer(memory, np.uint8, pixels, 7 * pixels).reshape(shape)
    )


def splat(keyframe: Keyframe, limit: float, image: DepthImage | None = None) -> tuple[DepthImage, int, int]:
    """Depth image of a keyframe's points; of points that meet in a pixel the nearest stays. image: a blank one that becomes
    it, of the keyframe's camera.

    Returns the image, the number of its pixels with depth, and the number of points dropped because a coordinate or the
    confidence is not finite or the depth passes `limit` (map units)."""
    image = image or blank(keyframe.camera)
    filled, dropped = _splat(
        readonly(keyframe.points, np.float32),
        readonly(keyframe.colours, np.uint8),
        readonly(_NO_CONFIDENCE if keyframe.confidence is None else keyframe.confidence, np.float32),
        inverse(keyframe.T_map_cam),
        intrinsics(keyframe.camera),
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
    size = np.int32(depth.shape[1]), np.int32(depth.shape[0])
    depth, image, weights = depth.reshape(-1), image.reshape(-1, 3), weights.reshape(-1)
    pixels, z = np.empty(_BATCH, np.int32), np.empty(_BATCH, np.float64)
    filled = dropped = 0
    for start in range(0, len(points), _BATCH):
        batch = points[start : start + _BATCH]
        _project(batch, T_cam_map, view, limit, size, pixels, z)
        for k in range(len(batch)):
            i = start + k
            weight = UNIT_WEIGHT
            if len(confidence):
                share = confidence[i]
                if not np.isfinite(share):
                    dropped += 1
                    continue
                weight = math.floor(min(share, np.float32(1.0)) * UNIT_WEIGHT + 0.5)
            if pixels[k] < 0 or weight < 1:
                dropped += not z[k] <= limit  # catches NaN
                continue
            pixel = np.uint32(pixels[k])  # unsigned: spares the test for a negative index
            known = depth[pixel]
            if known > 0 and known <= z[k]:
                continue
            filled += known == 0
            depth[pixel] = z[k]
            weights[pixel] = weight
            image[pixel, 0], image[pixel, 1], image[pixel, 2] = colours[i, 0], colours[i, 1], colours[i, 2]
    return filled, dropped


@kernel
def _project(points, T_cam_map, view, limit, size, pixels, z):
    """Number of the pixel that each point falls into, -1 for none or where its depth z is not within 0 .. limit. Free of
    branches, so that it becomes vector code."""
    fx, fy, cx, cy = view
    # Scalars, because the compiler cannot know that writing the arrays leaves the matrix alone.
    xx, xy, xz, xt = T_cam_map[0, 0], T_cam_map[0, 1], T_cam_map[0, 2], T_cam_map[0, 3]
    yx, yy, yz, yt = T_cam_map[1, 0], T_cam_map[1, 1], T_cam_map[1, 2], T_cam_map[1, 3]
    zx, zy, zz, zt = T_cam_map[2, 0], T_cam_map[2, 1], T_cam_map[2, 2], T_cam_map[2, 3]
    width, height = size
    for i in range(len(points)):
        px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        depth = zx * px + zy * py + zz * pz + zt
        inverse_depth = 1.0 / depth
        u = fx * (xx * px + xy * py + xz * pz + xt) * inverse_depth + cx + 0.5
        v = fy * (yx * px + yy * py + yz * pz + yt) * inverse_depth + cy + 0.5
        inside = (depth > 0) & (depth <= limit) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixels[i] = np.int32(v) * width + np.int32(u) if inside else np.int32(-1)
        z[i] = depth
