# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment: Levenberg-Marquardt on camera poses and points, the points eliminated by the Schur complement
(Triggs et al., "Bundle adjustment: a modern synthesis", 2000), Huber loss by reweighting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.backends.geometric.linear import (
    camera_jacobian,
    huber_cost,
    huber_weight,
    move,
    project,
    solve_positive,
)
from recon3d_ros.core.geometry import Array, orthonormalised

Ints = NDArray[np.int64]

#: Cost of an observation whose point is behind the camera, in units of the Huber threshold squared.
_BEHIND = 100.0
_REJECTIONS = 5


@dataclass(frozen=True, eq=False)
class Observations:
    """Who saw what: camera int64 [N] and centred pixel uv float64 [N,2], sorted by point; the observations of point i are
    the rows start[i]:start[i+1] (start int64 [M+1])."""

    camera: Ints
    uv: Array
    start: Ints

    def point(self) -> Ints:
        """Index of the point of each observation, int64 [N]."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def adjust(
    T_cam_map: Array, points: Array, seen: Observations, focal: float, free: int, huber: float, steps: int
) -> tuple[Array, Array, Array]:
    """Adjust the first `free` cameras of T_cam_map [K,4,4] and all points [M,3]; the other cameras hold the gauge.

    huber: pixels. Returns new poses, new points, and the error of each observation in pixels [N] (inf behind a camera).
    """
    T, X = T_cam_map.copy(), points.copy()
    _levenberg_marquardt(T, X, seen.camera, seen.uv, seen.start, focal, free, huber, steps)
    for k in range(free):
        T[k] = orthonormalised(T[k])
    return T, X, _errors(T, X, seen.camera, seen.uv, seen.start, focal)


@njit(cache=True, nogil=True)
def _levenberg_marquardt(T, X, camera, uv, start, focal, free, huber, steps):
    """Improves T [K,4,4] and X [M,3] in place, `steps` accepted steps at most."""
    U, a = np.zeros((free, 6, 6)), np.zeros((free, 6))
    V, b = np.zeros((len(X), 3, 3)), np.zeros((len(X), 3))
    W = np.zeros((len(camera), 6, 3))
    T_new, X_new = T.copy(), X.copy()
    damping = 1e-4
    cost = _cost(T, X, camera, uv, start, focal, huber)
    for _ in range(steps):
        _linearise(T, X, camera, uv, start, focal, free, huber, U, a, V, b, W)
        improved = False
        for _ in range(_REJECTIONS):
            _step(U, a, V, b, W, camera, start, free, damping, T, X, T_new, X_new)
            new_cost = _cost(T_new, X_new, camera, uv, start, focal, huber)
            if new_cost < cost:
                improved = True
                break
            damping *= 10.0
        if not improved:
            return
        gain = cost - new_cost
        T[:], X[:], cost = T_new, X_new, new_cost
        damping = max(damping * 0.1, 1e-9)
        if gain < 1e-5 * cost:
            return


@njit(cache=True, nogil=True)
def _linearise(T, X, camera, uv, start, focal, free, huber, U, a, V, b, W):
    """Normal equations: camera blocks U, a; point blocks V, b; mixed blocks W, one for each observation."""
    U[:], a[:], V[:], b[:], W[:] = 0.0, 0.0, 0.0, 0.0, 0.0
    p, e = np.zeros(3), np.zeros(2)
    J, P = np.zeros((2, 6)), np.zeros((2, 3))
    for m in range(len(X)):
        for n in range(start[m], start[m + 1]):
            k = camera[n]
            if not project(T[k], X[m], focal, p, e, uv[n]):
                continue
            w = huber_weight(e, huber)
            camera_jacobian(p, focal, J)
            for r in range(2):
                for i in range(3):
                    P[r, i] = J[r, 0] * T[k, 0, i] + J[r, 1] * T[k, 1, i] + J[r, 2] * T[k, 2, i]
            for i in range(3):
                b[m, i] -= w * (P[0, i] * e[0] + P[1, i] * e[1])
                for j in range(3):
                    V[m, i, j] += w * (P[0, i] * P[0, j] + P[1, i] * P[1, j])
            if k >= free:
                continue
            for i in range(6):
                a[k, i] -= w * (J[0, i] * e[0] + J[1, i] * e[1])
                for j in range(6):
                    U[k, i, j] += w * (J[0, i] * J[0, j] + J[1, i] * J[1, j])
                for j in range(3):
                    W[n, i, j] = w * (J[0, i] * P[0, j] + J[1, i] * P[1, j])


@njit(cache=True, nogil=True)
def _step(U, a, V, b, W, camera, start, free, damping, T, X, T_new, X_new):
    """One damped step: solve the reduced camera system, then each point."""
    S, rhs = np.zeros((6 * free, 6 * free)), np.zeros(6 * free)
    inverse = np.zeros_like(V)
    for k in range(free):
        for i in range(6):
            rhs[6 * k + i] = a[k, i]
            for j in range(6):
                S[6 * k + i, 6 * k + j] = U[k, i, j]
            S[6 * k + i, 6 * k + i] += damping * U[k, i, i] + 1e-9
    for m in range(len(X)):
        _invert_damped(V[m], damping, inverse[m])
        _eliminate(m, inverse[m], b[m], W, camera, start, free, S, rhs)
    if not solve_positive(S, rhs):
        rhs[:] = 0.0
    for k in range(free):
        move(T[k], rhs[6 * k : 6 * k + 6], T_new[k])
    for m in range(len(X)):
        rest = b[m].copy()
        for n in range(start[m], start[m + 1]):
            k = camera[n]
            if k < free:
                for j in range(3):
                    for i in range(6):
                        rest[j] -= W[n, i, j] * rhs[6 * k + i]
        for i in range(3):
            X_new[m, i] = (
                X[m, i] + inverse[m, i, 0] * rest[0] + inverse[m, i, 1] * rest[1] + inverse[m, i, 2] * rest[2]
            )


@njit(cache=True, nogil=True)
def _eliminate(m, inverse, b, W, camera, start, free, S, rhs):
    """Subtract what point m explains from the reduced camera system (lower triangle is enough)."""
    Y = np.zeros((6, 3))
    for n in range(start[m], start[m + 1]):
        k = camera[n]
        if k >= free:
            continue
        for i in range(6):
            for j in range(3):
                Y[i, j] = W[n, i, 0] * inverse[0, j] + W[n, i, 1] * inverse[1, j] + W[n, i, 2] * inverse[2, j]
            rhs[6 * k + i] -= Y[i, 0] * b[0] + Y[i, 1] * b[1] + Y[i, 2] * b[2]
        for o in range(start[m], start[m + 1]):
            h = camera[o]
            if h > k:
                continue
            for i in range(6):
                for j in range(6):
                    S[6 * k + i, 6 * h + j] -= (
                        Y[i, 0] * W[o, j, 0] + Y[i, 1] * W[o, j, 1] + Y[i, 2] * W[o, j, 2]
                    )


@njit(cache=True, nogil=True)
def _invert_damped(V, damping, out):
    """Inverse of the symmetric 3x3 matrix V with its diagonal raised; zero where V is empty, so that the point stays."""
    p, q, r = V[0, 0] * (1.0 + damping), V[1, 1] * (1.0 + damping), V[2, 2] * (1.0 + damping)
    x, y, z = V[0, 1], V[0, 2], V[1, 2]
    c00, c01, c02 = q * r - z * z, y * z - x * r, x * z - y * q
    det = p * c00 + x * c01 + y * c02
    if det <= 1e-300:
        out[:] = 0.0
        return
    out[0, 0], out[0, 1], out[0, 2] = c00 / det, c01 / det, c02 / det
    out[1, 0], out[1, 1], out[1, 2] = c01 / det, (p * r - y * y) / det, (x * y - p * z) / det
    out[2, 0], out[2, 1], out[2, 2] = c02 / det, (x * y - p * z) / det, (p * q - x * x) / det


@njit(cache=True, nogil=True)
def _cost(T, X, camera, uv, start, focal, huber):
    total = 0.0
    p, e = np.zeros(3), np.zeros(2)
    for m in range(len(X)):
        for n in range(start[m], start[m + 1]):
            if project(T[camera[n]], X[m], focal, p, e, uv[n]):
                total += huber_cost(e, huber)
            else:
                total += _BEHIND * huber * huber
    return total


@njit(cache=True, nogil=True)
def _errors(T, X, camera, uv, start, focal):
    errors = np.full(len(camera), np.inf)
    p, e = np.zeros(3), np.zeros(2)
    for m in range(len(X)):
        for n in range(start[m], start[m + 1]):
            if project(T[camera[n]], X[m], focal, p, e, uv[n]):
                errors[n] = np.sqrt(e[0] * e[0] + e[1] * e[1])
    return errors
