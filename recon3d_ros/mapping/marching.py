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
_LOWER = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.int32)

_REACH = np.array([(x, y, z) for x in range(3) for y in range(3) for z in range(3)], dtype=np.int32)


def regions_of(blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [m,3] of the regions that hold the given blocks [n,3]."""
    return pool.unique_rows(blocks >> 1)


def regions_meeting(blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [m,3] of the regions whose triangles depend on the given blocks: the cells of a block reach into its
    seven upper neighbours, so a change also concerns the seven lower ones."""
    return pool.unique_rows((blocks[:, None, :] - _LOWER).reshape(-1, 3) >> 1)


def blocks_of(regions: NDArray[np.int32]) -> NDArray[np.int32]:
    """Coordinates [n,3] of all blocks that the triangles of regions [m,3] depend on."""
    return pool.unique_rows((2 * regions[:, None, :] + _REACH).reshape(-1, 3))


def extract(
    blocks: Blocks, regions: NDArray[np.int32], voxel_size: float, min_weight: int
) -> list[MeshBlock]:
    """The triangles of each region, in the given order, with no vertex twice inside one.

    min_weight: fixed-point weight below which a voxel is unknown; a cell with an unknown corner has no triangles."""
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
    index = np.full((_CORNERS, _CORNERS, _CORNERS, 3), -1, np.int32)
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
    return (
        vertices[:v_end].copy(),
        colours[:v_end].copy(),
        triangles[:t_end].copy(),
        vertex_ends,
        triangle_ends,
    )


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
    """Write the triangles of one region. `index` keeps the vertex of each edge; numbers below v0 are of earlier regions."""
    v0 = v_end
    for z in range(CELLS):
        for y in range(CELLS):
            bits = active[z, y]
            if bits == 0:
                continue
            for x in range(CELLS):
                if not bits >> np.uint32(x) & np.uint32(1):
                    continue
                case = _case(inside, x, y, z)
                for k in range(15):
                    edge = table[case, k]
                    if edge < 0:
                        break
                    ex, ey, ez, axis = (
                        x + edges[edge, 0],
                        y + edges[edge, 1],
                        z + edges[edge, 2],
                        edges[edge, 3],
                    )
                    if index[ez, ey, ex, axis] < v0:
                        index[ez, ey, ex, axis] = v_end
                        share = _vertex(values, corner, voxel, ex, ey, ez, axis, vertices[v_end])
                        _colour(voxel_colours, slots, ex, ey, ez, axis, share, colours[v_end])
                        v_end += 1
                    triangles[t_end + k // 3, k % 3] = index[ez, ey, ex, axis] - v0
                    if k % 3 == 2 and (k == 14 or table[case, k + 1] < 0):
                        t_end += k // 3 + 1
    return v_end, t_end


@kernel
def _vertex(values, corner, voxel, x, y, z, axis, vertex):
    """Set the position where the surface crosses the edge that starts at corner (x, y, z); returns the fraction."""
    low = np.float64(values[z, y, x])
    high = np.float64(values[z + (axis == 2), y + (axis == 1), x + (axis == 0)])
    # Kept off the corners: a vertex on a corner would coincide with those of the other edges there.
    share = min(max(low / (low - high), _MARGIN), 1 - _MARGIN)
    vertex[0] = (corner[0] + x + (share if axis == 0 else 0.0)) * voxel
    vertex[1] = (corner[1] + y + (share if axis == 1 else 0.0)) * voxel
    vertex[2] = (corner[2] + z + (share if axis == 2 else 0.0)) * voxel
    return share


@kernel
def _colour(voxel_colours, slots, x, y, z, axis, share, colour):
    """Set the colour between the two voxels of an edge."""
    ux, uy, uz = x + (axis == 0), y + (axis == 1), z + (axis == 2)
    slot_a, slot_b = slots[z // SIDE, y // SIDE, x // SIDE], slots[uz // SIDE, uy // SIDE, ux // SIDE]
    a = (z % SIDE * SIDE + y % SIDE) * SIDE + x % SIDE
    b = (uz % SIDE * SIDE + uy % SIDE) * SIDE + ux % SIDE
    for c in range(3):
        before, after = np.float64(voxel_colours[slot_a, a, c]), np.float64(voxel_colours[slot_b, b, c])
        colour[c] = np.uint8(before + (after - before) * share + 0.5)
