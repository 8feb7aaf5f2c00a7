# SPDX-License-Identifier: Apache-2.0
"""True depth images as a surface: their points in the world, and the space that they have looked into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, inverse, transform
from recon3d_ros.core.types import Floats, Pose
from recon3d_ros.evaluation.depth import seen_by
from recon3d_ros.evaluation.thinning import thinned

#: Of one view, spread evenly, that become points.
_MAX_PIXELS = 40_000


@dataclass(frozen=True, eq=False)
class View:
    """True depth as a camera saw it: float32 [H,W] along z, NaN = none; pose of the camera, camera to world."""

    depth: Floats
    camera: Camera
    T_world_cam: Pose


def fused(views: Iterable[View], voxel: float, max_depth: float = np.inf) -> Array:
    """The points [N,3] that views show, in the world: one a voxel, the mean of what fell into it. Depth beyond max_depth
    is left out."""
    return thinned(np.concatenate([np.empty((0, 3)), *(_points(view, max_depth) for view in views)]), voxel)


def seen(points: Array, views: Iterable[View], behind: float, max_depth: float = np.inf) -> NDArray[np.bool_]:
    """Which of points [N,3] lie where a view has looked: in front of what it saw or up to `behind` farther than that,
    and no farther than max_depth."""
    found = np.zeros(len(points), dtype=np.bool_)
    for view in views:
        rest = np.flatnonzero(~found)
        found[rest] = _shown(points[rest], view, behind, max_depth)
    return found


def _shown(points: Array, view: View, behind: float, max_depth: float) -> NDArray[np.bool_]:
    # A lens model holds within its image only: far outside, points may come back into it. So without distortion.
    camera = view.camera.undistorted()
    depth = seen_by(camera, view.depth, view.camera)
    local = transform(inverse(view.T_world_cam), points)
    pixels = np.rint(camera.project(local))
    inside = ((pixels >= 0) & (pixels < camera.size)).all(axis=1)
    u, v = pixels[inside].astype(np.intp).T
    shown = np.zeros(len(points), dtype=np.bool_)
    shown[inside] = local[inside, 2] <= np.minimum(depth[v, u] + behind, max_depth)
    return shown


def _points(view: View, max_depth: float) -> Array:
    step = int(np.ceil(np.sqrt(view.depth.size / _MAX_PIXELS)))
    depth, rays = view.depth[::step, ::step].astype(np.float64), _rays(view.camera)[::step, ::step]
    kept = (depth > 0) & (depth <= max_depth) & np.isfinite(rays).all(axis=-1)
    z = depth[kept][:, None]
    return transform(view.T_world_cam, np.hstack([rays[kept] * z, z]))


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> Floats:
    return camera.rays()
