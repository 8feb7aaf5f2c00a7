# SPDX-License-Identifier: Apache-2.0
"""Small dense kernels shared by the solvers. Cameras are world-to-camera transforms `T_cam_map`; image points are centred
pixels, `focal * (x/z, y/z)`, so that errors are in pixels whatever the lens."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats

#: Depth (map units) below which a point does not project.
NEAR = 1e-6


@njit(cache=True, nogil=True)
def project(T: Array, X: Array, focal: float, p: Array, error: Array, uv: Array) -> bool:
    """Camera coordinates p [3] of X [3] and its error [2] against the centred pixel uv; False behind the camera."""
    for i in range(3):
        p[i] = T[i, 0] * X[0] + T[i, 1] * X[1] + T[i, 2] * X[2] + T[i, 3]
    if p[2] < NEAR:
        return False
    error[0] = focal * p[0] / p[2] - uv[0]
    error[1] = focal * p[1] / p[2] - uv[1]
    return True


@njit(cache=True, nogil=True)
def camera_jacobian(p: Array, focal: float, J: Array) -> None:
    """J [2,6] of the centred pixel by a small motion (translation, then rotation) of the camera point p on the left."""
    z = 1.0 / p[2]
    x, y = p[0] * z, p[1] * z
    J[0, 0], J[0, 1], J[0, 2] = focal * z, 0.0, -focal * x * z
    J[1, 0], J[1, 1], J[1, 2] = 0.0, focal * z, -focal * y * z
    J[0, 3], J[0, 4], J[0, 5] = -focal * x * y, focal * (1.0 + x * x), -focal * y
    J[1, 3], J[1, 4], J[1, 5] = -focal * (1.0 + y * y), focal * x * y, focal * x


@njit(cache=True, nogil=True)
def huber_weight(error: Array, huber: float) -> float:
    """Weight of the iteratively reweighted least squares for an error [2]."""
    norm = np.sqrt(error[0] * error[0] + error[1] * error[1])
    return 1.0 if norm <= huber else huber / norm


@njit(cache=True, nogil=True)
def huber_cost(error: Array, huber: float) -> float:
    """Half the squared error inside the threshold, linear outside."""
    norm = np.sqrt(error[0] * error[0] + error[1] * error[1])
    return 0.5 * norm * norm if norm <= huber else huber * (norm - 0.5 * huber)


@njit(cache=True, nogil=True)
def move(T: Array, step: Array, out: Array) -> None:
    """out = exp(step) T for a step [6] (translation, rotation vector); the translation is not turned by the rotation."""
    w = step[3:6]
    theta2 = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    theta = np.sqrt(theta2)
    a = 1.0 - theta2 / 6.0 if theta < 1e-6 else np.sin(theta) / theta
    b = 0.5 - theta2 / 24.0 if theta < 1e-6 else (1.0 - np.cos(theta)) / theta2
    for j in range(4):
        x, y, z = T[0, j], T[1, j], T[2, j]
        cx, cy, cz = w[1] * z - w[2] * y, w[2] * x - w[0] * z, w[0] * y - w[1] * x
        out[0, j] = x + a * cx + b * (w[1] * cz - w[2] * cy)
        out[1, j] = y + a * cy + b * (w[2] * cx - w[0] * cz)
        out[2, j] = z + a * cz + b * (w[0] * cy - w[1] * cx)
    for i in range(3):
        out[i, 3] += step[i]


@njit(cache=True, nogil=True)
def solve_positive(A: Array, b: Array) -> bool:
    """Solve A x = b in place by Cholesky (A [n,n] symmetric, overwritten; b becomes x); False if A is not positive."""
    n = len(b)
    for j in range(n):
        for k in range(j):
            for i in range(j, n):
                A[i, j] -= A[i, k] * A[j, k]
        if A[j, j] <= 1e-300:
            return False
        d = 1.0 / np.sqrt(A[j, j])
        for i in range(j, n):
            A[i, j] *= d
    for i in range(n):
        for k in range(i):
            b[i] -= A[i, k] * b[k]
        b[i] /= A[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= A[k, i] * b[k]
        b[i] /= A[i, i]
    return True


def bearings(uv: Array, focal: float) -> Array:
    """Unit viewing directions [N,3] of centred pixels [N,2]."""
    rays = np.column_stack([uv / focal, np.ones(len(uv))])
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def reprojection_errors(T_cam_map: Array, points: Array, uv: Array, focal: float) -> Array:
    """Distances [N] in pixels of points [N,3] from centred pixels [N,2]; inf behind the camera, NaN stays NaN."""
    p = points @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(focal * p[:, :2] / p[:, 2:] - uv, axis=1)
    return np.where(p[:, 2] < NEAR, np.inf, error)


def found(points: Array | Floats) -> NDArray[np.bool_]:
    """Which rows of points [N,3] hold a point (NaN: none)."""
    return np.asarray(np.isfinite(points[:, 0]))
