# SPDX-License-Identifier: Apache-2.0
"""The volumes of a map: the live one and those that rebuilds fill are made alike, in the same place."""

from __future__ import annotations

import logging

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Scale
from recon3d_ros.mapping.cuda.device import WORTH, choose
from recon3d_ros.mapping.cuda.volume import CudaVolume
from recon3d_ros.mapping.field import Field
from recon3d_ros.mapping.spill import BlockFile, Spill
from recon3d_ros.mapping.tsdf import Volume

log = logging.getLogger(__name__)


class Volumes:
    """Makes them. Raises InputError where the device or the folder for blocks on disk that the parameters name cannot be
    used.

    median, scale: that they began with."""

    def __init__(self, params: MeshParams) -> None:
        self._params = params
        self._gpu = choose(params)
        self._on_gpu = False
        self._voxel_size = self._min_weight = 0.0
        self.median, self.scale = 0.0, Scale.UNKNOWN
        self._disk: BlockFile | None = None

    def reset(self) -> None:
        """Another map comes: its blocks on disk are others."""
        self._disk = BlockFile(self._params.spill) if self._params.spill else None

    def begin(self, voxel_size: float, median: float, scale: Scale) -> None:
        """A map of that voxel size, seen from that median depth (map units), is about to begin. Depth of a sensor needs no
        second view to be believed."""
        self._voxel_size, self.median, self.scale = voxel_size, median, scale
        self._min_weight = self._params.min_weight or (1.0 if scale is Scale.SENSOR else 2.0)
        by_choice = self._params.device == "auto"
        self._on_gpu = self._gpu is not None and (not by_choice or voxel_size <= WORTH * median)
        if self._on_gpu and by_choice:
            log.info("the mesh is made on the GPU")

    def make(self) -> Field:
        """An empty one."""
        p, voxel = self._params, self._voxel_size
        narrow, wide = p.truncation * voxel, p.max_truncation * voxel
        about = (voxel, narrow, self._min_weight, p.max_blocks, p.carve, wide)
        if self._on_gpu and self._gpu is not None:
            return CudaVolume(self._gpu, *about)
        return Volume(*about, None if self._disk is None else Spill(self._disk))
