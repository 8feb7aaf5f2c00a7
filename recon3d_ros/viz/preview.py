# SPDX-License-Identifier: Apache-2.0
"""The picture `preview.png` of a result: mesh on the left, cloud on the right, with the path of the camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d_ros.core.geometry import Array, inverse, transform
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Floats, Image, Pose
from recon3d_ros.viz.raster import Canvas
from recon3d_ros.viz.viewpoint import choose_view

Mesh = tuple[Floats, NDArray[np.int32], Image]
Cloud = tuple[Floats, Image]

_TOP, _BOTTOM = (226, 233, 241), (176, 187, 200)
_PATH, _FRUSTUM, _TEXT = (226, 92, 32), (46, 58, 74), (70, 80, 94)
_FRUSTA = 12


def save_preview(
    path: str | Path,
    mesh: Mesh | None,
    cloud: Cloud | None,
    trajectory: Trajectory | None,
    size: tuple[int, int] = (1280, 720),
) -> None:
    """Write the picture of `render_preview` as PNG. Raises OSError where it cannot be written."""
    image = render_preview(mesh, cloud, trajectory, size)
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    Path(path).write_bytes(data.tobytes())


def render_preview(
    mesh: Mesh | None, cloud: Cloud | None, trajectory: Trajectory | None, size: tuple[int, int] = (1280, 720)
) -> Image:
    """The picture, uint8 [height,width,3] RGB, of size (width, height).

    mesh: vertices float32 [V,3], triangles int32 [T,3], colours uint8 [V,3]. cloud: points float32 [N,3], colours uint8
    [N,3]. trajectory: poses of the camera. All in the map frame; what is None or empty is left out and said to be missing.
    """
    width, height = size[0] // 2, size[1]
    vertices = _finite(mesh[0]) if mesh is not None else np.zeros((0, 3))
    points = _finite(cloud[0]) if cloud is not None else np.zeros((0, 3))
    content = vertices if len(vertices) else points
    if not len(content) and trajectory is not None:
        content = trajectory.positions
    if not len(content):
        content = np.zeros((1, 3))
    camera, T = choose_view(content, trajectory, 2 * width, 2 * height)
    left = Canvas.empty(camera, _TOP, _BOTTOM)
    right = Canvas.empty(camera, _TOP, _BOTTOM)
    if mesh is not None and len(vertices):
        left.triangles(transform(inverse(T), mesh[0].astype(np.float64)), mesh[1], mesh[2])
    if cloud is not None and len(points):
        _draw_cloud(right, cloud, trajectory, T)
    panels = []
    for canvas, text in ((left, _mesh_text(mesh)), (right, _cloud_text(cloud))):
        _draw_trajectory(canvas, trajectory, T)
        panels.append(_labelled(canvas.picture(), text))
    picture = np.concatenate(panels, axis=1)
    picture[:, width - 1 : width + 1] = 255
    return cv2.resize(picture, size) if picture.shape[1::-1] != size else picture


def _finite(points: Floats) -> Array:
    rows = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    return rows[np.isfinite(rows).all(axis=1)]


def _draw_cloud(canvas: Canvas, cloud: Cloud, trajectory: Trajectory | None, T: Pose) -> None:
    """Points as squares, the larger the fewer there are; without those that are seen from behind, which would hide the
    inside of a room: a point's front is taken to be where the nearest camera was."""
    points, colours = np.asarray(cloud[0], dtype=np.float64), cloud[1]
    keep = np.isfinite(points).all(axis=1)
    points, colours = points[keep], colours[keep]
    if trajectory is not None and len(trajectory):
        _, nearest = cKDTree(trajectory.positions).query(points)
        front, view = trajectory.positions[nearest] - points, T[:3, 3] - points
        cosine = (front * view).sum(axis=1) / (
            np.linalg.norm(front, axis=1) * np.linalg.norm(view, axis=1) + 1e-12
        )
        points, colours = points[cosine > -0.55], colours[cosine > -0.55]
    if len(points):
        points = transform(inverse(T), points)
        pixels_per_point = 0.5 * canvas.camera.width * canvas.camera.height / len(points)
        pixel = float(np.median(points[:, 2])) / canvas.camera.fx
        canvas.points(points, colours, pixel * float(np.clip(2.0 * np.sqrt(pixels_per_point), 3, 9)))


def _draw_trajectory(canvas: Canvas, trajectory: Trajectory | None, T: Pose) -> None:
    """The path as a line, and the view of some of its poses as small pyramids."""
    if trajectory is None or not len(trajectory):
        return
    T_view_map = inverse(T)
    path = transform(T_view_map, trajectory.positions)
    if len(path) > 1:
        canvas.lines(path[:-1], path[1:], _all(_PATH, len(path) - 1), 5.0)
    size = 0.03 * float(np.median(path[:, 2]))
    corners = size * np.array([(-0.6, -0.45, 0.9), (0.6, -0.45, 0.9), (0.6, 0.45, 0.9), (-0.6, 0.45, 0.9)])
    chosen = np.unique(np.linspace(0, len(path) - 1, min(_FRUSTA, len(path))).astype(int))
    for pose in trajectory.poses[chosen]:
        base = transform(T_view_map @ pose, corners)
        apex = np.broadcast_to(transform(T_view_map, pose[:3, 3]), base.shape)
        starts, ends = np.concatenate([base, apex]), np.concatenate([np.roll(base, -1, axis=0), base])
        canvas.lines(starts, ends, _all(_FRUSTUM, len(starts)), 3.0)


def _all(colour: tuple[int, int, int], n: int) -> Image:
    return np.broadcast_to(np.array(colour, np.uint8), (n, 3))


def _labelled(picture: Image, text: str) -> Image:
    strip = picture[:34]  # paler, so that the text can be read over whatever is there
    strip[:] = strip // 2 + np.array(_TOP, np.uint8) // 2
    cv2.putText(picture, text, (14, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _TEXT, 1, cv2.LINE_AA)
    return picture


def _mesh_text(mesh: Mesh | None) -> str:
    return f"mesh: {len(mesh[1]):,} triangles" if mesh is not None and len(mesh[1]) else "no surface yet"


def _cloud_text(cloud: Cloud | None) -> str:
    return f"cloud: {len(cloud[0]):,} points" if cloud is not None and len(cloud[0]) else "no points yet"
