# SPDX-License-Identifier: Apache-2.0
"""Join vertices that are equal bit for bit. No tolerance: neighbouring regions make the same border vertices exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import Floats, Image, MeshBlock
from recon3d_ros.mapping.jit import kernel

Triangles = NDArray[np.int32]

_WHOLE = (0, 0, 0)


def weld(vertices: Floats, triangles: Triangles, colours: Image) -> tuple[Floats, Triangles, Image]:
    """Vertices float32 [V,3] each kept once (in order of first appearance), the triangles renumbered, the colours kept."""
    first, number = _first_of_equal(np.ascontiguousarray(vertices, np.float32).view(np.int32))
    return vertices[first], number[triangles], colours[first]


def joined(parts: Sequence[MeshBlock]) -> MeshBlock:
    """One mesh of neighbouring regions with their border vertices welded; id (0, 0, 0)."""
    if not parts:
        return MeshBlock(_WHOLE, *(np.empty((0, 3), kind) for kind in (np.float32, np.int32, np.uint8)))
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts], dtype=np.int32)
    vertices = np.concatenate([part.vertices for part in parts])
    triangles = np.concatenate([part.triangles + o for part, o in zip(parts, offsets, strict=False)])
    colours = np.concatenate([part.colours for part in parts])
    return MeshBlock(_WHOLE, *weld(vertices, triangles, colours))


@kernel
def _first_of_equal(bits):
    """Rows that appear for the first time, and for each row the number of its equal among them."""
    size = 16
    while size < 2 * len(bits):
        size *= 2
    table = np.full(size, -1, np.int32)
    first, number = np.empty(len(bits), np.int64), np.empty(len(bits), np.int32)
    distinct = 0
    for i in range(len(bits)):
        x, y, z = np.int64(bits[i, 0]), np.int64(bits[i, 1]), np.int64(bits[i, 2])
        mixed = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
        place = (mixed ^ (mixed >> 17)) & (size - 1)
        while table[place] >= 0:
            other = first[table[place]]
            if bits[other, 0] == bits[i, 0] and bits[other, 1] == bits[i, 1] and bits[other, 2] == bits[i, 2]:
                break
            place = (place + 1) & (size - 1)
        if table[place] < 0:
            table[place] = distinct
            first[distinct] = i
            distinct += 1
        number[i] = table[place]
    return first[:distinct].copy(), number
