# SPDX-License-Identifier: Apache-2.0
"""Where to look at a map from: which way is up in it, which part of it matters, and from which side it was seen."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, pose
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Pose

_ELEVATION = np.radians(38)


def up_direction(trajectory: Trajectory | None) -> Array:
    """Unit vector [3] that points up in the map.

    A flying or hand-held camera hardly rolls, so its x axis stays level: where it turned enough, up is the direction
    square to all x axes. Else it is the map's z axis if that agrees with the cameras, as upright ones or as ones that look
    straight down; else the mean up direction of the images, or where that is not defined, the mean backward direction.
    """
    z = np.array([0.0, 0.0, 1.0])
    if trajectory is None or not len(trajectory):
        return z
    right, down, ahead = (trajectory.poses[:, :3, k] for k in range(3))
    up, back = -down.mean(axis=0), -ahead.mean(axis=0)
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    if values[1] > 0.03 and values[0] < 0.3 * values[1]:
        level = vectors[:, 0]
        return level * (1.0 if level @ (up + back) >= 0 else -1.0)
    if z @ up > 0.5 or z @ back > 0.64:
        return z
    chosen = up if np.linalg.norm(up) > 0.3 else back
    length = np.linalg.norm(chosen)
    return chosen / length if length > 0.1 else z


def choose_view(points: Array, trajectory: Trajectory | None, width: int, height: int) -> tuple[Camera, Pose]:
    """Camera of that size and its pose map <- camera for a view obliquely from above onto points [N,3], N >= 1, from the
    side where the cameras were; most of the points fit in."""
    up = up_direction(trajectory)
    focal = 1.1 * max(width, height)
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    side = _side(trajectory, up)
    away = np.cos(_ELEVATION) * side + np.sin(_ELEVATION) * up
    right = np.cross(up, side)
    R = np.stack([right, np.cross(right, away), -away], axis=1)  # columns: right, down, ahead
    core = _core(points, trajectory)
    if trajectory is not None and len(trajectory):
        near = (
            np.linalg.norm(trajectory.positions - core.mean(axis=0), axis=1)
            < 1.2 * np.ptp(core, axis=0).max()
        )
        core = np.concatenate(
            [core, np.repeat(trajectory.positions[near], 1 + len(core) // (4 * len(trajectory)), axis=0)]
        )
    return camera, _fitted(core, R, camera)


def _side(trajectory: Trajectory | None, up: Array) -> Array:
    """Level unit vector from the scene towards the viewer: against the mean viewing direction, or against the first one
    where the cameras looked all around."""
    if trajectory is not None and len(trajectory):
        back = -trajectory.poses[:, :3, 2]
        foot = trajectory.poses[
            :1, :3, 1
        ]  # straight down, the lower edge of the image is where the viewer stands
        for vector in (back.mean(axis=0), back[0], foot[0]):
            level = vector - (vector @ up) * up
            if np.linalg.norm(level) > 0.3:
                return level / np.linalg.norm(level)
    vector = np.eye(3)[np.argmin(np.abs(up))]
    level = np.cross(up, vector)
    return level / np.linalg.norm(level)


def _core(points: Array, trajectory: Trajectory | None, limit: int = 20_000) -> Array:
    """The points that the flight was about, thinned out: those that cameras saw well, without the outer twelfth along each
    axis."""
    points = np.asarray(points[:: 1 + len(points) // limit], dtype=np.float64)
    if trajectory is not None and len(trajectory):
        seen = _attention(points, trajectory)
        points = points[seen >= 0.25 * np.percentile(seen, 95)]
    low, high = np.percentile(points, 4, axis=0), np.percentile(points, 96, axis=0)
    return points[((points >= low) & (points <= high)).all(axis=1)] if len(points) > 20 else points


def _attention(points: Array, trajectory: Trajectory) -> Array:
    """How well the cameras saw each point [N]: how many had it in the middle of their view, near ones counting more."""
    total = np.zeros(len(points))
    for T in trajectory.poses[:: 1 + len(trajectory) // 60]:
        ray = points - T[:3, 3]
        distance = np.linalg.norm(ray, axis=1) + 1e-9
        total += (ray @ T[:3, 2] > 0.85 * distance) / distance
    return total


def _fitted(points: Array, R: Array, camera: Camera) -> Pose:
    """The pose of orientation R, as near as possible, from which the points fit into the image but for a few.

    With depth z and distance d of the origin, |x - x0| <= k (z + d) holds for all points once k d is half the sum of the
    greatest x - k z and the greatest -x - k z; half their difference is x0. A high percentile stands for the greatest.
    """
    origin = points.mean(axis=0)
    local = (points - origin) @ R
    slopes = np.array([0.45 * camera.width / camera.fx, 0.42 * camera.height / camera.fy])
    ahead = np.percentile(local[:, :2] - slopes * local[:, 2:], 98, axis=0)
    behind = np.percentile(-local[:, :2] - slopes * local[:, 2:], 98, axis=0)
    distance = max(float(((ahead + behind) / (2 * slopes)).max()), 1e-3)
    x0, y0 = (ahead - behind) / 2
    return pose(R, origin + R @ (x0, y0, -distance))
