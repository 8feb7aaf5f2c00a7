# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors, held against evo where it is installed."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import apply_similarity, se3_exp, similarity
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.evaluation.trajectory import compare


def walk(n=60, seed=0):
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(n - 1):
        poses.append(poses[-1] @ se3_exp(np.concatenate([[0.1, 0.02, 0.3], 0.05 * rng.normal(size=3)])))
    return Trajectory(np.arange(n, dtype=np.int64) * 100_000_000, np.array(poses))


def noisy(trajectory, sigma, seed=1):
    rng = np.random.default_rng(seed)
    return Trajectory(
        trajectory.stamps_ns, np.array([T @ se3_exp(sigma * rng.normal(size=6)) for T in trajectory.poses])
    )


def test_a_trajectory_in_another_frame_and_scale_has_no_error_after_sim3():
    truth = walk()
    S = similarity(0.2, se3_exp(np.array([0, 0, 0, 1.0, -0.5, 0.2]))[:3, :3], np.array([4.0, 5, 6]))
    estimate = Trajectory(truth.stamps_ns, np.array([apply_similarity(S, T) for T in truth.poses]))
    error = compare(estimate, truth, "sim3")
    assert error.ate.rmse < 1e-9 and error.rpe_rotation.max < 1e-6 and error.scale == pytest.approx(5.0)
    assert compare(estimate, truth, "se3").ate.rmse > 0.5


def test_errors_equal_those_of_evo():
    pytest.importorskip("evo")
    from evo.core import metrics, trajectory

    truth, estimate = walk(), noisy(walk(), 0.02)
    ours = compare(estimate, truth, "sim3")
    a, b = (
        trajectory.PoseTrajectory3D(poses_se3=list(t.poses), timestamps=t.stamps_ns * 1e-9)
        for t in (truth, estimate)
    )
    b.align(a, correct_scale=True)
    ate = metrics.APE(metrics.PoseRelation.translation_part)
    ate.process_data((a, b))
    assert ours.ate.rmse == pytest.approx(ate.get_statistic(metrics.StatisticsType.rmse), rel=1e-9)
    for relation, value in (
        (metrics.PoseRelation.translation_part, ours.rpe_translation),
        (metrics.PoseRelation.rotation_angle_deg, ours.rpe_rotation),
    ):
        rpe = metrics.RPE(relation, delta=1, delta_unit=metrics.Unit.frames)
        rpe.process_data((a, b))
        assert value.rmse == pytest.approx(rpe.get_statistic(metrics.StatisticsType.rmse), rel=1e-7)


def test_a_straight_path_is_brought_to_the_truth_by_its_orientations():
    poses = np.array([se3_exp(np.array([0, 0, 0.3 * i, 0, 0, 0])) for i in range(20)])
    poses[:, :2, 3] += 0.001 * np.random.default_rng(0).normal(size=(20, 2))
    truth = Trajectory(np.arange(20, dtype=np.int64) * 10**8, poses)
    S = similarity(0.5, se3_exp(np.array([0, 0, 0, 0.3, 0.4, 1.2]))[:3, :3], np.ones(3))
    shaken = noisy(truth, 0.002)
    estimate = Trajectory(truth.stamps_ns, np.array([apply_similarity(S, T) for T in shaken.poses]))
    beside = compare(estimate, truth, "sim3").T_truth_map @ S @ np.array([5.0, 0, 3, 1])
    assert np.allclose(beside[:3], [5, 0, 3], atol=0.05)


def test_trajectories_of_different_clocks_are_refused_with_the_reason():
    truth = walk()
    late = Trajectory(truth.stamps_ns + 10**12, truth.poses)
    with pytest.raises(InputError, match="share a clock"):
        compare(late, truth, "sim3")
    still = Trajectory(truth.stamps_ns, np.tile(np.eye(4), (len(truth), 1, 1)))
    with pytest.raises(InputError, match="cannot be aligned"):
        compare(still, truth, "sim3")
