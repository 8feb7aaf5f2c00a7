# SPDX-License-Identifier: Apache-2.0
"""The connected parts of a mesh."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.jit import kernel


def remove_small_components(mesh: MeshBlock, min_triangles: int) -> MeshBlock:
    """The mesh without its connected parts of fewer than `min_triangles` triangles and without unused vertices."""
    large = _part_sizes(mesh.triangles, len(mesh.vertices)) >= min_triangles
    return without_unused(
        MeshBlock(mesh.id, mesh.vertices, mesh.triangles[large], mesh.colours, mesh.normals)
    )


def without_unused(mesh: MeshBlock) -> MeshBlock:
    """The mesh without the vertices that no triangle uses."""
    used = np.zeros(len(mesh.vertices), np.bool_)
    used[mesh.triangles] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    normals = None if mesh.normals is None else mesh.normals[used]
    return MeshBlock(
        mesh.id, mesh.vertices[used], number[mesh.triangles].astype(np.int32), mesh.colours[used], normals
    )


@kernel
def _part_sizes(triangles, count):  # type: ignore[no-untyped-def]
    """int64 [T]: number of triangles in the part to which each belongs (union-find; Tarjan 1975)."""
    parent = np.arange(count)
    for t in range(len(triangles)):
        first = _root(parent, triangles[t, 0])
        for corner in range(1, 3):
            parent[_root(parent, triangles[t, corner])] = first
    sizes = np.zeros(count, np.int64)
    for t in range(len(triangles)):
        sizes[_root(parent, triangles[t, 0])] += 1
    out = np.empty(len(triangles), np.int64)
    for t in range(len(triangles)):
        out[t] = sizes[_root(parent, triangles[t, 0])]
    return out


@kernel
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
