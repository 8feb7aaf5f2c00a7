# SPDX-License-Identifier: Apache-2.0
"""Which blocks of two pools make another surface: another distance or colour, or a weight beyond the least."""

from __future__ import annotations

import numpy as np

from recon3d_ros.mapping.blocks import VOXELS, find
from recon3d_ros.mapping.jit import kernel


@kernel
def differing(some, others, start, stop, min_weight):
    """Flags over the slots start .. stop - 1 of one pool: held there, and not in the other pool or of other surface."""
    flags = np.zeros(stop - start, np.bool_)
    for slot in range(start, stop):
        if some.alive[slot]:
            x, y, z = some.coords[slot]
            other = find(others.keys, others.slots, x, y, z)
            flags[slot - start] = other < 0 or not _same_surface(some, slot, others, other, min_weight)
    return flags


@kernel
def absent(some, others, start, stop):
    """Flags over the slots start .. stop - 1 of one pool: held there, and absent from the other pool."""
    flags = np.zeros(stop - start, np.bool_)
    for slot in range(start, stop):
        if some.alive[slot]:
            x, y, z = some.coords[slot]
            flags[slot - start] = find(others.keys, others.slots, x, y, z) < 0
    return flags


@kernel
def _same_surface(a, slot_a, b, slot_b, min_weight):
    tsdf_a, weight_a, colour_a = a.tsdf[slot_a], a.weight[slot_a], a.colour[slot_a]
    tsdf_b, weight_b, colour_b = b.tsdf[slot_b], b.weight[slot_b], b.colour[slot_b]
    for i in range(VOXELS):
        if tsdf_a[i] != tsdf_b[i] or (weight_a[i] < min_weight) != (weight_b[i] < min_weight):
            return False
        for c in range(3):
            if colour_a[i, c] != colour_b[i, c]:
                return False
    return True
