# SPDX-License-Identifier: Apache-2.0
"""Points from all their observations: linear least squares on the distance to the rays, then Gauss-Newton on the
reprojection error. A point is kept when its rays differ enough and it fits every observation."""

from __future__ import annotations

import numpy as np
from numba import njit

from recon3d_ros.backends.geometric.bundle import Observations
from recon3d_ros.backends.geometric.linear import camera_jacobian, project, solve_positive
from recon3d_ros.core.geometry import Array

_ITERATIONS = 5


def triangulate(
    T_cam_map: Array, seen: Observations, focal: float, min_angle: float, max_error: float
) -> Array:
    """Points [M,3] in the map; NaN where no two rays differ by `min_angle` (radians), a camera has the point behind it,
    or an observation is off by more than `max_error` pixels."""
    return np.asarray(
        _triangulate(T_cam_map, seen.camera, seen.uv, seen.start, focal, np.cos(min_angle), max_error)
    )


@njit(cache=True, nogil=True)
def _triangulate(T, camera, uv, start, focal, max_cosine, max_error):
    points = np.full((len(start) - 1, 3), np.nan)
    for m in range(len(points)):
        first, end = start[m], start[m + 1]
        if end - first < 2:
            continue
        X = np.zeros(3)
        if not _nearest_to_rays(T, camera[first:end], uv[first:end], focal, max_cosine, X):
            continue
        for _ in range(_ITERATIONS):
            if not _refine(T, camera[first:end], uv[first:end], focal, X):
                break
        if _fits(T, camera[first:end], uv[first:end], focal, max_error, X):
            points[m] = X
    return points


@njit(cache=True, nogil=True)
def _nearest_to_rays(T, camera, uv, focal, max_cosine, X):
    """Least-squares intersection of the rays; False if all of them are nearly parallel to the first."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    first, ray, centre = np.zeros(3), np.zeros(3), np.zeros(3)
    cosine = 1.0
    for n in range(len(camera)):
        _ray(T[camera[n]], uv[n], focal, ray, centre)
        if n == 0:
            first[:] = ray
        cosine = min(cosine, first[0] * ray[0] + first[1] * ray[1] + first[2] * ray[2])
        along = ray[0] * centre[0] + ray[1] * centre[1] + ray[2] * centre[2]
        for i in range(3):
            A[i, i] += 1.0
            b[i] += centre[i] - ray[i] * along
            for j in range(3):
                A[i, j] -= ray[i] * ray[j]
    if cosine > max_cosine or not solve_positive(A, b):
        return False
    X[:] = b
    return True


@njit(cache=True, nogil=True)
def _ray(T, uv, focal, ray, centre):
    """Unit viewing direction of a centred pixel and the camera centre, both in the map."""
    x, y = uv[0] / focal, uv[1] / focal
    norm = np.sqrt(x * x + y * y + 1.0)
    for i in range(3):
        ray[i] = (T[0, i] * x + T[1, i] * y + T[2, i]) / norm
        centre[i] = -(T[0, i] * T[0, 3] + T[1, i] * T[1, 3] + T[2, i] * T[2, 3])


@njit(cache=True, nogil=True)
def _refine(T, camera, uv, focal, X):
    """One Gauss-Newton step on X in place; False if it is behind a camera or the system is singular."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    p, e, J, P = np.zeros(3), np.zeros(2), np.zeros((2, 6)), np.zeros((2, 3))
    for n in range(len(camera)):
        k = camera[n]
        if not project(T[k], X, focal, p, e, uv[n]):
            return False
        camera_jacobian(p, focal, J)
        for r in range(2):
            for i in range(3):
                P[r, i] = J[r, 0] * T[k, 0, i] + J[r, 1] * T[k, 1, i] + J[r, 2] * T[k, 2, i]
        for i in range(3):
            b[i] -= P[0, i] * e[0] + P[1, i] * e[1]
            for j in range(3):
                A[i, j] += P[0, i] * P[0, j] + P[1, i] * P[1, j]
    if not solve_positive(A, b):
        return False
    for i in range(3):
        X[i] += b[i]
    return True


@njit(cache=True, nogil=True)
def _fits(T, camera, uv, focal, max_error, X):
    p, e = np.zeros(3), np.zeros(2)
    for n in range(len(camera)):
        if not project(T[camera[n]], X, focal, p, e, uv[n]):
            return False
        if not e[0] * e[0] + e[1] * e[1] <= max_error * max_error:
            return False
    return True
