# SPDX-License-Identifier: Apache-2.0
"""What is compared with a truth: an output folder, a trajectory file, or a surface file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array, transform
from recon3d_ros.core.trajectory import Trajectory, read_tum
from recon3d_ros.evaluation.surface import Surface, cloud_surface, mesh_surface
from recon3d_ros.evaluation.thinning import thinned
from recon3d_ros.mapping.ply import load_ply
from recon3d_ros.runtime.depth_folder import SavedDepth, saved_depth


@dataclass(frozen=True, eq=False)
class Estimate:
    """surface: a PLY file of a mesh or cloud, in the map. scale_state, voxel_size (map units): from the report of the
    run; None where they are not known. elsewhere: frames in other maps, which have neither origin nor scale in common."""

    name: str
    trajectory: Trajectory | None = None
    depths: Sequence[SavedDepth] = ()
    surface: Path | None = None
    scale_state: str | None = None
    voxel_size: float | None = None
    elsewhere: int = 0


def open_estimate(name: str) -> Estimate:
    """The estimate at a path. Raises InputError, one line with the mend, for what is none."""
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.is_dir():
        return _folder(name, path)
    if path.suffix.lower() == ".ply":
        return Estimate(name, surface=path)
    return Estimate(name, trajectory=trajectory_of(path))


def trajectory_of(path: Path) -> Trajectory:
    """A TUM file with at least one pose."""
    trajectory = read_tum(path)
    if not len(trajectory):
        raise InputError(f"{path} holds no poses")
    return trajectory


def load_surface(path: Path, voxel: float, T: Array | None = None) -> Surface:
    """The surface of a PLY file, mesh or cloud (thinned to one point a voxel), moved by the similarity T. Raises
    InputError for an empty one."""
    ply = load_ply(path)
    vertices = ply.vertices if T is None else transform(T, ply.vertices)
    if len(ply.triangles):
        surface = mesh_surface(vertices, ply.triangles)
    else:
        vertices = vertices[np.isfinite(vertices).all(axis=1)]
        surface = cloud_surface(thinned(vertices, voxel), voxel).with_fewer_points()
    if not len(surface.points):
        raise InputError(f"{path} is empty: it has no triangles and no points")
    return surface


def _folder(name: str, path: Path) -> Estimate:
    surfaces = [path / file for file in ("mesh.ply", "cloud.ply") if (path / file).is_file()]
    poses = path / "trajectory.txt"
    depths = saved_depth(path)
    if not (poses.is_file() or surfaces or depths):
        raise InputError(
            f"{path} is no output folder: it has no trajectory.txt, mesh.ply or cloud.ply; write one with  recon3d run"
        )
    report = _report(path / "report.json")
    return Estimate(
        name,
        trajectory_of(poses) if poses.is_file() else None,
        depths,
        surfaces[0] if surfaces else None,
        report.get("scale_state"),
        report.get("voxel_size"),
        sum(len(read_tum(file)) for file in path.glob("trajectory_map*.txt")),
    )


def _report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): run once more") from error
