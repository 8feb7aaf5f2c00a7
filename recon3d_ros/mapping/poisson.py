# SPDX-License-Identifier: Apache-2.0
"""A smooth surface through the vertices of a mesh, which closes small holes. What it invents beyond is taken away again."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from recon3d_ros.core.errors import require
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.components import without_unused
from recon3d_ros.mapping.normals import mean_edge, with_normals

#: Mean lengths of an edge of the given mesh within which one of its vertices must lie. A share of the vertices of lowest
#: density, the usual way, opens holes in a surface that is whole and leaves half of what was invented in one that is not.
_REACH = 3.0


def poisson(mesh: MeshBlock, depth: int = 8) -> MeshBlock:
    """Screened Poisson surface (Kazhdan and Hoppe 2013) through the vertices of a mesh; colours are those of the nearest
    vertex, normals are its own. depth: of the octree; each step halves the smallest detail. Raises MissingDependency
    without Open3D."""
    open3d = require("open3d", "poisson")
    given = mesh if mesh.normals is not None else with_normals(mesh)
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(given.vertices.astype(np.float64))
    cloud.normals = open3d.utility.Vector3dVector(np.asarray(given.normals, np.float64))
    surface, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth)
    vertices = np.asarray(surface.vertices, np.float32)
    triangles = np.asarray(surface.triangles, np.int32)
    distance, nearest = cKDTree(given.vertices).query(vertices)
    invented = distance > _REACH * mean_edge(given)
    triangles = triangles[~invented[triangles].any(axis=1)]
    return with_normals(without_unused(MeshBlock(mesh.id, vertices, triangles, mesh.colours[nearest])))
