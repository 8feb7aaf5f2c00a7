# SPDX-License-Identifier: Apache-2.0
"""The output folder: what a run or a live node leaves behind."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.core.params import dump_yaml
from recon3d_ros.core.trajectory import Trajectory, format_tum
from recon3d_ros.core.types import Floats, Image, MeshBlock
from recon3d_ros.mapping.export import replacing, write_ply_mesh, write_ply_points
from recon3d_ros.runtime.pipeline import KeyframeRecord, Pipeline
from recon3d_ros.runtime.report import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Results:
    """All that a reconstruction came to. cloud_points float32 [N,3], cloud_colours uint8 [N,3], both in the map frame;
    mesh: None where another process holds it. All are of the map with most frames; other_maps: trajectories of those that
    could not be joined to it, by id of the map."""

    trajectory: Trajectory
    keyframes: Sequence[KeyframeRecord]
    cloud_points: Floats
    cloud_colours: Image
    mesh: MeshBlock | None
    config: Config
    report: Report
    other_maps: Mapping[int, Trajectory] = field(default_factory=dict)


def prepare_folder(folder: str | Path) -> Path:
    """Make the output folder; raises InputError when it cannot be written to, before any work is done."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to output folder {path} ({error.strerror}): give another with --out DIR"
        ) from error
    return path


def save(results: Results, folder: str | Path) -> list[str]:
    """Write every file that can be written, the small ones first; return one line for each that could not."""
    path = prepare_folder(folder)
    mesh = results.mesh
    writers: list[tuple[str, Callable[[Path], None]]] = [
        ("trajectory.txt", lambda p: write_text(p, format_tum(results.trajectory))),
        *_other_trajectories(results),
        ("keyframes.csv", lambda p: write_text(p, _keyframes_csv(results))),
        ("config.yaml", lambda p: write_text(p, dump_yaml(results.config))),
        ("report.json", lambda p: write_text(p, results.report.to_json())),
        ("report.md", lambda p: write_text(p, results.report.to_markdown())),
        ("cloud.ply", lambda p: write_ply_points(p, results.cloud_points, results.cloud_colours)),
    ]
    if mesh is not None:
        writers.append(("mesh.ply", lambda p: write_ply_mesh(p, mesh.vertices, mesh.triangles, mesh.colours)))
    failures = _remove_trajectories(path)
    for name, write in writers:
        try:
            write(path / name)
        except (OSError, ReconError) as error:
            failures.append(f"{name} not written: {error}")
            log.error("%s", failures[-1])
    return failures


def _other_trajectories(results: Results) -> list[tuple[str, Callable[[Path], None]]]:
    def writer(trajectory: Trajectory) -> Callable[[Path], None]:
        return lambda p: write_text(p, format_tum(trajectory))

    return [(f"trajectory_map{number}.txt", writer(t)) for number, t in results.other_maps.items()]


def _remove_trajectories(folder: Path) -> list[str]:
    """Those of the maps of an earlier run do not belong to this one; returns what failed."""
    failures = []
    for path in folder.glob("trajectory_map*.txt"):
        try:
            path.unlink()
        except OSError as error:
            failures.append(f"{path.name} of an earlier run not removed: {error}")
    return failures


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it, so that a reader never sees half of it."""
    with replacing(path) as file:
        file.write(text.encode())


def pipeline_report(
    pipeline: Pipeline, source: str, backend: str, peak_rss_mb: float, drops: dict[str, int]
) -> Report:
    """The report of a pipeline without a mesh; `drops` are added to those the pipeline counted."""
    frames = {number: len(indices) for number, indices in pipeline.members(pipeline.poses()).items()}
    return Report(
        source=source,
        backend=backend,
        frames=pipeline.frames,
        tracked=sum(frames.values()),
        keyframes=len(pipeline.keyframes),
        fps=round(pipeline.metrics.fps, 3),
        latency_ms=pipeline.metrics.latency,
        stage_ms=pipeline.metrics.stages,
        peak_rss_mb=round(peak_rss_mb, 1),
        scale_state=pipeline.scale.value,
        gravity_state=pipeline.gravity.value,
        points=len(pipeline.cloud.points),
        triangles=0,
        voxel_size=0.0,
        drops={k: n for k, n in (pipeline.metrics.drops + type(pipeline.metrics.drops)(drops)).items() if n},
        backend_statistics=pipeline.reconstructor.statistics(),
        maps={str(number): n for number, n in sorted(frames.items())},
    )


def pipeline_results(pipeline: Pipeline, report: Report) -> Results:
    """What a pipeline came to, without a mesh. It may go on meanwhile."""
    (number, trajectory), *others = pipeline.trajectories().items()
    cloud = pipeline.maps.clouds.get(number, pipeline.cloud)
    poses = pipeline.poses()
    here = {i: poses[i][:3, 3] for i in pipeline.members(poses).get(number, ())}
    records = [dataclasses.replace(r, position=here.get(r.id)) for r in pipeline.keyframes.values()]
    points, colours, config = cloud.points, cloud.colours, pipeline.config
    return Results(trajectory, records, points, colours, None, config, report, dict(others))


def _keyframes_csv(results: Results) -> str:
    rows = ["id,stamp_ns,reason,points,x,y,z"]
    for k in results.keyframes:
        position = ",," if k.position is None else ",".join(f"{v:.6g}" for v in k.position)
        rows.append(f"{k.id},{k.stamp_ns},{k.reason},{k.points},{position}")
    return "\n".join(rows) + "\n"
