# SPDX-License-Identifier: Apache-2.0
"""Normals of a mesh for files; the live markers carry none."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d_ros.core.types import Floats, MeshBlock

#: Neighbours, the point itself among them, that a plane is laid through.
NEIGHBOURS = 30

#: Mean lengths of an edge beyond which a vertex is no neighbour: a little more than thirty of a flat mesh need.
_RADIUS = 6.0

_CHUNK = 20_000  # points at a time, which bounds the memory


def with_normals(mesh: MeshBlock) -> MeshBlock:
    """The mesh with a normal at each vertex: across its neighbours, on the side from which the surface was seen. That is
    the front of its triangles, because the distance field is positive towards the camera."""
    if not len(mesh.triangles):
        return dataclasses.replace(mesh, normals=np.zeros_like(mesh.vertices))
    front = area_normals(mesh)
    radius = _RADIUS * mean_edge(mesh)
    return dataclasses.replace(mesh, normals=pca_normals(mesh.vertices, front, radius))


def pca_normals(points: Floats, towards: Floats, radius: float, neighbours: int = NEIGHBOURS) -> Floats:
    """Unit normals float32 [N,3] of points [N,3]: the direction in which the nearest `neighbours` within `radius` spread
    least (Hoppe et al. 1992), turned to the side of `towards` [N,3], such as the camera that saw the point less the point.
    Where fewer than three are near enough, `towards` itself."""
    tree = cKDTree(points)
    out = np.empty(points.shape, np.float32)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        _, near = tree.query(points[part], k=neighbours, distance_upper_bound=radius)
        out[part] = _least_spread(points, near, towards[part])
    return out


def area_normals(mesh: MeshBlock) -> Floats:
    """Unit normals float32 [V,3]: the mean of the triangles at a vertex, weighted by their area; zero at one without."""
    corners = mesh.vertices[mesh.triangles].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count, flat = len(mesh.vertices), mesh.triangles.ravel()
    weights = np.repeat(across, 3, axis=0).T
    return _unit(np.stack([np.bincount(flat, w, minlength=count) for w in weights], axis=1))


def mean_edge(mesh: MeshBlock) -> float:
    """Mean length of the edges of the triangles."""
    a, b, c = (mesh.vertices[corner] for corner in mesh.triangles.T)
    return float(np.mean([np.linalg.norm(p - q, axis=1).mean() for p, q in ((a, b), (b, c), (c, a))]))


def _least_spread(points: Floats, near: NDArray[np.int64], towards: Floats) -> Floats:
    """near: indices [n,k], `len(points)` where there is no further neighbour."""
    known = near < len(points)
    number = np.maximum(known.sum(axis=1), 1)
    local = points[np.where(known, near, near[:, :1])].astype(np.float64)
    local -= local[:, :1].copy()  # near zero, so that nothing is lost far from the origin
    weight = known[..., None]
    local = (local - (local * weight).sum(axis=1, keepdims=True) / number[:, None, None]) * weight
    normals = np.linalg.eigh(local.transpose(0, 2, 1) @ local)[1][:, :, 0]
    normals[np.einsum("ij,ij->i", normals, towards) < 0] *= -1
    return np.where(number[:, None] >= 3, normals, _unit(towards)).astype(np.float32)


def _unit(vectors: NDArray) -> Floats:  # type: ignore[type-arg]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)
