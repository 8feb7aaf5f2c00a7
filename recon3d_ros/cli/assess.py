# SPDX-License-Identifier: Apache-2.0
"""Adds to a report what can be said where the truth is known."""

from __future__ import annotations

import dataclasses
import logging

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import transform
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, MeshBlock
from recon3d_ros.evaluation.surface import Distances, sample_surface
from recon3d_ros.evaluation.trajectory import TrajectoryError, alignment_for, compare
from recon3d_ros.runtime.report import Report

log = logging.getLogger(__name__)


def assess(
    report: Report,
    trajectory: Trajectory,
    mesh: MeshBlock | None,
    truth: Trajectory | None,
    distance: Distance | None = None,
) -> Report:
    """The report with the errors of trajectory and, where the true surface is known (`distance`), of the mesh. A map of
    unknown scale is aligned with scale (Sim3), any other without (SE3)."""
    if truth is None:
        return report
    try:
        error = compare(trajectory, truth, alignment_for(report.scale_state))
    except InputError as problem:
        log.warning("no comparison with the truth: %s", problem)
        return report
    rpe_m, rpe_deg = error.rpe_translation, error.rpe_rotation
    report = dataclasses.replace(
        report,
        alignment=error.alignment,
        truth_path_m=error.path,
        ate_m=error.ate.rmse,
        ate_percent_of_path=error.ate_percent_of_path,
        rpe_m=rpe_m.rmse if rpe_m is not None else None,
        rpe_deg=rpe_deg.rmse if rpe_deg is not None else None,
        voxel_m=report.voxel_size * error.scale,
    )
    return report if mesh is None or distance is None else _with_surface(report, mesh, error, distance)


def _with_surface(report: Report, mesh: MeshBlock, error: TrajectoryError, distance: Distance) -> Report:
    samples = sample_surface(mesh.vertices, mesh.triangles)
    if not len(samples) or not report.voxel_m:
        return report
    accuracy = Distances.of(distance(transform(error.T_truth_map, samples)))
    return dataclasses.replace(
        report,
        surface_median_m=accuracy.median,
        surface_p90_m=accuracy.p90,
        surface_median_voxels=accuracy.median / report.voxel_m,
    )
