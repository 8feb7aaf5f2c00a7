# SPDX-License-Identifier: Apache-2.0
"""The first two views of a map: relative pose (five-point algorithm, Nistér 2004, by PoseLib), points, and the tests that
tell a baseline from a rotation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray

from recon3d_ros.backends.geometric.bundle import Ints, Observations, adjust
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.pose import best_rotation, pinhole
from recon3d_ros.backends.geometric.triangulation import triangulate
from recon3d_ros.core.geometry import Array, inverse, pose

#: Smallest median displacement worth a try, as a share of the image size.
_MIN_FLOW = 0.01
_MIN_POINTS, _MIN_IN_FRONT = 30, 0.7
#: Share of the pairs that must agree with the motion; by chance a fifth may.
_MIN_AGREEING = 0.4
_MIN_PARALLAX, _MIN_BEYOND_ROTATION = np.radians(1.2), np.radians(0.2)


@dataclass(frozen=True, eq=False)
class TwoViews:
    """T_now_ref: reference camera to the other; the median depth of the points in the reference is 1. points [N,3] in
    the reference camera, NaN where a pair gave none."""

    T_now_ref: Array
    points: Array


def two_views(ref: Array, now: Array, lens: Lens) -> TwoViews | None:
    """Solve two views from pairs of centred pixels [N,2]; None if they do not show a baseline beyond doubt."""
    if len(ref) < _MIN_POINTS or np.median(np.linalg.norm(now - ref, axis=1)) < _MIN_FLOW * lens.size:
        return None
    if best_rotation(ref, now, lens.focal)[1] < _MIN_BEYOND_ROTATION:
        return None
    options = {"max_epipolar_error": lens.scale, "min_iterations": 200, "max_iterations": 5000, "seed": 0}
    camera = pinhole(lens.focal)
    relative, info = poselib.estimate_relative_pose(ref, now, camera, camera, options)
    inliers = np.flatnonzero(info["inliers"])
    if len(inliers) < max(_MIN_POINTS, _MIN_AGREEING * len(ref)):
        return None
    T = np.array([pose(relative.R, relative.t), np.eye(4)])
    seen = _pairs(ref[inliers], now[inliers])
    points = triangulate(T, seen, lens.focal, 0.0, 2.5 * lens.scale)
    front = found(points)
    if front.sum() < max(_MIN_POINTS, _MIN_IN_FRONT * len(inliers)):
        return None
    if np.median(_parallax(T[0], points[front])) < _MIN_PARALLAX:
        return None
    inliers, points = inliers[front], points[front]
    T, points, errors = adjust(
        T, points, _pairs(ref[inliers], now[inliers]), lens.focal, 1, np.sqrt(lens.scale), 10
    )
    good = np.all(errors.reshape(-1, 2) < 2.5 * lens.scale, axis=1)
    return _normalised(T[0], points, inliers, good, len(ref)) if good.sum() >= _MIN_POINTS else None


def _pairs(ref: Array, now: Array) -> Observations:
    """Each point seen by camera 1 (reference) and camera 0 (now)."""
    n = len(ref)
    camera = np.tile(np.array([1, 0]), n)
    return Observations(camera, np.stack([ref, now], axis=1).reshape(-1, 2), np.arange(0, 2 * n + 1, 2))


def _parallax(T_now_ref: Array, points: Array) -> Array:
    """Angles [N] between the rays of points [N,3] to the two cameras, radians."""
    other = points - inverse(T_now_ref)[:3, 3]
    norms = np.linalg.norm(points, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.arccos(np.clip((points * other).sum(axis=1) / norms, -1.0, 1.0)))


def _normalised(T: Array, points: Array, rows: Ints, good: NDArray[np.bool_], count: int) -> TwoViews:
    depth = float(np.median(points[good, 2]))
    every = np.full((count, 3), np.nan)
    every[rows[good]] = points[good] / depth
    return TwoViews(pose(T[:3, :3], T[:3, 3] / depth), every)
