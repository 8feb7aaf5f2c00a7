# SPDX-License-Identifier: Apache-2.0
"""The pose of a frame by Gauss-Newton: point-to-plane distances to the surfaces of several keyframes (projective data
association, Rusinkiewicz and Levoy, "Efficient variants of the ICP algorithm", 3DIM 2001) and reprojections of tracked
image points, in one system: what the one leaves open, as a wall does, the other decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.rgbd.kernels import JUMP, fit_planes, point_to_plane, reprojection
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, inverse, orthonormalised, se3_exp
from recon3d_ros.core.types import Floats, Pose

#: (reach in units of the depth's noise, iterations): points farther from a surface have no say in it.
SCHEDULE = ((24.0, 10), (10.0, 8), (5.0, 8))
#: Change of a pose below which nothing more is gained, metres and radians.
SETTLED = 2e-5
#: Neighbouring errors of depth are alike: the points on one surface count as no more than this many.
INDEPENDENT = 500.0
#: Radius of the window of a plane fit, pixels.
RADIUS = 2


@dataclass(frozen=True, eq=False)
class Surface:
    """What a keyframe offers to align with: smoothed depth float32 [h,w] and normals float32 [h,w,3] in its camera, and
    its pose."""

    camera: Camera
    depth: Floats
    normals: Floats
    T_map_cam: Pose

    @classmethod
    def fitted(cls, depth: Floats, camera: Camera, T_map_cam: Pose) -> Surface:
        """The surface through a depth image float32 [h,w] of a pinhole camera."""
        smooth, normals = fit_planes(depth, camera.fx, camera.fy, camera.cx, camera.cy, RADIUS, JUMP)
        return cls(camera, smooth, normals, T_map_cam)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Image points of known place. points: float64 [N,3] in the map. observed: float64 [N,2], normalised coordinates.
    sigma: noise of these."""

    points: Array
    observed: Array
    sigma: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A registered pose. agreement: share of the depth points in view of a surface that lie on it, 0 without any in view;
    overlap: share of the depth points in view of a surface; tracks: number of image points that fit."""

    T_map_cam: Pose
    overlap: float
    agreement: float
    tracks: int


def register(points: Floats, surfaces: Sequence[Surface], tracks: Tracks, guess: Pose) -> Fit:
    """Pose of the camera that sees depth `points` [N,3] (in its own frame) and `tracks`, near `guess`."""
    T = guess
    for reach, iterations in SCHEDULE:
        for _ in range(iterations):
            H, g, seen, matched, near = _system(points, surfaces, tracks, T, reach)
            step = _solve(H, g)
            T = T @ se3_exp(step)
            if np.abs(step).max() < SETTLED:
                break
    offered = max(1, len(surfaces) * len(points))
    return Fit(orthonormalised(T), seen / offered, matched / max(1, seen), near)


def _system(
    points: Floats, surfaces: Sequence[Surface], tracks: Tracks, T: Pose, reach: float
) -> tuple[Array, Array, int, int, int]:
    """Normal equations, and the numbers of points in view of surfaces, of those matched, and of tracks that fit."""
    H, g = np.zeros((6, 6)), np.zeros(6)
    near = reprojection(tracks.points, tracks.observed, inverse(T), tracks.sigma, H, g)
    seen = matched = 0
    for surface in surfaces:
        h, e = np.zeros((6, 6)), np.zeros(6)
        camera = surface.camera
        s, m = point_to_plane(
            points,
            inverse(surface.T_map_cam) @ T,
            surface.depth,
            surface.normals,
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            reach,
            h,
            e,
        )
        share = min(1.0, INDEPENDENT / max(m, 1))
        H += share * h
        g += share * e
        seen += s
        matched += m
    return H, g, seen, matched, near


def _solve(H: Array, g: Array) -> Array:
    """The step; directions that nothing decides stay as they are, held as if known to 0.1 m and 0.1 rad."""
    return np.asarray(np.linalg.solve(H + np.triu(H, 1).T + 100.0 * np.eye(6), g))
