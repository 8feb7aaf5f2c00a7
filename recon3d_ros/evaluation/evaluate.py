# SPDX-License-Identifier: Apache-2.0
"""An estimate against a truth: what both have is compared, the rest is said in a line each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array, scale_of
from recon3d_ros.evaluation.depth import DepthError, depth_error, keyframe_depth
from recon3d_ros.evaluation.estimate import Estimate, load_surface
from recon3d_ros.evaluation.pairs import Delta
from recon3d_ros.evaluation.report import Evaluation
from recon3d_ros.evaluation.surface import Surface, SurfaceError, cloud_surface, surface_error
from recon3d_ros.evaluation.trajectory import TrajectoryError, alignment_for, compare
from recon3d_ros.evaluation.truth import Truth
from recon3d_ros.evaluation.views import fused, seen
from recon3d_ros.runtime.depth_folder import SavedDepth

#: Where neither a threshold nor the voxel of the mesh is known, metres.
_THRESHOLD = 0.05
#: Points of a surface are this share of the threshold apart.
_SPACING = 0.25
#: A place this many thresholds behind what the truth saw may hold anything.
_BEHIND = 5.0


@dataclass(frozen=True)
class Options:
    """alignment: `auto` or one of `trajectory.ALIGNMENTS`. tolerance_ns: of stamps that belong together. delta: of the RPE.
    depth_scale: `auto` or one of `depth.SCALINGS`. threshold: of the F-score, metres of the truth; None: two voxels of the
    mesh, or 5 cm. max_depth: true depth beyond it, metres, is left out, and with it the space there."""

    alignment: str = "auto"
    tolerance_ns: int = 20_000_000
    delta: Delta = field(default_factory=Delta)
    depth_scale: str = "auto"
    threshold: float | None = None
    max_depth: float = np.inf


def evaluate(estimate: Estimate, truth: Truth, options: Options) -> Evaluation:
    """Compare all that both have. Raises InputError when that is nothing, or when the trajectories share no time."""
    notes: list[str] = []
    trajectory = _trajectory(estimate, truth, options, notes)
    depth = _depth(estimate, truth, options, trajectory, notes)
    surface = _surface(estimate, truth, options, trajectory, notes)
    if trajectory is None and depth is None and surface is None:
        raise InputError(f"nothing to compare: {'; '.join(notes) or 'the two have nothing in common'}")
    return Evaluation(estimate.name, truth.name, trajectory, depth, surface, tuple(notes))


def _trajectory(
    estimate: Estimate, truth: Truth, options: Options, notes: list[str]
) -> TrajectoryError | None:
    if estimate.trajectory is None or truth.trajectory is None:
        lacking = estimate.name if estimate.trajectory is None else truth.name
        if estimate.trajectory is not None or truth.trajectory is not None:
            notes.append(f"trajectory not compared: {lacking} has no poses")
        return None
    if estimate.elsewhere:
        notes.append(f"{estimate.elsewhere} frames in other maps not compared: only the largest map is")
    alignment = alignment_for(estimate.scale_state) if options.alignment == "auto" else options.alignment
    return compare(
        estimate.trajectory, truth.trajectory, alignment, options.tolerance_ns, options.delta, truth.frames_ns
    )


def _depth(
    estimate: Estimate, truth: Truth, options: Options, trajectory: TrajectoryError | None, notes: list[str]
) -> DepthError | None:
    if not estimate.depths or truth.views is None:
        if truth.views is not None:
            notes.append(
                f"depth not compared: {estimate.name} has no folder depth/ (recon3d run --save-depth)"
            )
        elif estimate.depths:
            notes.append(f"depth not compared: {truth.name} has no depth images with a camera")
        return None
    compared = []
    for saved in _of_the_map(estimate):
        true = truth.views.at(saved.stamp_ns, saved.camera, options.tolerance_ns)
        if true is not None:
            compared.append(keyframe_depth(saved.read(), np.where(true <= options.max_depth, true, np.nan)))
    scaling, scale = options.depth_scale, 1.0 if trajectory is None else trajectory.scale
    if scaling == "auto":
        scaling = "median" if trajectory is None or trajectory.alignment == "sim3" else "none"
    error = depth_error(compared, scaling, scale)
    if error is None:
        notes.append(
            f"depth not compared: no keyframe has true depth within {options.tolerance_ns / 1e6:g} ms"
        )
    return error


def _of_the_map(estimate: Estimate) -> list[SavedDepth]:
    """The depth images of keyframes that the trajectory holds: those of other maps have another scale."""
    if estimate.trajectory is None:
        return list(estimate.depths)
    stamps = set(estimate.trajectory.stamps_ns.tolist())
    return [saved for saved in estimate.depths if saved.stamp_ns in stamps]


def _surface(
    estimate: Estimate, truth: Truth, options: Options, trajectory: TrajectoryError | None, notes: list[str]
) -> SurfaceError | None:
    known = truth.surface is not None or (truth.views is not None and truth.trajectory is not None)
    if estimate.surface is None or not known:
        if estimate.surface is not None:
            notes.append(f"surface not compared: {truth.name} has neither a surface nor depth images")
        elif known:
            notes.append(f"surface not compared: {estimate.name} has none")
        return None
    if trajectory is None:
        notes.append("surface compared as it stands: without two trajectories it cannot be aligned")
    T = np.eye(4) if trajectory is None else trajectory.T_truth_map
    threshold = options.threshold or _threshold(estimate.voxel_size, T)
    mine = load_surface(estimate.surface, _SPACING * threshold, T)
    true = _true_surface(truth, _SPACING * threshold, options.max_depth)
    counts = None
    everywhere = truth.surface is not None or truth.distance is not None
    if truth.views is not None and not (everywhere and np.isinf(options.max_depth)):
        counts = seen(mine.points, truth.views, _BEHIND * threshold, options.max_depth)
    error = surface_error(mine, true, threshold, counts)
    if error is None:
        notes.append("surface not compared: no part of it lies where the truth has looked")
    return error


def _threshold(voxel_size: float | None, T_truth_map: Array) -> float:
    scale = scale_of(T_truth_map)
    return 2 * scale * voxel_size if voxel_size else _THRESHOLD


def _true_surface(truth: Truth, voxel: float, max_depth: float) -> Surface:
    """That of the truth's file, or of its depth images made a cloud."""
    if truth.surface is not None:
        return load_surface(truth.surface, voxel)
    assert truth.views is not None
    points = fused(truth.views, voxel, max_depth)
    surface = cloud_surface(points, voxel) if truth.distance is None else Surface(points, truth.distance)
    return surface.with_fewer_points()
