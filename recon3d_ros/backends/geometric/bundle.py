# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment: Levenberg-Marquardt on camera poses and points, the points eliminated by the Schur complement
(Triggs et al., "Bundle adjustment: a modern synthesis", 2000), Huber loss by reweighting. The focal length may be one more
unknown: the last row of the reduced camera system, whose Cholesky factor then holds how well it is determined."""

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


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What `adjust_focal` found. T_cam_map [K,4,4], points [M,3], errors [N] (inf behind a camera), focal: pixels.

    sigma: standard deviation of log(focal) that is left once poses and points are free, inf where nothing determines it.
    cost: of the observations, half squared pixels.
    """

    T_cam_map: Array
    points: Array
    errors: Array
    focal: float
    sigma: float
    cost: float


def adjust(
    T_cam_map: Array, points: Array, seen: Observations, focal: float, free: int, huber: float, steps: int
) -> tuple[Array, Array, Array]:
    """Adjust the first `free` cameras of T_cam_map [K,4,4] and all points [M,3]; the other cameras hold the gauge.

    huber: pixels. Returns new poses, new points, and the error of each observation in pixels [N] (inf behind a camera).
    """
    T, X = T_cam_map.copy(), points.copy()
    _levenberg_marquardt(T, X, seen.camera, seen.uv, seen.start, focal, free, huber, steps, 0)
    for k in range(free):
        T[k] = orthonormalised(T[k])
    return T, X, _errors(T, X, seen.camera, seen.uv, seen.start, focal)


def adjust_focal(
    T_cam_map: Array, points: Array, seen: Observations, focal: float, free: int, huber: float, steps: int
) -> Calibrated:
    """As `adjust`, with the focal length of all cameras as one more unknown. Centred pixels do not change with it."""
    T, X = T_cam_map.copy(), points.copy()
    focal, cost = _levenberg_marquardt(T, X, seen.camera, seen.uv, seen.start, focal, free, huber, steps, 1)
    for k in range(free):
        T[k] = orthonormalised(T[k])
    information = _focal_information(T, X, seen.camera, seen.uv, seen.start, focal, free, huber)
    left = 2 * len(seen.camera) - 6 * free - 3 * len(X) - 1
    sigma = np.sqrt(2 * cost / left / information) if left > 0 and information > 0 else np.inf
    errors = _errors(T, X, seen.camera, seen.uv, seen.start, focal)
    return Calibrated(T, X, errors, float(focal), float(sigma), float(cost))


def total_cost(T_cam_map: Array, points: Array, seen: Observations, focal: float, huber: float) -> float:
    """The cost that is minimised: half the squared error in pixels, linear beyond `huber`."""
    return float(_cost(T_cam_map, points, seen.camera, seen.uv, seen.start, focal, huber))


@njit(cache=True, nogil=True)
def _levenberg_marquardt(T, X, camera, uv, start, focal, free, huber, steps, extra):
    """Improves T [K,4,4] and X [M,3] in place, `steps` accepted steps at most; with extra = 1 the focal length too. Returns
    that and the cost."""
    U, a = np.zeros((free, 6, 6)), np.zeros((free, 6))
    V, b = np.zeros((len(X), 3, 3)), np.zeros((len(X), 3))
    W = np.zeros((len(camera), 6, 3))
    F = np.zeros((free + 1, 6)), np.zeros((len(X), 3))
    T_new, X_new = T.copy(), X.copy()
    damping = 1e-4
    cost = _cost(T, X, camera, uv, start, focal, huber)
    for _ in range(steps):
        _linearise(T, X, camera, uv, start, focal, free, huber, U, a, V, b, W)
        if extra:
            _linearise_focal(T, X, camera, uv, start, focal, free, huber, F)
        improved = False
        for _ in range(_REJECTIONS):
            stretch = _step(U, a, V, b, W, F, extra, camera, start, free, damping, T, X, T_new, X_new)
            new_focal = focal * stretch
            new_cost = _cost(T_new, X_new, camera, uv, start, new_focal, huber)
            if new_cost < cost:
                improved = True
                break
            damping *= 10.0
        if not improved:
            break
        gain = cost - new_cost
        T[:], X[:], cost, focal = T_new, X_new, new_cost, new_focal
        damping = max(damping * 0.1, 1e-9)
        if gain < 1e-5 * cost:
            break
    return focal, cost


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
def _linearise_focal(T, X, camera, uv, start, focal, free, huber, F):
    """Blocks F of log(focal): with each camera [free,6], below them its own and its right-hand side; with each point."""
    cameras, points = F
    cameras[:], points[:] = 0.0, 0.0
    p, e, J = np.zeros(3), np.zeros(2), np.zeros((2, 6))
    for m in range(len(X)):
        for n in range(start[m], start[m + 1]):
            k = camera[n]
            if not project(T[k], X[m], focal, p, e, uv[n]):
                continue
            w = huber_weight(e, huber)
            camera_jacobian(p, focal, J)
            x, y = w * focal * p[0] / p[2], w * focal * p[1] / p[2]
            cameras[free, 0] += (x * x + y * y) / w
            cameras[free, 1] -= x * e[0] + y * e[1]
            for i in range(3):
                for r in range(3):  # a point moves like its camera, turned
                    points[m, i] += (x * J[0, r] + y * J[1, r]) * T[k, r, i]
            if k < free:
                for i in range(6):
                    cameras[k, i] += x * J[0, i] + y * J[1, i]


