# SPDX-License-Identifier: Apache-2.0
"""Regions of 2x2x2 blocks: what is extracted and shown as one piece. Region (x, y, z) begins with block (2x, 2y, 2z)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.mapping.blocks import unique_rows

_LOWER = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.int32)
_REACH = np.array([(x, y, z) for x in range(3) for y in range(3) for z in range(3)], dtype=np.int32)


def regions_of(blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [m,3] of the regions that hold the given blocks [n,3]."""
    return unique_rows(blocks >> 1)


def regions_meeting(blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [m,3] of the regions whose triangles depend on the given blocks: the cells of a block reach into its
    seven upper neighbours, so a change also concerns the seven lower ones."""
    return unique_rows((blocks[:, None, :] - _LOWER).reshape(-1, 3) >> 1)


def blocks_of(regions: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [n,3] of all blocks that the triangles of regions [m,3] depend on."""
    return unique_rows((2 * regions[:, None, :] + _REACH).reshape(-1, 3))
