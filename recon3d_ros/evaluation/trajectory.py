# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors as defined by Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012:
absolute trajectory error (ATE) after alignment, and relative pose error (RPE) over a distance in frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.align import umeyama
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array, apply_similarity, inverse, rotation_angle, similarity
from recon3d_ros.core.trajectory import Trajectory


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
    """An estimate against the truth.

    pairs: poses compared. alignment: `sim3` or `se3`. scale: estimate to truth. path: length of the true path over the
    pairs, metres. ate: metres. rpe_translation: metres, rpe_rotation: degrees, between neighbouring pairs.
    T_truth_map: the similarity [4,4] that maps the estimate's map onto the truth: that of the ATE, but for a straight path:
    its centres leave the roll about it open, which its orientations then give.
    """

    pairs: int
    alignment: str
    scale: float
    path: float
    ate: Statistics
    rpe_translation: Statistics
    rpe_rotation: Statistics
    T_truth_map: Array

    @property
    def ate_percent_of_path(self) -> float:
        """RMSE of the ATE in percent of the true path."""
        return 100.0 * self.ate.rmse / self.path if self.path > 0 else float("inf")


def compare(
    estimate: Trajectory, truth: Trajectory, alignment: str, tolerance_ns: int = 20_000_000
) -> TrajectoryError:
    """Compare two trajectories: pair by nearest stamp, align by Umeyama with (`sim3`) or without (`se3`) scale.

    Raises InputError when fewer than three poses pair up or the estimate does not move.
    """
    index = truth.nearest(estimate.stamps_ns, tolerance_ns)
    paired = index >= 0
    if paired.sum() < 3:
        raise InputError(
            f"only {int(paired.sum())} of {len(estimate)} poses have a true pose within {tolerance_ns / 1e6:g} ms: "
            "do the two trajectories share a clock?"
        )
    poses, true_poses = estimate.poses[paired], truth.poses[index[paired]]
    try:
        S = umeyama(poses[:, :3, 3], true_poses[:, :3, 3], with_scale=alignment == "sim3")
    except ValueError as error:
        raise InputError(f"trajectories cannot be aligned: {error}") from error
    aligned = np.stack([apply_similarity(S, T) for T in poses])
    translation, rotation = _relative_errors(aligned, true_poses)
    return TrajectoryError(
        pairs=len(poses),
        alignment=alignment,
        scale=float(np.cbrt(np.linalg.det(S[:3, :3]))),
        path=float(np.linalg.norm(np.diff(true_poses[:, :3, 3], axis=0), axis=1).sum()),
        ate=Statistics.of(np.linalg.norm(aligned[:, :3, 3] - true_poses[:, :3, 3], axis=1)),
        rpe_translation=Statistics.of(translation),
        rpe_rotation=Statistics.of(np.degrees(rotation)),
        T_truth_map=_by_orientation(poses, true_poses, S) if _is_straight(true_poses[:, :3, 3]) else S,
    )


def _is_straight(positions: Array) -> bool:
    """True when positions [N,3] spread along one direction alone, by a tenth."""
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 0.1 * spread[0])


def _by_orientation(poses: Array, true_poses: Array, S: Array) -> Array:
    """The similarity with the scale of S, the mean rotation between the orientations, and the mean position."""
    U, _, Vt = np.linalg.svd(np.einsum("nij,nkj->ik", true_poses[:, :3, :3], poses[:, :3, :3]))
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    scale = float(np.cbrt(np.linalg.det(S[:3, :3])))
    return similarity(scale, R, true_poses[:, :3, 3].mean(axis=0) - scale * R @ poses[:, :3, 3].mean(axis=0))


def _relative_errors(estimate: Array, truth: Array) -> tuple[Array, Array]:
    """Metres and radians by which each motion from one pose to the next differs from the true one."""
    errors = [
        inverse(inverse(truth[i]) @ truth[i + 1]) @ (inverse(estimate[i]) @ estimate[i + 1])
        for i in range(len(truth) - 1)
    ]
    return np.array([np.linalg.norm(E[:3, 3]) for E in errors]), np.array(
        [rotation_angle(E[:3, :3]) for E in errors]
    )
