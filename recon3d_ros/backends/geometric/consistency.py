# SPDX-License-Identifier: Apache-2.0
"""What of a depth image its neighbours confirm. A pixel stays when its point, seen from other keyframes, has the depth they
measured there; everything else becomes NaN, and no hole is filled."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.types import Floats, Pose

#: Two keyframes agree within this share of the depth, or this share of what lies between two planes of the sweep; so many
#: must, or one where no other has depth.
TOLERANCE, _PLANE_SHARE, NEEDED = 0.03, 0.5, 2
#: A matching window carries near depth over an edge by half its size. So depth goes where another one within that distance
#: (5x5 pixels) is farther by this factor and by so many planes of the sweep: less is the slope of distant ground.
_EDGE, _EDGE_PLANES, _REACH = 1.1, 3.0, np.ones((5, 5), np.uint8)
#: Pixels with depth a 3x3 neighbourhood must hold, the middle one included.
_COMPANY = 4


def confirmed(
    depth: Floats, plane_step: float, camera: Camera, others: Sequence[tuple[Floats, Camera, Pose]]
) -> Floats:
    """Depth float32 [h,w] that other keyframes confirm, without the seams of edges, smoothed by a 3x3 median; NaN
    elsewhere, and all NaN without others.

    plane_step: inverse depth between two planes of the sweep. others: depth float32 [h,w] (NaN = none), ideal pinhole
    camera and T_other_this of each.
    """
    depth = without_seams(depth, plane_step)
    count, measured = agreements(depth, plane_step, camera, others)
    kept = np.where((count >= NEEDED) | ((count == 1) & (measured == 1)), depth, np.float32(np.nan))
    out = np.full_like(depth, np.nan)
    _median(out, kept)
    return out


def agreements(
    depth: Floats, plane_step: float, camera: Camera, others: Sequence[tuple[Floats, Camera, Pose]]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """How many of the others measured the same depth, and how many have any there, uint8 [h,w] each."""
    count, measured = np.zeros(depth.shape, np.uint8), np.zeros(depth.shape, np.uint8)
    K_inverse = np.linalg.inv(camera.K)
    for other, other_camera, T in others:
        turn = (other_camera.K @ T[:3, :3] @ K_inverse).astype(np.float32)
        shift = (other_camera.K @ T[:3, 3]).astype(np.float32)
        _count_agreements(count, measured, depth, other, turn, shift, np.float32(_PLANE_SHARE * plane_step))
    return count, measured


def without_seams(depth: Floats, plane_step: float) -> Floats:
    """Depth without the pixels beside something farther, which the matching window may have taken from the near side."""
    settled = cv2.medianBlur(np.nan_to_num(depth), 3)  # no single wild pixel may erase those around it
    farthest = cv2.dilate(settled, _REACH)
    with np.errstate(divide="ignore"):
        step = 1 / depth - 1 / farthest
    seam = (farthest > _EDGE * depth) & (step > _EDGE_PLANES * plane_step)
    return np.where(seam, np.float32(np.nan), depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_agreements(count, measured, depth, other, turn, shift, near):  # type: ignore[no-untyped-def]
    height, width = other.shape
    limit = np.float32(TOLERANCE)
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            z = depth[y, x]
            X = (turn[0, 0] * x + turn[0, 1] * y + turn[0, 2]) * z + shift[0]
            Y = (turn[1, 0] * x + turn[1, 1] * y + turn[1, 2]) * z + shift[1]
            Z = (turn[2, 0] * x + turn[2, 1] * y + turn[2, 2]) * z + shift[2]
            u, v = X / Z + 0.5, Y / Z + 0.5
            if not (Z > 0 and u >= 0 and v >= 0 and u < width and v < height):  # also NaN
                continue
            there = other[int(v), int(u)]
            measured[y, x] += there > 0
            if abs(there - Z) < max(limit, near * Z) * Z:
                count[y, x] += 1


@njit(cache=True, nogil=True)
def _median(out, depth):  # type: ignore[no-untyped-def]
    """Of an even number the lower middle one: the mean of two surfaces would lie on neither."""
    height, width = depth.shape
    values = np.empty(9, np.float32)
    for y in range(height):
        for x in range(width):
            if not depth[y, x] > 0:
                continue
            n = 0
            for j in range(max(y - 1, 0), min(y + 2, height)):
                for i in range(max(x - 1, 0), min(x + 2, width)):
                    if depth[j, i] > 0:
                        n = _insert(values, n, depth[j, i])
            if n >= _COMPANY:
                out[y, x] = values[(n - 1) // 2]


@njit(cache=True, nogil=True)
def _insert(values, n, value):  # type: ignore[no-untyped-def]
    """Put `value` into the n sorted ones; returns their new number."""
    k = n
    while k > 0 and values[k - 1] > value:
        values[k] = values[k - 1]
        k -= 1
    values[k] = value
    return n + 1
