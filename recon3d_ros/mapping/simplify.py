# SPDX-License-Identifier: Apache-2.0
"""Fewer triangles for files. Never for live regions: their borders would no longer meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d_ros.core.errors import require
from recon3d_ros.core.types import Floats, MeshBlock
from recon3d_ros.mapping.normals import area_normals

Triangles = NDArray[np.int32]


def simplified(mesh: MeshBlock, share: float) -> MeshBlock:
    """The mesh with about `share` (0..1) of its triangles, by quadric edge collapse (Garland and Heckbert 1997). Colours
    and normals are those of the nearest vertex. Raises MissingDependency without fast-simplification."""
    library = require("fast_simplification", "mesh")
    # About the middle, because a map may lie far from its origin.
    middle = mesh.vertices.mean(axis=0, dtype=np.float64).astype(np.float32)
    vertices, triangles = library.simplify(
        mesh.vertices - middle, np.ascontiguousarray(mesh.triangles, np.int32), target_reduction=1 - share
    )
    return _dressed(np.asarray(vertices, np.float32) + middle, np.asarray(triangles, np.int32), mesh)


def _dressed(vertices: Floats, triangles: Triangles, like: MeshBlock) -> MeshBlock:
    """A mesh with the colours, and the normals if there are any, of the nearest vertices of another."""
    nearest = cKDTree(like.vertices).query(vertices)[1]
    mesh = MeshBlock(like.id, vertices, triangles, like.colours[nearest])
    if like.normals is None:
        return mesh
    # On a thin wall the nearest vertex may belong to the other side.
    normals = like.normals[nearest]
    normals[np.einsum("ij,ij->i", normals, area_normals(mesh)) < 0] *= -1
    return MeshBlock(like.id, vertices, triangles, mesh.colours, normals)
