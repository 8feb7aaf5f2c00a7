# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors. Absolute trajectory error (ATE) after alignment and relative pose error (RPE) over a distance as in
Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012. Rotations are scored between pairs of
poses: after straight motion the alignment of positions leaves the roll about the path open, so that a rotation error after
alignment says nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.align import umeyama
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array, apply_similarity, rotation_angles, scale_of, similarity
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Scale
from recon3d_ros.evaluation.pairs import Delta, all_pairs, associate, relative

#: With scale, without scale, as the estimate stands.
ALIGNMENTS = ("sim3", "se3", "none")


@dataclass(frozen=True)
class Statistics:
    """Of a list of errors."""

    rmse: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, errors: Array) -> Statistics:
        """Statistics of errors [N]; raises ValueError when there is none."""
        if not len(errors):
            raise ValueError("no errors to summarise")
        return cls(
            float(np.sqrt((errors**2).mean())),
            float(errors.mean()),
            float(np.median(errors)),
            float(errors.max()),
        )


@dataclass(frozen=True)
class TrajectoryError:
    """An estimate against the truth; lengths in the unit of the truth, metres.

    pairs: poses compared. frames: of the recording (of the truth, where that is not known), covered: of them with an
    estimated pose. alignment: `sim3`, `se3` or `none`; scale: estimate to truth, in it; scale_found: what a Sim3 alignment
    finds, None where it is not defined. path: length of the true path over the pairs. spread: RMS distance of the true
    positions from their mean, which is the ATE of an estimate that never moves. ate: of positions after alignment.
    rpe_translation (metres), rpe_rotation (degrees): of the motion over `delta`, None where no two poses are that far
    apart. relative_rotation: degrees, of the rotation between any two poses, however far apart; no alignment enters.
    T_truth_map: the similarity [4,4] that maps the estimate's map onto the truth: that of the ATE, but for a straight path:
    its centres leave the roll about it open, which its orientations then give.
    """

    pairs: int
    frames: int
    covered: int
    alignment: str
    scale: float
    scale_found: float | None
    path: float
    spread: float
    ate: Statistics
    delta: str
    rpe_translation: Statistics | None
    rpe_rotation: Statistics | None
    relative_rotation: Statistics
    T_truth_map: Array

    @property
    def ate_percent_of_path(self) -> float:
        """RMSE of the ATE in percent of the true path."""
        return 100.0 * self.ate.rmse / self.path if self.path > 0 else float("inf")

    @property
    def coverage(self) -> float:
        """Share of the frames that have an estimated pose."""
        return self.covered / self.frames if self.frames else 0.0


def alignment_for(scale_state: str | None) -> str:
    """The alignment that a map of this scale state may ask for: with scale where its unit is arbitrary or not known."""
    return "se3" if scale_state in (Scale.PRIOR.value, Scale.SENSOR.value) else "sim3"


def compare(
    estimate: Trajectory,
    truth: Trajectory,
    alignment: str,
    tolerance_ns: int = 20_000_000,
    delta: Delta | None = None,
    frames_ns: NDArray[np.int64] | None = None,
) -> TrajectoryError:
    """Compare two trajectories: pair by nearest stamp, align by Umeyama with (`sim3`) or without (`se3`) scale, or take
    the estimate as it stands (`none`). delta: of the RPE, one frame if not given. frames_ns [F]: stamps of the recording,
    for the coverage.

    Raises InputError when fewer than three poses pair up or the estimate does not move.
    """
    delta = delta or Delta()
    mine, theirs = associate(estimate.stamps_ns, truth, tolerance_ns)
    if len(mine) < 3:
        raise InputError(
            f"only {len(mine)} of {len(estimate)} poses have a true pose within {tolerance_ns / 1e6:g} ms: "
            "do the two trajectories share a clock?"
        )
    poses, true_poses, stamps = estimate.poses[mine], truth.poses[theirs], truth.stamps_ns[theirs]
    S, scale_found = _align(poses[:, :3, 3], true_poses[:, :3, 3], alignment)
    aligned = np.stack([apply_similarity(S, T) for T in poses])
    ends = delta.pairs(true_poses[:, :3, 3], stamps)
    translation, rotation = _relative_errors(aligned, true_poses, *ends)
    frames, covered = _covered(estimate, frames_ns, len(truth), len(mine), tolerance_ns)
    straight = alignment != "none" and _is_straight(true_poses[:, :3, 3])
    return TrajectoryError(
        pairs=len(poses),
        frames=frames,
        covered=covered,
        alignment=alignment,
        scale=scale_of(S),
        scale_found=scale_found,
        path=float(np.linalg.norm(np.diff(true_poses[:, :3, 3], axis=0), axis=1).sum()),
        spread=float(np.linalg.norm(true_poses[:, :3, 3].std(axis=0))),
        ate=Statistics.of(np.linalg.norm(aligned[:, :3, 3] - true_poses[:, :3, 3], axis=1)),
        delta=str(delta),
        rpe_translation=Statistics.of(translation) if len(translation) else None,
        rpe_rotation=Statistics.of(np.degrees(rotation)) if len(rotation) else None,
        relative_rotation=Statistics.of(
            np.degrees(_relative_errors(poses, true_poses, *all_pairs(len(poses)))[1])
        ),
        T_truth_map=_by_orientation(poses, true_poses, S) if straight else S,
    )


def _align(positions: Array, true_positions: Array, alignment: str) -> tuple[Array, float | None]:
    """The similarity of an alignment, and the scale that a Sim3 alignment finds."""
    if alignment not in ALIGNMENTS:
        raise InputError(f"unknown alignment '{alignment}': use one of {', '.join(ALIGNMENTS)}")
    try:
        free = umeyama(positions, true_positions, with_scale=True)
    except ValueError as error:
        if alignment == "none":
            return np.eye(4), None
        raise InputError(f"trajectories cannot be aligned: {error}") from error
    scale = scale_of(free)
    if alignment == "sim3":
        return free, scale
    return umeyama(positions, true_positions, with_scale=False) if alignment == "se3" else np.eye(4), scale


def _covered(
    estimate: Trajectory,
    frames_ns: NDArray[np.int64] | None,
    truth: int,
    pairs: int,
    tolerance_ns: int,
) -> tuple[int, int]:
    """Frames, and of them those with a pose; where the frames are not known the true poses stand for them."""
    if frames_ns is None:
        return truth, pairs
    frames = Trajectory(frames_ns, np.tile(np.eye(4), (len(frames_ns), 1, 1)))
    return len(frames), len(associate(estimate.stamps_ns, frames, tolerance_ns)[0])


def _is_straight(positions: Array) -> bool:
    """True when positions [N,3] spread along one direction alone, by a tenth."""
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 0.1 * spread[0])


def _by_orientation(poses: Array, true_poses: Array, S: Array) -> Array:
    """The similarity with the scale of S, the mean rotation between the orientations, and the mean position."""
    U, _, Vt = np.linalg.svd(np.einsum("nij,nkj->ik", true_poses[:, :3, :3], poses[:, :3, :3]))
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    scale = scale_of(S)
    return similarity(scale, R, true_poses[:, :3, 3].mean(axis=0) - scale * R @ poses[:, :3, 3].mean(axis=0))


def _relative_errors(
    estimate: Array, truth: Array, start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Metres and radians [P] by which the motions from poses `start` to poses `end` [P] differ from the true ones."""
    mine, true = relative(estimate[start], estimate[end]), relative(truth[start], truth[end])
    error = relative(true, mine)
    return np.linalg.norm(error[:, :3, 3], axis=1), rotation_angles(error[:, :3, :3])
