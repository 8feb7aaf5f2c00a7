# SPDX-License-Identifier: Apache-2.0
"""The pose graph on a round flight with injected drift."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from recon3d_ros.backends.geometric.loops.pose_graph import Edge, chain, solve
from recon3d_ros.core.errors import MissingDependency
from recon3d_ros.core.geometry import inverse, pose, similarity, so3_exp

N = 60


def round_flight():
    """True poses of two rounds and what was estimated: each step a little too long and turned a little too far."""
    angles = np.linspace(0, 2 * np.pi, N, endpoint=False)
    true = [
        pose(so3_exp(np.array([0.0, 0.0, a])), np.array([10 * np.cos(a), 10 * np.sin(a), 0.0]))
        for a in [*angles, 0.0]
    ]
    rng = np.random.default_rng(0)
    estimate, S = [true[0]], np.eye(4)
    for a, b in pairwise(true):
        wrong = similarity(1.002, so3_exp(rng.normal(0.002, 0.002, 3)), rng.normal(0, 0.01, 3))
        S = S @ a @ wrong @ inverse(a)
        T = S @ b
        estimate.append(pose(T[:3, :3] / np.cbrt(np.linalg.det(T[:3, :3])), T[:3, 3]))
    scale = np.cbrt(np.linalg.det(S[:3, :3]))
    loop = Edge(0, N, similarity(1 / scale, np.eye(3), np.zeros(3)))
    return true, estimate, loop


def tracks(count):
    """Ids of 300 tracks a keyframe, a third of them new."""
    return [np.arange(100 * i, 100 * i + 300) for i in range(count)]


def test_keyframes_hold_on_to_the_next_and_to_those_they_share_tracks_with():
    poses = round_flight()[1][:6]
    edges = {(e.a, e.b) for e in chain(poses, tracks(6))}
    assert edges == {(i, i + 1) for i in range(5)} | {(i, i + 2) for i in range(4)}
    alone = {(e.a, e.b) for e in chain(poses, [np.arange(100 * i, 100 * i + 9) for i in range(6)])}
    assert alone == {(i, i + 1) for i in range(5)}


def test_a_loop_leaves_less_than_a_fifth_of_the_drift():
    pytest.importorskip("gtsam")
    true, estimate, loop = round_flight()
    bent = solve(estimate, [*chain(estimate, tracks(N + 1)), loop], [5.0] * (N + 1))
    before, after = (np.linalg.norm(T[-1][:3, 3] - true[-1][:3, 3]) for T in (estimate, bent))
    assert before > 0.5 and after < before / 5
    errors = [
        [np.linalg.norm(a[:3, 3] - b[:3, 3]) for a, b in zip(T, true, strict=True)] for T in (estimate, bent)
    ]
    assert np.mean(errors[1]) < np.mean(errors[0])


def test_the_first_keyframe_stays_and_without_loops_nothing_moves():
    pytest.importorskip("gtsam")
    _, estimate, loop = round_flight()
    edges = chain(estimate, tracks(N + 1))
    assert solve(estimate, [*edges, loop], [5.0] * (N + 1))[0] == pytest.approx(estimate[0], abs=1e-6)
    assert np.array(solve(estimate, edges, [5.0] * (N + 1))) == pytest.approx(np.array(estimate), abs=1e-6)


def test_without_gtsam_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gtsam", None)
    with pytest.raises(MissingDependency, match=r"recon3d_ros\[loops\]"):
        solve([np.eye(4)], [], [1.0])
