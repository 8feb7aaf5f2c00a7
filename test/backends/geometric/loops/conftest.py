# SPDX-License-Identifier: Apache-2.0
"""A flat world of points that every camera recognises: keyframes without images."""

import numpy as np
import pytest

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.loops.landmarks import Landmarks
from recon3d_ros.backends.geometric.matching import Features
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse, pose, transform

LENS = Lens(Camera(640, 480, 450.0, 450.0, 319.5, 239.5), 450.0)


class World:
    """points [N,3] on hilly ground, each with a descriptor of its own; cameras look down on it."""

    def __init__(self, seed=0, size=12.0, count=12_000):
        rng = np.random.default_rng(seed)
        self.points = np.column_stack([rng.uniform(-size, size, (count, 2)), rng.normal(0, 0.15, count)])
        self.descriptors = rng.integers(0, 256, (count, 128), np.uint8)

    @staticmethod
    def camera(x, y, heading=0.0):
        """Pose of a camera two units above the ground, looking down."""
        c, s = np.cos(heading), np.sin(heading)
        down = np.array([[s, -c, 0.0], [-c, -s, 0.0], [0.0, 0.0, -1.0]]).T
        return pose(down, np.array([x, y, 2.0]))

    def landmarks(self, index, T, scale=1.0, noise=0.3, seed=0):
        """What the camera T sees, half a pixel off; its own unit is 1 / scale of the world's."""
        rng = np.random.default_rng(seed + 1000 * index)
        p = transform(inverse(T), self.points)
        uv = LENS.focal * p[:, :2] / p[:, 2:]
        seen = (np.abs(uv) < (320, 240)).all(axis=1)
        seen &= np.cumsum(seen) <= 900
        p, uv = p[seen] * scale, uv[seen] + rng.normal(0, noise, (int(seen.sum()), 2))
        p = p * rng.normal(1.0, 0.005, (len(p), 1))
        features = Features(uv.astype(np.float32), uv, self.descriptors[seen], np.full(len(uv), -1, np.int64))
        return Landmarks(index, features, p, LENS, float(np.median(p[:, 2])))


@pytest.fixture(scope="session")
def world():
    return World()
