# SPDX-License-Identifier: Apache-2.0
"""The similarity that makes metres and level ground of a map, from what is known of its camera from outside: poses, GPS
positions, or its height above the ground (geometric specification, section A12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.align import umeyama
from recon3d_ros.core.geometry import Array, scale_of, similarity, so3_exp
from recon3d_ros.core.types import Gravity, Pose

#: Keyframes needed for a comparison with poses, with positions, and with the ground.
POSES, POSITIONS, GROUNDS = 8, 6, 20
#: Path that keyframes must span, in median depths.
PATH = 0.5
#: Second over first singular value of the positions, below which they lie on a line.
_TWO_DIRECTIONS = 0.1
#: Standard deviations of the logarithm of the scale and of a direction (radians) that are good enough at once, and those
#: taken where nothing better can come.
_FINE, _COARSE = 0.03, 0.15
_FINE_TILT, _COARSE_TILT = np.radians(3.0), np.radians(10.0)
#: Errors of a receiver change slowly, so that they do not cancel as their spread suggests.
_FINE_POSITIONS = 0.01
_ROUNDS, _HUBER = 10, 1.5
#: Share of the scale that must be left when the given orientations are used: less, and they do not fit the given path.
_ORIENTATION_FITS = 0.9


@dataclass(frozen=True, eq=False)
class Fit:
    """S: similarity map <- world of the engine, 4x4. deviation: that of the logarithm of its scale. oriented: False
    where given orientations contradict the given path and were left out."""

    S: Array
    gravity: Gravity
    deviation: float
    oriented: bool = True

    @property
    def scale(self) -> float:
        """Metres per unit of the engine."""
        return scale_of(self.S)


def from_poses(ours: Array, given: Array, depth: float, coarse: bool = False) -> Fit | None:
    """The fit of keyframes [N,4,4] to poses given in metres [N,4,4]; None while they do not tell. depth: median one of the
    keyframes, in the engine's unit. coarse: take a rough one, nothing better will come."""
    centres, targets = ours[:, :3, 3], given[:, :3, 3]
    path = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
    if len(ours) < POSES or path < PATH * depth:
        return None
    R = mean_rotation(given[:, :3, :3] @ ours[:, :3, :3].transpose(0, 2, 1))
    measured, free = scale_along(R, centres, targets), _robust_similarity(centres, targets)
    if measured is None or free is None:
        return None
    if measured[0] < _ORIENTATION_FITS * scale_of(free[0]):
        fit = from_positions(centres, targets, depth, coarse)
        return None if fit is None else Fit(fit.S, Gravity.PRIOR, fit.deviation, oriented=False)
    scale, deviation, weights = measured
    if deviation > (_COARSE if coarse else _FINE):
        return None
    t = np.average(targets - scale * centres @ R.T, axis=0, weights=weights)
    return Fit(similarity(scale, R, t), Gravity.PRIOR, deviation)


def from_positions(
    ours: Array, given: Array, depth: float, coarse: bool = False, up: Array | None = None
) -> Fit | None:
    """The fit of camera centres [N,3] to positions [N,3] in metres, z up; None while they do not tell. Without `up` (in the
    engine's world) they must span two directions, with it only the heading is left to find."""
    path = np.linalg.norm(np.diff(ours, axis=0), axis=1).sum()
    if len(ours) < POSITIONS or path < PATH * depth:
        return None
    found = _robust_similarity(ours, given, None if up is None else levelling(up))
    if found is None:
        return None
    S, weights = found
    scale = scale_of(S)
    a = (ours - np.average(ours, axis=0, weights=weights)) @ S[:3, :3].T * np.sqrt(weights)[:, None]
    if up is not None:
        a = a[:, :2]
    spread = np.linalg.svd(a, compute_uv=False)
    across = float(np.linalg.norm(spread if up is not None else spread[1:]))
    if scale <= 0 or (up is None and spread[1] < _TWO_DIRECTIONS * spread[0]):
        return None
    error = np.linalg.norm(ours @ S[:3, :3].T + S[:3, 3] - given, axis=1)
    sigma = float(np.sqrt((weights * error**2).sum() / (3 * weights.sum() - 7)))
    deviation, tilt = sigma / float(np.linalg.norm(spread)), sigma / max(across, 1e-12)
    if deviation > (_COARSE if coarse else _FINE_POSITIONS) or tilt > (
        _COARSE_TILT if coarse else _FINE_TILT
    ):
        return None
    return Fit(S, Gravity.GPS if up is None else Gravity.IMU, deviation)


