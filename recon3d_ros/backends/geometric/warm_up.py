# SPDX-License-Identifier: Apache-2.0
"""Compiles the numba kernels of tracking before the first frame needs them. It takes about ten seconds the first time, and
a fraction of one when numba's cache has them."""

from __future__ import annotations

import numpy as np

from recon3d_ros.backends.geometric.bundle import Observations, adjust
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.pose import locate
from recon3d_ros.backends.geometric.triangulation import triangulate
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import pose


def warm_up() -> None:
    """Run every kernel once on a handful of points."""
    camera = Camera(8, 8, 8.0, 8.0, 3.5, 3.5, "plumb_bob", (0.01,))
    lens = Lens(camera, camera.fx)
    lens.centred(np.zeros((1, 2), np.float32))
    points = np.array([(0.0, 0, 4), (1, 0, 5), (0, 1, 6), (1, 1, 4), (-1, 0, 5)])
    T_cam_map = np.array([np.eye(4), pose(np.eye(3), np.array([0.5, 0.0, 0.0]))])
    uv = [lens.focal * (points + T[:3, 3])[:, :2] / points[:, 2:] for T in T_cam_map]
    seen = Observations(np.tile(np.arange(2), 5), np.stack(uv, axis=1).reshape(-1, 2), np.arange(0, 11, 2))
    adjust(T_cam_map, points, seen, lens.focal, 1, 1.0, 1)
    triangulate(T_cam_map, seen, lens.focal, 0.0, 1.0)
    locate(T_cam_map[0], points, uv[0], lens.focal, 1.0)
