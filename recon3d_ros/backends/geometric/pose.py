# SPDX-License-Identifier: Apache-2.0
"""The pose of one camera: Gauss-Newton from a prediction, PnP with RANSAC where the prediction fails, and the rotation
between two views that share no baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.backends.geometric.linear import (
    bearings,
    camera_jacobian,
    huber_weight,
    move,
    project,
    reprojection_errors,
    solve_positive,
)
from recon3d_ros.core.geometry import Array, orthonormalised, pose

_ITERATIONS = 10


@dataclass(frozen=True, eq=False)
class CameraPose:
    """T_cam_map: 4x4. inliers: which of the given points it fits, bool [N]."""

    T_cam_map: Array
    inliers: NDArray[np.bool_]

    def accepted(self, least: int, share: float) -> bool:
        """True with enough inliers, in number and as a share of the points."""
        count = int(self.inliers.sum())
        return count >= least and count >= share * len(self.inliers)


def locate(T_guess: Array, points: Array, uv: Array, focal: float, scale: float) -> CameraPose:
    """Pose from points [N,3] and centred pixels [N,2]. With less than 60 % inliers from the guess, RANSAC is asked too.

    scale: image size relative to 640 pixels, by which the pixel thresholds grow.
    """
    found = _refined(T_guess, points, uv, focal, scale)
    if len(points) < 4 or found.accepted(4, 0.6):
        return found
    other = locate_anywhere(points, uv, focal, scale)
    return other if other.inliers.sum() > found.inliers.sum() else found


def locate_anywhere(points: Array, uv: Array, focal: float, scale: float) -> CameraPose:
    """Pose from at least 4 points [N,3] and centred pixels [N,2] without a prediction: P3P with RANSAC, refined."""
    options = {"max_reproj_error": 3.0 * scale, "min_iterations": 100, "max_iterations": 5000, "seed": 0}
    found, info = poselib.estimate_absolute_pose(uv, points, pinhole(focal), options)
    inliers = np.asarray(info["inliers"], dtype=bool)
    T = pose(found.R, found.t)
    return _refined(T, points, uv, focal, scale, inliers) if inliers.sum() >= 4 else CameraPose(T, inliers)


def best_rotation(uv_a: Array, uv_b: Array, focal: float) -> tuple[Array, float]:
    """Rotation [3,3] that turns the rays of uv_a [N,2] into those of uv_b (Kabsch, reweighted towards the median), and the
    median angle in radians that it leaves."""
    a, b = bearings(uv_a, focal), bearings(uv_b, focal)
    weights = np.ones(len(a))
    R = np.eye(3)
    for _ in range(_ITERATIONS):
        U, _, Vt = np.linalg.svd((b * weights[:, None]).T @ a)
        R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
        left = np.linalg.norm(a @ R.T - b, axis=1)
        weights = 1.0 / np.maximum(left, max(0.1 * float(np.median(left)), 1e-6))
    return R, float(np.median(left))


def _refined(
    T: Array, points: Array, uv: Array, focal: float, scale: float, use: NDArray[np.bool_] | None = None
) -> CameraPose:
    chosen, pixels = (points, uv) if use is None else (points[use], uv[use])
    T = orthonormalised(
        _gauss_newton(T, np.ascontiguousarray(chosen), np.ascontiguousarray(pixels), focal, np.sqrt(scale))
    )
    return CameraPose(T, reprojection_errors(T, points, uv, focal) < 2.5 * scale)


def pinhole(focal: float) -> dict[str, object]:
    """The camera of centred pixels, as PoseLib wants it."""
    return {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal, 0.0, 0.0]}


@njit(cache=True, nogil=True)
def _gauss_newton(T, points, uv, focal, huber):
    T = T.copy()
    moved = T.copy()
    p, e, J = np.zeros(3), np.zeros(2), np.zeros((2, 6))
    for _ in range(_ITERATIONS):
        H, g = np.zeros((6, 6)), np.zeros(6)
        for n in range(len(points)):
            if not project(T, points[n], focal, p, e, uv[n]):
                continue
            w = huber_weight(e, huber)
            camera_jacobian(p, focal, J)
            for i in range(6):
                g[i] -= w * (J[0, i] * e[0] + J[1, i] * e[1])
                for j in range(6):
                    H[i, j] += w * (J[0, i] * J[0, j] + J[1, i] * J[1, j])
        for i in range(6):
            H[i, i] += 1e-6 * H[i, i] + 1e-9
        if not solve_positive(H, g):
            break
        move(T, g, moved)
        T[:] = moved
        if np.abs(g).max() < 1e-8:
            break
    return T
