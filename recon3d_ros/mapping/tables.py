# SPDX-License-Identifier: Apache-2.0
"""The table of marching cubes (Lorensen and Cline), made by a rule instead of written down.

Corner c of a cell lies at (c & 1, c >> 1 & 1, c >> 2 & 1). On each face one segment is drawn around every run of inside
corners; the segments of the six faces chain to closed loops, and each loop is cut into a fan of triangles. The rule looks
at one face alone, so two cells that share a face draw the same segments on it and no crack can appear."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Corners of the six faces, counter-clockwise seen from outside the cell.
FACES = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))

#: Edge -> (x, y, z of its lower corner, axis along which it runs).
EDGES: NDArray[np.int32] = np.array(
    [(c & 1, c >> 1 & 1, c >> 2, axis) for axis in range(3) for c in range(8) if not c >> axis & 1],
    dtype=np.int32,
)


def _edge_between(a: int, b: int) -> int:
    axis = (a ^ b).bit_length() - 1
    low = min(a, b)
    return EDGES.tolist().index([low & 1, low >> 1 & 1, low >> 2, axis])


def _segments(case: int) -> dict[int, int]:
    """Start edge -> end edge of the segments on all faces; a crossed edge is the start of one and the end of another."""
    segments = {}
    for face in FACES:
        inside = [bool(case >> c & 1) for c in face]
        for i in range(4):
            if not inside[i] or inside[i - 1]:
                continue
            last = i
            while inside[(last + 1) % 4]:
                last += 1
            start = _edge_between(face[last % 4], face[(last + 1) % 4])
            segments[start] = _edge_between(face[i - 1], face[i])
    return segments


def _triangles(case: int) -> list[int]:
    """Edges of the triangles of a case, three per triangle, counter-clockwise seen from outside."""
    segments = _segments(case)
    out: list[int] = []
    while segments:
        loop = [min(segments)]
        while segments[loop[-1]] != loop[0]:
            loop.append(segments.pop(loop[-1]))
        segments.pop(loop[-1])
        for second, third in pairwise(loop[1:]):
            out += [loop[0], third, second]
    return out


def _table() -> NDArray[np.int8]:
    table = np.full((256, 16), -1, dtype=np.int8)
    for case in range(256):
        edges = _triangles(case)
        table[case, : len(edges)] = edges
    return table


#: Case (bit c set: corner c inside) -> edges of up to five triangles, ended by -1. int8 [256,16].
TRIANGLES: NDArray[np.int8] = _table()
