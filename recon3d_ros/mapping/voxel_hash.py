# SPDX-License-Identifier: Apache-2.0
"""The hash of integer coordinates that blocks and single voxels share: open addressing, linear probing, 64-bit mixing."""

from __future__ import annotations

import numpy as np

from recon3d_ros.mapping.jit import kernel

#: Coordinates reach from -LIMIT to LIMIT - 1.
LIMIT = 1 << 20

#: Key of a place that was never taken.
EMPTY = -1

_BITS = 2 * LIMIT - 1


@kernel
def pack(x, y, z):
    """One non-negative int64 of three coordinates; those beyond the limit wrap around."""
    a, b, c = np.int64(x) + LIMIT & _BITS, np.int64(y) + LIMIT & _BITS, np.int64(z) + LIMIT & _BITS
    return a << 42 | b << 21 | c


@kernel
def probe(keys, key):
    """Place of a key among `keys` (int64 [2^k]), or the empty place where it belongs."""
    mask = len(keys) - 1
    mixed = (key ^ (key >> 31)) * np.int64(0x7FB5D329728EA185)
    place = (mixed ^ (mixed >> 29)) & mask
    while keys[place] != EMPTY and keys[place] != key:
        place = (place + 1) & mask
    return place
