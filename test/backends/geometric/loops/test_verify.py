# SPDX-License-Identifier: Apache-2.0
"""What is believed to be the same place, and how exactly it lies."""

import dataclasses

import numpy as np
import pytest

from recon3d_ros.backends.geometric.loops.verify import apart, drift, relate
from recon3d_ros.core.geometry import inverse, rotation_angle, similarity, so3_exp, transform


def spread(S):
    return np.cbrt(np.linalg.det(S[:3, :3]))


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.3])
def test_the_similarity_between_two_views_of_a_place_is_found_with_its_scale(world, scale):
    A, B = world.camera(0.0, 0.0), world.camera(0.3, -0.2, heading=0.6)
    relation = relate(world.landmarks(0, A), world.landmarks(1, B, scale=scale))
    assert relation.accepted and relation.common > 60
    true = inverse(A) @ B
    S = relation.S_old_new
    assert spread(S) == pytest.approx(1 / scale, rel=2e-3)
    assert np.linalg.norm(S[:3, 3] - true[:3, 3]) < 0.01
    assert rotation_angle(S[:3, :3] / spread(S) @ true[:3, :3].T) < 0.003


def test_another_place_is_not_accepted(world):
    A, B = world.camera(0.0, 0.0), world.camera(9.0, 0.0)
    assert not relate(world.landmarks(0, A), world.landmarks(1, B)).accepted


def test_what_looks_alike_and_lies_otherwise_is_not_accepted(world):
    """The same facade on two houses of another shape: matches without a common geometry."""
    A = world.landmarks(0, world.camera(0.0, 0.0))
    rng = np.random.default_rng(3)
    B = world.landmarks(1, world.camera(0.1, 0.0))
    uv = rng.uniform((-320, -240), (320, 240), B.features.uv.shape)
    B.features = dataclasses.replace(B.features, uv=uv)
    assert not relate(A, B).accepted


def test_depths_that_do_not_agree_are_not_accepted(world):
    A, B = world.landmarks(0, world.camera(0.0, 0.0)), world.landmarks(1, world.camera(0.4, 0.0))
    B.points = B.points * np.random.default_rng(4).uniform(0.4, 2.5, (len(B.points), 1))
    assert not relate(A, B).accepted


def test_the_drift_carries_the_new_keyframe_to_its_true_place(world):
    A, B = world.camera(0.0, 0.0), world.camera(0.2, 0.1)
    D = similarity(1.1, so3_exp(np.array([0.0, 0.05, 0.1])), np.array([0.4, -0.2, 0.1]))
    drifted = D @ B  # pose of B with its unit in it
    S = drift(A, drifted, inverse(A) @ B)
    assert transform(S, drifted[:3, 3]) == pytest.approx(B[:3, 3])
    assert max(apart(S @ D, np.eye(4), B[:3, 3], 2.0)) < 1e-9