@njit(cache=True, nogil=True)
def _step(U, a, V, b, W, F, extra, camera, start, free, damping, T, X, T_new, X_new):
    """One damped step: solve the reduced camera system, then each point. Returns the factor on the focal length."""
    last = 6 * free
    S, rhs = np.zeros((last + extra, last + extra)), np.zeros(last + extra)
    inverse = np.zeros_like(V)
    if extra:
        S[last, last] = F[0][free, 0] * (1.0 + damping) + 1e-9
        S[last, :last] = F[0][:free].ravel()
        rhs[last] = F[0][free, 1]
    for k in range(free):
        for i in range(6):
            rhs[6 * k + i] = a[k, i]
            for j in range(6):
                S[6 * k + i, 6 * k + j] = U[k, i, j]
            S[6 * k + i, 6 * k + i] += damping * U[k, i, i] + 1e-9
    for m in range(len(X)):
        _invert_damped(V[m], damping, inverse[m])
        _eliminate(m, inverse[m], b[m], W, camera, start, free, S, rhs)
        if extra:
            _eliminate_focal(m, inverse[m], b[m], F[1][m], W, camera, start, free, S, rhs)
    if not solve_positive(S, rhs):
        rhs[:] = 0.0
    for k in range(free):
        move(T[k], rhs[6 * k : 6 * k + 6], T_new[k])
    for m in range(len(X)):
        rest = b[m].copy()
        if extra:
            rest -= F[1][m] * rhs[last]
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
    return np.exp(rhs[last]) if extra else 1.0


@njit(cache=True, nogil=True)
def _focal_information(T, X, camera, uv, start, focal, free, huber):
    """Information (inverse variance for errors of one pixel) on log(focal) with poses and points free; 0 for none. The tiny
    damping stands for the scale of the map, which nothing holds."""
    U, a = np.zeros((free, 6, 6)), np.zeros((free, 6))
    V, b = np.zeros((len(X), 3, 3)), np.zeros((len(X), 3))
    W = np.zeros((len(camera), 6, 3))
    F = np.zeros((free + 1, 6)), np.zeros((len(X), 3))
    _linearise(T, X, camera, uv, start, focal, free, huber, U, a, V, b, W)
    _linearise_focal(T, X, camera, uv, start, focal, free, huber, F)
    last = 6 * free
    S, rhs, inverse = np.zeros((last + 1, last + 1)), np.zeros(last + 1), np.zeros((3, 3))
    S[last, last] = F[0][free, 0]
    S[last, :last] = F[0][:free].ravel()
    for k in range(free):
        S[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] = U[k]
        for i in range(6):
            S[6 * k + i, 6 * k + i] *= 1.0 + 1e-7
    for m in range(len(X)):
        _invert_damped(V[m], 1e-9, inverse)
        _eliminate(m, inverse, b[m], W, camera, start, free, S, rhs)
        _eliminate_focal(m, inverse, b[m], F[1][m], W, camera, start, free, S, rhs)
    return S[last, last] ** 2 if solve_positive(S, rhs) else 0.0


@njit(cache=True, nogil=True)
def _eliminate_focal(m, inverse, b, f, W, camera, start, free, S, rhs):
    """Subtract what point m explains from the row of the focal length; f [3]: its block with the point."""
    last = 6 * free
    y = np.zeros(3)
    for i in range(3):
        y[i] = inverse[i, 0] * f[0] + inverse[i, 1] * f[1] + inverse[i, 2] * f[2]
        S[last, last] -= y[i] * f[i]
        rhs[last] -= y[i] * b[i]
    for n in range(start[m], start[m + 1]):
        k = camera[n]
        if k < free:
            for i in range(6):
                S[last, 6 * k + i] -= W[n, i, 0] * y[0] + W[n, i, 1] * y[1] + W[n, i, 2] * y[2]


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
