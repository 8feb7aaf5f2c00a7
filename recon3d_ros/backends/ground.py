# SPDX-License-Identifier: Apache-2.0
"""The ground before the camera of a vehicle: a plane in the lower middle of a depth image (geometric specification, section
A12). A vehicle drives along its ground, so that only height and roll of the plane are left to find."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats

#: The part of the image: from this row on, and these columns; shares.
_FROM, _LEFT, _RIGHT = 0.6, 0.25, 0.75
#: Points looked at, pairs tried, distance to the plane in heights of the camera, and the share that must be so near.
_POINTS, _TRIES, _NEAR, _SHARE = 2000, 200, 0.03, 0.3
_MIN_POINTS = 60
#: Largest pitch (against the way the camera goes) and roll of the camera.
_MAX_PITCH, _MAX_ROLL = np.sin(np.radians(35.0)), np.tan(np.radians(15.0))


def ground_plane(depth: Floats, camera: Camera, motion: Array, seed: int = 0) -> tuple[float, Array] | None:
    """Height of the camera above the ground, in the unit of the depth float32 [h,w], and the ground's normal [3] in optical
    axes; None where no plane is found. motion: direction [3] in which the camera goes, in optical axes. The same seed gives
    the same answer."""
    points = _lower_middle(depth, camera)
    forward = motion / max(float(np.linalg.norm(motion)), 1e-12)
    if len(points) < _MIN_POINTS or abs(forward[1]) > _MAX_PITCH:
        return None
    # Seen along the way it goes the ground is a line: down = height + roll * side.
    side = np.array([1.0, 0.0, 0.0]) - forward[0] * forward
    side /= np.linalg.norm(side)
    down = np.cross(forward, side)
    if down[1] < _MAX_PITCH:
        return None
    rng = np.random.default_rng(seed)
    points = points[rng.permutation(len(points))[:_POINTS]]
    line = _line(points @ side, points @ down, rng)
    if line is None:
        return None
    height, roll = line
    length = float(np.hypot(1.0, roll))
    return height / length, (roll * side - down) / length


def _line(a: Array, b: Array, rng: np.random.Generator) -> tuple[float, float] | None:
    """Offset and slope of the line b = offset + slope * a on which most points lie."""
    i, j = rng.integers(0, len(a), (2, _TRIES))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (b[j] - b[i]) / (a[j] - a[i])
    offsets = b[i] - slopes * a[i]
    possible = (np.abs(slopes) < _MAX_ROLL) & (offsets > 0)
    if not possible.any():
        return None
    slopes, offsets = slopes[possible], offsets[possible]
    near = np.abs(b[:, None] - offsets - a[:, None] * slopes) < _NEAR * offsets
    best = near[:, int(near.sum(axis=0).argmax())]
    offset, slope = 0.0, 0.0
    for _ in range(3):
        if best.sum() < max(_SHARE * len(a), _MIN_POINTS):
            return None
        slope, offset = np.polyfit(a[best], b[best], 1)
        best = np.abs(b - offset - slope * a) < _NEAR * offset
    return (float(offset), float(slope)) if offset > 0 and abs(slope) < _MAX_ROLL else None


def _lower_middle(depth: Floats, camera: Camera) -> Array:
    height, width = depth.shape
    part = np.s_[int(_FROM * height) : height, int(_LEFT * width) : int(_RIGHT * width)]
    z = depth[part].astype(np.float64)
    v, u = np.mgrid[part]
    known = np.isfinite(z) & (z > 0)
    z, u, v = z[known], u[known], v[known]
    return np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=1)
