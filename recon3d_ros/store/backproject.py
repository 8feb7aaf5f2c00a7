# SPDX-License-Identifier: Apache-2.0
"""Depth image to coloured points in the map, written straight into memory given by the caller. The points are counted
first and filled in afterwards, so that their place can be made exactly as large as needed and they are written once."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.types import Floats, Image, Pose

_kernel = njit(cache=True, nogil=True, error_model="numpy")

#: Points with a coordinate beyond this (map units) are errors of the depth, not part of a scene.
COORDINATE_LIMIT = 1e5


class Backprojection:
    """The points of one depth image.

    depth: float32 [h,w] along z; NaN or not positive = none. camera: ideal pinhole of that image. T_map_cam: float64 4x4.
    colours: uint8 [h,w,3]. confidence: float32 [h,w] or None. stride: every n-th row and column is used. Points of less
    than `min_confidence` and points that are not finite or beyond `COORDINATE_LIMIT` are dropped.

    count: points kept. unsure, absurd: points dropped for their confidence, for their coordinates.
    """

    def __init__(
        self,
        depth: Floats,
        camera: Camera,
        T_map_cam: Pose,
        colours: Image,
        confidence: Floats | None = None,
        *,
        stride: int = 1,
        min_confidence: float = 0.0,
    ) -> None:
        shape = (camera.height, camera.width)
        if (
            depth.shape != shape
            or colours.shape != (*shape, 3)
            or (confidence is not None and confidence.shape != shape)
        ):
            raise ValueError(
                f"depth {depth.shape}, colours {colours.shape} and confidence must have the camera's size {shape}"
            )
        self._colours = _readonly(colours, np.uint8)
        self._has_confidence = confidence is not None
        self._geometry = (
            _readonly(depth, np.float32),
            _readonly(np.empty((0, 0)) if confidence is None else confidence, np.float32),
            np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
            np.array(T_map_cam[:3], dtype=np.float64, order="C"),
            stride,
            float(min_confidence),
        )
        self.count, self.unsure, self.absurd = _count(*self._geometry)

    def fill(self, points: Floats, colours: Image, confidence: Floats | None) -> Floats:
        """Write points float32 [count,3] (map frame), colours uint8 [count,3] and confidence float32 [count], None where
        there is none. Returns their bounds float32 [6], smallest then largest x, y, z; zeros when there is no point."""
        if (
            len(points) != self.count
            or len(colours) != self.count
            or (confidence is None) == self._has_confidence
        ):
            raise ValueError(f"the memory given does not fit {self.count} points")
        if confidence is None:
            confidence = np.empty(0, np.float32)
        return _fill(*self._geometry, self._colours, points, colours, confidence)


def warm_up() -> None:
    """Compile the kernels (seconds) or load them from the cache, so that the first keyframe does not wait for it."""
    black = np.zeros((1, 1, 3), np.uint8)
    one = Backprojection(np.ones((1, 1), np.float32), Camera(1, 1, 1.0, 1.0, 0.0, 0.0), np.eye(4), black)
    one.fill(np.empty((1, 3), np.float32), np.empty((1, 3), np.uint8), None)


def _readonly(array: NDArray, dtype: type) -> NDArray:  # type: ignore[type-arg]
    """A contiguous read-only view: one type for the kernels whatever the caller holds, so that they compile once."""
    view: NDArray = np.ascontiguousarray(array, dtype=dtype).view()  # type: ignore[type-arg]
    view.flags.writeable = False
    return view


@_kernel
def _locate(u, v, z, K, T):  # type: ignore[no-untyped-def]
    x = (u - K[2]) / K[0] * z
    y = (v - K[3]) / K[1] * z
    return (
        T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3],
        T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3],
        T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3],
    )


@_kernel
def _sane(x, y, z):  # type: ignore[no-untyped-def]
    return abs(x) < COORDINATE_LIMIT and abs(y) < COORDINATE_LIMIT and abs(z) < COORDINATE_LIMIT


@_kernel
def _count(depth, confidence, K, T, stride, min_confidence):  # type: ignore[no-untyped-def]
    kept, unsure, absurd = 0, 0, 0
    for v in range(0, depth.shape[0], stride):
        for u in range(0, depth.shape[1], stride):
            z = depth[v, u]
            if not z > 0:
                continue
            if confidence.size and not confidence[v, u] >= min_confidence:
                unsure += 1
                continue
            x_map, y_map, z_map = _locate(u, v, z, K, T)
            if _sane(x_map, y_map, z_map):
                kept += 1
            else:
                absurd += 1
    return kept, unsure, absurd


@_kernel
def _fill(depth, confidence, K, T, stride, min_confidence, colours, points_out, colours_out, confidence_out):  # type: ignore[no-untyped-def]
    bounds = np.zeros(6, np.float32)
    n = 0
    for v in range(0, depth.shape[0], stride):
        for u in range(0, depth.shape[1], stride):
            z = depth[v, u]
            if not z > 0 or (confidence.size and not confidence[v, u] >= min_confidence):
                continue
            point = _locate(u, v, z, K, T)
            if not _sane(point[0], point[1], point[2]):
                continue
            for i in range(3):
                value = np.float32(point[i])
                points_out[n, i] = value
                colours_out[n, i] = colours[v, u, i]
                bounds[i] = value if n == 0 else min(bounds[i], value)
                bounds[i + 3] = value if n == 0 else max(bounds[i + 3], value)
            if confidence.size:
                confidence_out[n] = confidence[v, u]
            n += 1
    return bounds
