# SPDX-License-Identifier: Apache-2.0
"""Adds to a report what can be said where the truth is known."""

from __future__ import annotations

import dataclasses
import logging

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, MeshBlock, Scale
from recon3d_ros.evaluation.surface import surface_error
from recon3d_ros.evaluation.trajectory import TrajectoryError, compare
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
    arbitrary = (Scale.UNKNOWN.value, Scale.LEARNED.value)
    alignment = "sim3" if report.scale_state in arbitrary else "se3"
    try:
        error = compare(trajectory, truth, alignment)
    except InputError as problem:
        log.warning("no comparison with the truth: %s", problem)
        return report
    report = dataclasses.replace(
        report,
        alignment=alignment,
        truth_path_m=error.path,
        ate_m=error.ate.rmse,
        ate_percent_of_path=error.ate_percent_of_path,
        rpe_m=error.rpe_translation.rmse,
        rpe_deg=error.rpe_rotation.rmse,
        voxel_m=report.voxel_size * error.scale,
    )
    return report if mesh is None or distance is None else _with_surface(report, mesh, error, distance)


def _with_surface(report: Report, mesh: MeshBlock, error: TrajectoryError, distance: Distance) -> Report:
    surface = surface_error(mesh, error.T_truth_map, distance)
    if surface is None or not report.voxel_m:
        return report
    return dataclasses.replace(
        report,
        surface_median_m=surface.median,
        surface_p90_m=surface.p90,
        surface_median_voxels=surface.median / report.voxel_m,
    )
