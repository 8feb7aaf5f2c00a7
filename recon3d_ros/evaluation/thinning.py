# SPDX-License-Identifier: Apache-2.0
"""Points made even: one for each voxel, the mean of those that fell into it."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.geometry import Array

#: Voxels are told apart up to so many of them from the origin.
_HALF_RANGE = 1 << 20


def thinned(points: Array, voxel: float) -> Array:
    """One point [M,3] for each voxel of that edge that points [N,3] lie in: their mean."""
    cells = np.clip(np.floor(points / voxel), -_HALF_RANGE, _HALF_RANGE - 1).astype(np.int64)
    x, y, z = (cells + _HALF_RANGE).T
    slot = np.unique((x << 42) + (y << 21) + z, return_inverse=True)[1]
    counts = np.bincount(slot)
    return np.stack([np.bincount(slot, column) / counts for column in points.T], axis=-1)
