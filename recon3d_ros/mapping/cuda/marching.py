# SPDX-License-Identifier: Apache-2.0
"""The extraction of mapping/marching.py on a GPU: count, running sums, fill."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.cuda.device import Device, run
from recon3d_ros.mapping.cuda.memory import DevicePool
from recon3d_ros.mapping.tables import EDGES, TRIANGLES

_CELLS = 16**3
_EDGES = 3 * 17**3
_BATCH = 512  # regions at once: they need 50 MB beside their triangles


class Extractor:
    """Marching cubes on a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._table = device.put(TRIANGLES, np.int8)
        self._edges = device.put(EDGES, np.int32)

    def extract(
        self, pool: DevicePool, regions: NDArray[np.int32], voxel_size: float, min_weight: int
    ) -> list[MeshBlock]:
        """As `marching.extract`."""
        out: list[MeshBlock] = []
        for first in range(0, len(regions), _BATCH):
            out += self._extract(pool, regions[first : first + _BATCH], voxel_size, min_weight)
        return out

    def _extract(
        self, pool: DevicePool, regions: NDArray[np.int32], voxel_size: float, min_weight: int
    ) -> list[MeshBlock]:
        device, xp, number = self._device, self._device.xp, np.int32(len(regions))
        cells, corners = len(regions) * _CELLS, len(regions) * _EDGES
        places = device.put(regions, np.int32)
        around = xp.empty((number, 27), np.int32)
        pool.launch("find_around", len(regions) * 27, places, number, around)
        cases, triangles = xp.zeros(cells, np.uint8), xp.zeros(cells, np.uint8)
        crossed = xp.zeros(corners, np.bool_)
        found = (self._table, self._edges, cases, triangles, crossed)
        pool.launch("count", cells, around, number, np.int32(min_weight), *found)
        triangle_ends, vertex_ends = xp.cumsum(triangles, dtype=np.int32), xp.cumsum(crossed, dtype=np.int32)
        ends = device.get(vertex_ends[_EDGES - 1 :: _EDGES]), device.get(triangle_ends[_CELLS - 1 :: _CELLS])
        positions, colours = xp.empty((ends[0][-1], 3), np.float32), xp.empty((ends[0][-1], 3), np.uint8)
        surface = (crossed, vertex_ends, np.float64(voxel_size), positions, colours)
        pool.launch("fill_vertices", corners, around, places, number, *surface)
        numbers = xp.empty((ends[1][-1], 3), np.int32)
        counted = (cases, triangles, triangle_ends, vertex_ends, self._table, self._edges)
        run(device, "fill_triangles", cells, number, *counted, numbers)
        arrays = device.get(positions), device.get(numbers), device.get(colours)
        return _split(regions, arrays, ends)


def _split(
    regions: NDArray[np.int32], arrays: tuple[NDArray[Any], ...], ends: tuple[NDArray[np.int32], ...]
) -> list[MeshBlock]:
    """Each region's part of the vertices, triangles and colours; ends: of each region in vertices and triangles."""
    vertices, triangles, colours = arrays
    out = []
    v0 = t0 = 0
    for region, v1, t1 in zip(regions.tolist(), *(end.tolist() for end in ends), strict=True):
        out.append(MeshBlock(tuple(region), vertices[v0:v1], triangles[t0:t1], colours[v0:v1]))
        v0, t0 = v1, t1
    return out
