# SPDX-License-Identifier: Apache-2.0
"""`recon3d mesh OUTPUT`: the mesh of a run for other programs; with normals, on wish closed, reduced, as GLB."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from recon3d_ros.core.errors import InputError

if TYPE_CHECKING:
    from recon3d_ros.runtime.mesh_file import MeshOptions


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "write the mesh of a run for other programs: with normals, closed (Poisson), with fewer triangles, as GLB"
    parser = commands.add_parser("mesh", help=text, description=text)
    parser.add_argument("output", metavar="OUTPUT", help="output folder with a mesh.ply, or a PLY file")
    parser.add_argument(
        "--simplify",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="keep this share of the triangles, such as 0.1",
    )
    parser.add_argument(
        "--poisson", action="store_true", help="close small holes by Poisson reconstruction (extra `poisson`)"
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=8,
        metavar="N",
        help="octree of --poisson; finer by one, half the detail (default: 8)",
    )
    parser.add_argument("--format", choices=("ply", "glb"), help="default: that of FILE, or ply")
    parser.add_argument(
        "-o",
        dest="file",
        metavar="FILE",
        help="default: mesh[_poisson][_simplified].FORMAT beside the mesh.ply",
    )
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Read, finish, write, and say what came out."""
    from recon3d_ros.runtime.mesh_file import finished, read_mesh, write_mesh

    options, file = _asked(args)
    start = time.monotonic()
    mesh = finished(read_mesh(args.output), options)
    write_mesh(file, mesh)
    print(
        f"{file}: {len(mesh.triangles)} triangles, {len(mesh.vertices)} vertices, {time.monotonic() - start:.1f} s"
    )
    return 0


def _asked(args: argparse.Namespace) -> tuple[MeshOptions, Path]:
    """The options and the file; raises InputError where they do not fit together."""
    from recon3d_ros.runtime.mesh_file import MeshOptions, format_of

    if not 0 < args.simplify <= 1:
        raise InputError(f"--simplify takes a share above 0 and up to 1, got {args.simplify:g}")
    if not 4 <= args.depth <= 12:
        raise InputError(f"--depth must lie in 4 .. 12, got {args.depth}")
    options = MeshOptions(args.simplify, args.poisson, args.depth, args.format or "ply")
    if args.file:
        file = Path(args.file)
        ending = format_of(file)
        if args.format and ending != args.format:
            raise InputError(f"--format {args.format} and -o {file} do not agree: leave one of them out")
        return dataclasses.replace(options, format=ending), file
    if options == MeshOptions():
        raise InputError("nothing to do: give --simplify, --poisson, --format glb, or another file with -o")
    given = Path(args.output)
    return options, (given if given.is_dir() else given.parent) / options.name
