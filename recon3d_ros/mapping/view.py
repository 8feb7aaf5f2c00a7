# SPDX-License-Identifier: Apache-2.0
"""A keyframe made ready for the volume, and what its depth says of scale and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Pose
from recon3d_ros.mapping.history import Record
from recon3d_ros.mapping.noise import inverse_depth_noise
from recon3d_ros.mapping.splat import DepthImage

#: A voxel derived from the depth is at least so many standard deviations of it: finer ones hold noise alone.
_VOXEL_NOISE = 1.0


@dataclass(frozen=True, eq=False)
class View:
    """pose: the newest known. median: of the depth, map units; far: depth beyond which nothing is done; noise: standard
    deviation of the inverse depth, 1 / map units; spread: see `tsdf.Volume.integrate`."""

    image: DepthImage
    pose: Pose
    median: float
    far: float
    noise: float
    spread: float

    @classmethod
    def of(cls, image: DepthImage, pose: Pose, median: float, params: MeshParams) -> View:
        """All lengths follow from the median depth and the measured or given noise."""
        noise = params.depth_noise / median if params.depth_noise else inverse_depth_noise(image.depth)
        return cls(image, pose, median, params.max_depth * median, noise, params.noise_truncation * noise)

    def voxel_size(self, params: MeshParams) -> float:
        """That which suits this keyframe, map units."""
        return max(params.voxel_share * self.median, _VOXEL_NOISE * self.noise * self.median**2)

    def record(self, keyframe_id: int) -> Record:
        """What the history keeps of it."""
        pose = self.pose
        return Record(keyframe_id, self.image, pose, pose, pose, self.far, self.spread, self._corners())

    def _corners(self) -> NDArray[np.float64]:
        """The image corners at median depth, homogeneous, camera frame [4,4]."""
        right, bottom = self.image.camera.width - 1.0, self.image.camera.height - 1.0
        pixels = np.array([(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)])
        rays = np.column_stack([self.image.camera.unproject(pixels), np.ones(4)])
        return np.vstack([rays.T * self.median, np.ones(4)])
