# SPDX-License-Identifier: Apache-2.0
"""A mesh as somebody wants to have it: closed, reduced, with normals, in the format that the next program opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.export import write_ply_mesh
from recon3d_ros.mapping.glb import write_glb
from recon3d_ros.mapping.normals import with_normals
from recon3d_ros.mapping.ply import read_ply
from recon3d_ros.mapping.poisson import poisson
from recon3d_ros.mapping.simplify import simplified

#: Endings of the files that `write_mesh` writes.
FORMATS = ("ply", "glb")


@dataclass(frozen=True)
class MeshOptions:
    """What is done to a mesh before it is written. simplify: share of the triangles that is kept. poisson: close holes.
    depth: of the octree of that. format: of the file."""

    simplify: float = 1.0
    poisson: bool = False
    depth: int = 8
    format: str = "ply"

    @property
    def name(self) -> str:
        """Name of the file: the plain mesh.ply of a run is never overwritten by another surface."""
        kind = "_poisson" * self.poisson + "_simplified" * (self.simplify < 1)
        return f"mesh{kind}.{self.format}"


def read_mesh(path: str | Path) -> MeshBlock:
    """The mesh of a PLY file, or the mesh.ply of an output folder. Raises InputError when there is none."""
    path = Path(path)
    path = path / "mesh.ply" if path.is_dir() else path
    vertices, colours, triangles = read_ply(path)
    if not len(triangles):
        raise InputError(f"{path} has no triangles: give an output folder of `recon3d run`, or a mesh as PLY")
    return MeshBlock((0, 0, 0), vertices, triangles, colours)


def finished(mesh: MeshBlock, options: MeshOptions) -> MeshBlock:
    """The mesh with normals, after what the options ask for. Raises MissingDependency where that needs an extra."""
    if options.poisson:
        mesh = poisson(mesh, options.depth)
    mesh = with_normals(mesh)
    return simplified(mesh, options.simplify) if options.simplify < 1 else mesh


def format_of(path: str | Path) -> str:
    """`ply` or `glb`, by the ending of the name. Raises InputError for another one."""
    ending = Path(path).suffix[1:].lower()
    if ending not in FORMATS:
        raise InputError(f"cannot write {path}: the name must end in .ply or .glb")
    return ending


def write_mesh(path: str | Path, mesh: MeshBlock) -> None:
    """Write a mesh in the format that the name says. Raises InputError when the file cannot be written."""
    if format_of(path) == "glb":
        write_glb(path, mesh)
    else:
        write_ply_mesh(path, mesh.vertices, mesh.triangles, mesh.colours, mesh.normals)
