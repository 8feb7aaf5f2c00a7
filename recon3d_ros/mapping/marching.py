# SPDX-License-Identifier: Apache-2.0
"""Marching cubes over regions of 2x2x2 blocks. A vertex is (voxel index + fraction) * voxel size in float64, rounded
once to float32, its fraction counted from the lower to the upper voxel and kept off both: neighbouring regions then make
the same border vertices bit for bit, and a region extracted anew always fits those that were not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import SIDE, Blocks
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.tables import EDGES, TRIANGLES

#: Cells along the edge of a region.
CELLS = 2 * SIDE

_CORNERS = CELLS + 1
_MARGIN = 1 / 256


def extract(
    blocks: Blocks, regions: NDArray[np.int32], voxel_size: float, min_weight: int
) -> list[MeshBlock]:
    """The triangles of each region, in the given order, with no vertex twice inside one.

    min_weight: weight in the pool below which a voxel is unknown; a cell with an unknown corner has no triangles."""
    vertices, colours, triangles, vertex_ends, triangle_ends = _extract(
        blocks, regions, voxel_size, min_weight, TRIANGLES, EDGES
    )
    out = []
    v0 = t0 = 0
    for region, v1, t1 in zip(regions.tolist(), vertex_ends.tolist(), triangle_ends.tolist(), strict=True):
        out.append(MeshBlock(tuple(region), vertices[v0:v1], triangles[t0:t1], colours[v0:v1]))
        v0, t0 = v1, t1
    return out


@kernel
def _extract(blocks, regions, voxel, min_weight, table, edges):
    """All regions after each other in shared arrays, and where each region ends in them."""
    guess = 512 * len(regions)  # usually enough; memory is committed only where it is written
    vertices, colours = np.empty((guess, 3), np.float32), np.empty((guess, 3), np.uint8)
    triangles = np.empty((guess, 3), np.int32)
    vertex_ends, triangle_ends = np.empty(len(regions), np.int64), np.empty(len(regions), np.int64)
    slots = np.empty((3, 3, 3), np.int32)
    values = np.empty((_CORNERS, _CORNERS, _CORNERS), np.int16)
    inside, known = np.empty((_CORNERS, _CORNERS), np.uint32), np.empty((_CORNERS, _CORNERS), np.uint32)
    active = np.empty((CELLS, CELLS), np.uint32)
    index = np.full(3 * _CORNERS**3, -1, np.int32)
    v_end = t_end = 0
    for r in range(len(regions)):
        _gather(blocks, regions[r], min_weight, slots, values, inside, known)
        number = _count(inside, known, active, table)
        if t_end + number > len(triangles):
            triangles = _grown(triangles, t_end + number)
        if v_end + 3 * number > len(vertices):
            vertices, colours = _grown(vertices, v_end + 3 * number), _grown(colours, v_end + 3 * number)
        if number:
            corner = regions[r].astype(np.int64) * CELLS
            v_end, t_end = _fill(
                blocks.colour,
                slots,
                values,
                inside,
                active,
                index,
                corner,
                voxel,
                table,
                edges,
                vertices,
                colours,
                triangles,
                v_end,
                t_end,
            )
        vertex_ends[r], triangle_ends[r] = v_end, t_end
    arrays = vertices[:v_end].copy(), colours[:v_end].copy(), triangles[:t_end].copy()
    return *arrays, vertex_ends, triangle_ends


@kernel
def _grown(array, needed):
    out = np.empty((max(needed, 2 * len(array)), array.shape[1]), array.dtype)
    out[: len(array)] = array
    return out


@kernel
def _gather(blocks, region, min_weight, slots, values, inside, known):
    """Distances of the region's 17^3 corners, and for each row along x the bits of those inside and of those known."""
    keys, places, tsdf, weight = blocks.keys, blocks.slots, blocks.tsdf, blocks.weight
    for z in range(3):
        for y in range(3):
            for x in range(3):
                slots[z, y, x] = pool.find(
                    keys, places, 2 * region[0] + x, 2 * region[1] + y, 2 * region[2] + z
                )
    for z in range(_CORNERS):
        for y in range(_CORNERS):
            inside_bits = known_bits = np.uint32(0)
            for b in range(3):
                slot = slots[z // SIDE, y // SIDE, b]
                if slot < 0:
                    continue
                first = (z % SIDE * SIDE + y % SIDE) * SIDE
                for x in range(1 if b == 2 else SIDE):
                    value = tsdf[slot, first + x]
                    bit = np.uint32(b * SIDE + x)
                    values[z, y, b * SIDE + x] = value
                    inside_bits |= np.uint32(value < 0) << bit
                    known_bits |= np.uint32(weight[slot, first + x] >= min_weight) << bit
            inside[z, y], known[z, y] = inside_bits, known_bits


@kernel
def _count(inside, known, active, table):
    """Mark the cells that the surface crosses and whose corners are all known; returns their number of triangles."""
    number = 0
    for z in range(CELLS):
        for y in range(CELLS):
            some = inside[z, y] | inside[z, y + 1] | inside[z + 1, y] | inside[z + 1, y + 1]
            every = inside[z, y] & inside[z, y + 1] & inside[z + 1, y] & inside[z + 1, y + 1]
            seen = known[z, y] & known[z, y + 1] & known[z + 1, y] & known[z + 1, y + 1]
            one = np.uint32(1)
            bits = (some | some >> one) & ~(every & every >> one) & (seen & seen >> one)
            active[z, y] = bits
            if bits == 0:
                continue
            for x in range(CELLS):
                if bits >> np.uint32(x) & one:
                    case = _case(inside, x, y, z)
                    for k in range(0, 15, 3):
                        number += table[case, k] >= 0
    return number


@kernel
def _case(inside, x, y, z):
    shift, pair = np.uint32(x), np.uint32(3)
    return (
        (inside[z, y] >> shift & pair)
        | (inside[z, y + 1] >> shift & pair) << np.uint32(2)
        | (inside[z + 1, y] >> shift & pair) << np.uint32(4)
        | (inside[z + 1, y + 1] >> shift & pair) << np.uint32(6)
    )


@kernel
def _fill(
    voxel_colours,
    slots,
    values,
    inside,
    active,
    index,
    corner,
    voxel,
    table,
    edges,
    vertices,
    colours,
    triangles,
    v_end,
    t_end,
):
    """Append the vertices and triangles of a region. `index` holds the vertex on each edge, as a running number, so it need
    not be emptied: a number below `v_end` is of another region. Unsigned numbers spare tests for negative indices."""
    v0, end = v_end, 3 * t_end
    triangles = triangles.reshape(-1)
    for z in range(CELLS):
        for y in range(CELLS):
            bits = active[z, y]
            if bits == 0:
                continue
            for x in range(CELLS):
                if not bits >> np.uint32(x) & np.uint32(1):
                    continue
                case = np.uint32(_case(inside, x, y, z))
                first = np.uint32(_edge_number(x, y, z, 0))
                for k in range(15):
                    edge = table[case, np.uint32(k)]
                    if edge < 0:
                        break
                    dx, dy, dz, axis = edges[np.uint32(edge)]
                    place = first + np.uint32(_edge_number(dx, dy, dz, axis))
                    if index[place] < v0:
                        index[place] = v_end
                        at = (
                            np.uint32(x) + np.uint32(dx),
                            np.uint32(y) + np.uint32(dy),
                            np.uint32(z) + np.uint32(dz),
                        )
                        share = _vertex(values, corner, voxel, at, axis, vertices[np.uint64(v_end)])
                        _colour(voxel_colours, slots, at, axis, share, colours[np.uint64(v_end)])
                        v_end += 1
                    triangles[np.uint64(end)] = index[place] - v0
                    end += 1
    return v_end, end // 3


@kernel
def _edge_number(x, y, z, axis):
    """Of the edge that starts at corner (x, y, z) of a region."""
    return ((z * _CORNERS + y) * _CORNERS + x) * 3 + axis


@kernel
def _vertex(values, corner, voxel, at, axis, vertex):
    """Set the position where the surface crosses the edge that starts at corner `at`; returns the fraction."""
    x, y, z = at
    low = np.float64(values[z, y, x])
    high = np.float64(values[z + (axis == 2), y + (axis == 1), x + (axis == 0)])
    # Kept off the corners: a vertex on a corner would coincide with those of the other edges there.
    share = min(max(low / (low - high), _MARGIN), 1 - _MARGIN)
    vertex[0] = (corner[0] + np.int64(x) + (share if axis == 0 else 0.0)) * voxel
    vertex[1] = (corner[1] + np.int64(y) + (share if axis == 1 else 0.0)) * voxel
    vertex[2] = (corner[2] + np.int64(z) + (share if axis == 2 else 0.0)) * voxel
    return share


@kernel
def _colour(voxel_colours, slots, at, axis, share, colour):
    """Set the colour between the two voxels of an edge."""
    x, y, z = at
    a = _voxel_colour(voxel_colours, slots, x, y, z)
    b = _voxel_colour(voxel_colours, slots, x + (axis == 0), y + (axis == 1), z + (axis == 2))
    for c in range(3):
        before, after = np.float64(a[c]), np.float64(b[c])
        colour[c] = np.uint8(before + (after - before) * share + 0.5)


@kernel
def _voxel_colour(voxel_colours, slots, x, y, z):
    """Colour of the voxel at a corner of the region."""
    side = np.uint32(SIDE)
    slot = np.uint32(slots[z // side, y // side, x // side])
    return voxel_colours[slot, (z % side * side + y % side) * side + x % side]
