# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors, held against evo where it is installed."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import apply_similarity, rotation_angles, se3_exp, similarity
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.evaluation.pairs import Delta, all_pairs
from recon3d_ros.evaluation.trajectory import alignment_for, compare


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


@pytest.mark.parametrize(("text", "unit", "delta"), [("7f", "frames", 7), ("2.5m", "meters", 2.5)])
def test_relative_errors_over_a_distance_equal_those_of_evo(text, unit, delta):
    pytest.importorskip("evo")
    from evo.core import metrics, trajectory

    truth, estimate = walk(), noisy(walk(), 0.02)
    ours = compare(estimate, truth, "none", delta=Delta.parse(text))
    a, b = (
        trajectory.PoseTrajectory3D(poses_se3=list(t.poses), timestamps=t.stamps_ns * 1e-9)
        for t in (truth, estimate)
    )
    rpe = metrics.RPE(
        metrics.PoseRelation.translation_part,
        delta,
        metrics.Unit(unit if unit == "frames" else "m"),
        rel_delta_tol=0.1,
        all_pairs=True,
        pairs_from_reference=True,
    )
    rpe.process_data((a, b))
    assert ours.rpe_translation.rmse == pytest.approx(
        rpe.get_statistic(metrics.StatisticsType.rmse), rel=1e-9
    )


def test_a_delta_in_seconds_pairs_poses_by_their_stamps():
    start, end = Delta.parse("0.5s").pairs(walk().positions, walk().stamps_ns)
    assert (end - start == 5).all() and len(start) == 55


def test_no_two_poses_are_paired_that_are_not_as_far_apart_as_asked_for():
    error = compare(noisy(walk(), 0.02), walk(), "sim3", delta=Delta.parse("1000m"))
    assert error.rpe_translation is None and error.rpe_rotation is None and error.ate.rmse > 0


@pytest.mark.parametrize("text", ["", "1", "m", "0f", "1.5f", "-1m", "1 km", "nanm"])
def test_what_is_no_distance_of_poses_is_refused(text):
    with pytest.raises(InputError, match="such as 1f"):
        Delta.parse(text)


def straight(roll=0.0, n=30):
    """Forward flight along z, the camera rolled about the path."""
    poses = np.array([se3_exp(np.array([0, 0, 0.3 * i, 0, 0, 0])) for i in range(n)])
    poses[:, :3, :3] = se3_exp(np.array([0, 0, 0, 0, 0, roll]))[:3, :3]
    return Trajectory(np.arange(n, dtype=np.int64) * 10**8, poses)


def test_after_straight_motion_rotations_are_scored_between_poses_not_after_alignment():
    error = compare(straight(roll=1.0), straight(), "sim3")
    assert error.ate.rmse < 1e-9
    assert error.relative_rotation.max < 1e-9 and error.rpe_rotation.max < 1e-9


def test_the_relative_rotation_grows_with_a_drift_that_single_steps_hide():
    truth, drifting = straight(), straight()
    for i, T in enumerate(drifting.poses):
        T[:3, :3] = se3_exp(np.array([0, 0, 0, 0, np.radians(0.1 * i), 0]))[:3, :3]
    error = compare(drifting, truth, "sim3")
    assert error.rpe_rotation.rmse == pytest.approx(0.1)
    assert error.relative_rotation.max == pytest.approx(2.9)


def test_without_alignment_an_offset_is_the_error_and_the_scale_is_found_all_the_same():
    truth = walk()
    moved = truth.poses.copy()
    moved[:, :3, 3] = 0.5 * moved[:, :3, 3] + [0.0, 0.0, 2.0]
    error = compare(Trajectory(truth.stamps_ns, moved), truth, "none")
    assert error.scale == 1.0 and error.scale_found == pytest.approx(2.0)
    assert np.array_equal(error.T_truth_map, np.eye(4)) and error.ate.rmse > 1.0


def test_an_estimate_that_never_moves_has_the_spread_of_the_truth_as_error():
    truth = walk()
    still = np.tile(np.eye(4), (len(truth), 1, 1))
    still[:, :3, 3] = truth.positions.mean(axis=0)
    error = compare(Trajectory(truth.stamps_ns, still), truth, "none")
    assert error.ate.rmse == pytest.approx(error.spread) and error.scale_found is None


def test_coverage_counts_the_frames_that_got_a_pose():
    truth = walk()
    half = Trajectory(truth.stamps_ns[:30], truth.poses[:30])
    error = compare(half, truth, "sim3")
    assert (error.covered, error.frames, error.coverage) == (30, 60, 0.5)
    twice = np.arange(120, dtype=np.int64) * 50_000_000
    assert compare(half, truth, "sim3", frames_ns=twice).coverage == 0.25


def test_of_several_poses_near_one_true_pose_the_nearest_in_time_is_compared():
    truth = walk()
    offsets = np.array([-9_000_000, 1_000_000, 8_000_000])
    stamps = (truth.stamps_ns[:, None] + offsets).ravel()
    poses = np.repeat(truth.poses, 3, axis=0)
    poses[np.arange(len(stamps)) % 3 != 1, :3, 3] += 100.0
    error = compare(Trajectory(stamps, poses), truth, "none")
    assert error.pairs == 60 and error.ate.max == 0.0


def test_the_state_of_the_scale_decides_the_alignment():
    assert [alignment_for(s) for s in ("sensor", "prior", "unknown", "learned", None)] == [
        *("se3", "se3", "sim3", "sim3", "sim3")
    ]


def test_of_many_poses_the_same_pairs_are_drawn_every_time():
    first, second = all_pairs(1000)
    assert (first < second).all() and 49_000 < len(first) <= 50_000
    assert np.array_equal(first, all_pairs(1000)[0]) and len(all_pairs(20)[0]) == 190


def test_angles_of_rotations_are_exact_when_tiny_and_when_half_a_turn():
    angles = np.array([1e-12, 1e-6, 1.0, np.pi])
    R = np.stack([se3_exp(np.array([0, 0, 0, 0.6 * a, 0, 0.8 * a]))[:3, :3] for a in angles])
    assert np.allclose(rotation_angles(R), angles, rtol=1e-6, atol=0)


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
