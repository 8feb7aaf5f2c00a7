# SPDX-License-Identifier: Apache-2.0
"""Reads an output folder back: what another process saved."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from recon3d_ros.core.errors import ReconError
from recon3d_ros.core.trajectory import Trajectory, read_tum
from recon3d_ros.core.types import Floats, Image, MeshBlock
from recon3d_ros.mapping.ply import read_ply
from recon3d_ros.runtime.metrics import Percentiles
from recon3d_ros.runtime.report import Report


@dataclass(frozen=True, eq=False)
class Saved:
    """An output folder. cloud: points float32 [N,3] and colours uint8 [N,3] in the map. mesh: None if there is none."""

    report: Report
    trajectory: Trajectory
    cloud: tuple[Floats, Image]
    mesh: MeshBlock | None


def load(folder: Path) -> Saved:
    """Read what `runtime.results.save` wrote. Raises ReconError for what is missing or damaged."""
    points, colours, _ = read_ply(folder / "cloud.ply")
    mesh = None
    if (folder / "mesh.ply").is_file():
        vertices, vertex_colours, triangles = read_ply(folder / "mesh.ply")
        mesh = MeshBlock((0, 0, 0), vertices, triangles, vertex_colours)
    return Saved(
        _report(folder / "report.json"), read_tum(folder / "trajectory.txt"), (points, colours), mesh
    )


def _report(path: Path) -> Report:
    try:
        values = json.loads(path.read_text())
        values["latency_ms"] = Percentiles(**values["latency_ms"])
        values["stage_ms"] = {name: Percentiles(**p) for name, p in values["stage_ms"].items()}
        known = {field.name for field in dataclasses.fields(Report)}
        return Report(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReconError(f"{path} is missing or damaged: {error}") from error
