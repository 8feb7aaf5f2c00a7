# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, similarities and their alignment."""

import numpy as np
import pytest
from scipy.linalg import expm

from recon3d_ros.core import geometry as g
from recon3d_ros.core.align import umeyama


def random_pose(rng, angle=2.0):
    return g.se3_exp(np.concatenate([rng.normal(size=3), angle * rng.normal(size=3) / np.sqrt(3)]))


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-4, 1.0, 3.0, np.pi - 1e-7])
def test_the_exponential_is_that_of_the_matrix_and_the_logarithm_its_inverse(angle):
    omega = angle * np.array([0.6, -0.48, 0.64])
    xi = np.concatenate([[1.0, -2.0, 0.5], omega])
    twist = np.zeros((4, 4))
    twist[:3, :3], twist[:3, 3] = g.skew(omega), xi[:3]
    assert np.allclose(g.se3_exp(xi), expm(twist), atol=1e-9)
    assert np.allclose(g.so3_log(g.so3_exp(omega)), omega, atol=1e-6)


def test_quaternion_and_rotation_are_inverse_for_all_branches():
    rng = np.random.default_rng(0)
    for R in [np.eye(3), *(np.diag(d) for d in ((1.0, -1, -1), (-1.0, 1, -1), (-1.0, -1, 1)))]:
        assert np.allclose(g.rotation_from_quaternion(g.quaternion_from_rotation(R)), R)
    for _ in range(50):
        R = random_pose(rng)[:3, :3]
        assert np.allclose(g.rotation_from_quaternion(g.quaternion_from_rotation(R)), R)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
def test_a_quaternion_that_is_no_rotation_is_refused(q):
    with pytest.raises(ValueError, match="not a rotation"):
        g.rotation_from_quaternion(np.array(q, dtype=float))


def test_optical_to_body_follows_rep_103():
    forward_in_optical, up_in_optical = np.array([0.0, 0, 1]), np.array([0.0, -1, 0])
    assert np.allclose(g.transform(g.body_from_optical(), forward_in_optical), [1, 0, 0])
    assert np.allclose(g.transform(g.body_from_optical(), up_in_optical), [0, 0, 1])
    assert np.allclose(g.quaternion_from_rotation(g.R_BODY_OPTICAL), [0.5, -0.5, 0.5, -0.5])


def test_orthonormalisation_removes_rounding_and_keeps_the_rotation():
    T = random_pose(np.random.default_rng(1))
    bent = T.copy()
    bent[:3, :3] += 1e-4 * np.random.default_rng(2).normal(size=(3, 3))
    R = g.orthonormalised(bent)[:3, :3]
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-14)
    assert np.allclose(R, T[:3, :3], atol=1e-3)


def test_only_finite_rigid_transforms_are_poses():
    assert g.is_pose(np.eye(4))
    assert not g.is_pose(np.full((4, 4), np.nan))
    assert not g.is_pose(g.similarity(2.0, np.eye(3), np.zeros(3)))
    assert not g.is_pose(np.diag([1.0, 1, -1, 1]))


@pytest.mark.parametrize("with_scale", [True, False])
def test_umeyama_finds_the_similarity_that_was_applied(with_scale):
    rng = np.random.default_rng(3)
    points = rng.normal(size=(20, 3))
    T = random_pose(rng)
    S = g.similarity(2.5 if with_scale else 1.0, T[:3, :3], T[:3, 3])
    assert np.allclose(umeyama(points, g.transform(S, points), with_scale), S, atol=1e-9)


def test_umeyama_never_returns_a_reflection():
    points = np.random.default_rng(4).normal(size=(10, 3))
    S = umeyama(points, points * (1, 1, -1))
    assert np.linalg.det(S[:3, :3]) > 0


def test_umeyama_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="at least 3"):
        umeyama(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="coincide"):
        umeyama(np.ones((5, 3)), np.zeros((5, 3)))


def test_a_similarity_moves_the_centre_and_keeps_the_pose_rigid():
    rng = np.random.default_rng(5)
    T, S = random_pose(rng), g.similarity(3.0, random_pose(rng)[:3, :3], np.ones(3))
    moved = g.apply_similarity(S, T)
    assert g.is_pose(moved)
    assert np.allclose(moved[:3, 3], g.transform(S, T[:3, 3]))
