# SPDX-License-Identifier: Apache-2.0
"""The search structure against brute force."""

import numpy as np
import pytest

from recon3d_ros.synth.bvh import build
from recon3d_ros.synth.materials import Kind, Material
from recon3d_ros.synth.queries import distances, first_hit
from recon3d_ros.synth.shapes import Model


@pytest.fixture(scope="module")
def soup():
    rng = np.random.default_rng(0)
    return (rng.uniform(-5, 5, (300, 1, 3)) + rng.normal(size=(300, 3, 3))).reshape(300, 9)


def brute_force_hits(faces, o, d):
    """Ray parameter of every triangle that the ray crosses, by solving o + t d = a + u e1 + v e2."""
    a, e1, e2 = faces[:, :3], faces[:, 3:6] - faces[:, :3], faces[:, 6:] - faces[:, :3]
    M = np.stack([np.broadcast_to(-d, a.shape), e1, e2], axis=-1)
    t, u, v = np.linalg.solve(M, (o - a)[..., None])[..., 0].T
    return np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6), t, np.inf)


def test_first_hit_is_that_of_all_triangles_tried(soup):
    tree, rng, stack = build(soup), np.random.default_rng(1), np.empty((64, 2))
    hits = 0
    for o, d in rng.normal(size=(200, 2, 3)) * [[[6], [1]]]:
        t, i, _, _ = first_hit(*tree[:3], tuple(o), tuple(d), stack)
        expected = brute_force_hits(soup, o, d)
        assert (i >= 0) == np.isfinite(expected.min())
        if i >= 0:
            hits += 1
            assert t == pytest.approx(expected.min(), abs=1e-9)
            assert tree.order[i] == expected.argmin()
    assert hits > 40


def test_distance_is_the_least_over_densely_sampled_triangles(soup):
    tree, rng = build(soup), np.random.default_rng(2)
    points = rng.uniform(-7, 7, (30, 3))
    a, b = np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21))
    weights = np.stack([1 - a - b, a, b], axis=-1)[a + b <= 1 + 1e-9]
    samples = np.einsum("sk,tkx->tsx", weights, soup.reshape(-1, 3, 3)).reshape(-1, 3)
    expected = np.linalg.norm(points[:, None] - samples[None], axis=-1).min(axis=1)
    found = distances(*tree[:3], points)
    assert (found <= expected + 1e-9).all()
    assert np.abs(found - expected).max() < 0.12


def test_distance_to_a_box_is_known_at_face_edge_and_corner():
    model = Model()
    model.box((0, 0, 0), (2, 2, 2), Material(Kind.PLAIN, (1, 1, 1)), under=True)
    tree = build(model.faces()[:, :9])
    points = np.array([(0, 0, 5), (3, 3, 1), (2, 2, 3), (0, 0, 1.9), (1, 1, 2)], float)
    assert distances(*tree[:3], points) == pytest.approx([3, 8**0.5, 3**0.5, 0.1, 0])