def from_ground(heights: Array, ups: Array, height: float, coarse: bool = False) -> Fit | None:
    """The fit of the camera's heights above the ground [N], and of the ground's normals [N,3] in the engine's world, to the
    height in metres."""
    measured = scale_above_ground(heights, height)
    if measured is None or measured[1] > (_COARSE if coarse else _FINE):
        return None
    return Fit(
        similarity(measured[0], levelling(mean_direction(ups)), np.zeros(3)), Gravity.PLANE, measured[1]
    )


def scale_above_ground(heights: Array, height: float) -> tuple[float, float] | None:
    """Scale and the deviation of its logarithm from heights [N] above the ground, whose true one is known."""
    if len(heights) < GROUNDS:
        return None
    middle = float(np.median(heights))
    spread = 1.4826 * float(np.median(np.abs(heights - middle))) / middle
    return height / middle, 1.2533 * spread / np.sqrt(len(heights))


def scale_along(R: Array, ours: Array, given: Array) -> tuple[float, float, Array] | None:
    """Scale, the deviation of its logarithm, and the weights [N], of centres [N,3] that R turns into the given frame."""
    turned, w = ours @ R.T, np.ones(len(ours))
    scale, error, square = 0.0, w, 0.0
    for _ in range(_ROUNDS):
        a = turned - np.average(turned, axis=0, weights=w)
        b = given - np.average(given, axis=0, weights=w)
        square = float((w[:, None] * a * a).sum())
        if square < 1e-18:
            return None
        scale = float((w[:, None] * a * b).sum()) / square
        error = np.linalg.norm(b - scale * a, axis=1)
        w = _huber(error)
    if not scale > 0:
        return None
    sigma = np.sqrt(float((w * error**2).sum()) / max(3 * float(w.sum()) - 4, 1.0))
    return scale, float(sigma) / (scale * np.sqrt(square)), w


def mean_rotation(rotations: Array) -> Array:
    """The rotation nearest to all of [N,3,3], in the chordal sense, with less weight for those that lie off."""
    w = np.ones(len(rotations))
    R = np.eye(3)
    for _ in range(_ROUNDS):
        U, _, Vt = np.linalg.svd(np.average(rotations, axis=0, weights=w))
        R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
        w = _huber(np.linalg.norm(rotations - R, axis=(1, 2)))
    return R


def mean_direction(directions: Array) -> Array:
    """The direction nearest to all unit vectors [N,3], with less weight for those that lie off."""
    w = np.ones(len(directions))
    mean = directions[0]
    for _ in range(_ROUNDS):
        mean = np.average(directions, axis=0, weights=w)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        w = _huber(np.linalg.norm(directions - mean, axis=1))
    return mean


def levelling(up: Array) -> Array:
    """The smallest rotation that brings the unit vector `up` to z."""
    axis = np.array([up[1], -up[0], 0.0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return np.eye(3) if up[2] > 0 else np.diag([1.0, -1.0, -1.0])
    return so3_exp(axis / sine * np.arctan2(sine, up[2]))


def placed_first(ours: Pose, given: Pose) -> Array:
    """The rigid transform that brings one pose of the engine's world to a given one."""
    R = given[:3, :3] @ ours[:3, :3].T
    return similarity(1.0, R, given[:3, 3] - R @ ours[:3, 3])


def _robust_similarity(ours: Array, given: Array, level: Array | None = None) -> tuple[Array, Array] | None:
    """The similarity of two sets of points [N,3] with Huber's weights [N]; `level`: all of its rotation but the heading."""
    w = np.ones(len(ours))
    S = np.eye(4)
    for _ in range(_ROUNDS):
        try:
            S = umeyama(ours, given, weights=w) if level is None else _heading(ours, given, w, level)
        except (ValueError, np.linalg.LinAlgError):
            return None
        w = _huber(np.linalg.norm(ours @ S[:3, :3].T + S[:3, 3] - given, axis=1))
    return (S, w) if np.isfinite(S).all() and np.linalg.det(S[:3, :3]) > 0 else None


def _heading(ours: Array, given: Array, w: Array, level: Array) -> Array:
    flat = ours @ level.T
    mean, target = np.average(flat, axis=0, weights=w), np.average(given, axis=0, weights=w)
    a, b = flat - mean, given - target
    cross = (w * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum()
    yaw = np.arctan2(cross, (w * (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1])).sum())
    turn = so3_exp(np.array([0.0, 0.0, yaw]))
    square = float((w[:, None] * a * a).sum())
    if square < 1e-18:
        raise ValueError("all points coincide")
    scale = float((w[:, None] * (a @ turn.T) * b).sum()) / square
    return similarity(scale, turn @ level, target - scale * turn @ mean)


def _huber(error: Array) -> Array:
    """Weights of errors: 1 up to one and a half times the median one, then falling."""
    limit = _HUBER * float(np.median(error)) + 1e-12
    return limit / np.maximum(error, limit)
