# SPDX-License-Identifier: Apache-2.0
"""From keyframes in their order to closed loops: what is believed, what is not, and what it changes."""

import logging
import sys

import numpy as np
import pytest

from recon3d_ros.backends.geometric.loops.search import LoopSearch, Snapshot
from recon3d_ros.core.geometry import apply_similarity, inverse, similarity, so3_exp, transform

#: Keyframes of one round, and of the flight.
ROUND, FLIGHT = 24, 30


def flight(world, drift=0.004):
    """Keyframes of a round flight and a bit: true poses, estimated ones, landmarks in the units of the estimate."""
    angles = 2 * np.pi * np.arange(FLIGHT) / ROUND
    true = [world.camera(6 * np.cos(a), 6 * np.sin(a), a) for a in angles]
    S, estimate, marks = np.eye(4), [], []
    for i, T in enumerate(true):
        estimate.append(apply_similarity(S, T))
        marks.append(world.landmarks(i, T, scale=np.cbrt(np.linalg.det(S[:3, :3]))))
        step = similarity(1 + drift, so3_exp(np.array([0, 0, drift])), np.zeros(3))
        S = S @ T @ step @ inverse(T)
    return true, estimate, marks


def looks(index):
    """Descriptors that are alike for keyframes at the same place."""
    rng = np.random.default_rng(index % ROUND)
    return rng.integers(0, 256, (60, 32), np.uint8)


def snapshot(poses):
    """The map when these keyframes were in it."""
    return Snapshot(
        list(range(len(poses))),
        [inverse(T) for T in poses],
        [np.arange(200 * j, 200 * j + 600) for j in range(len(poses))],
    )


def run(world, leave=FLIGHT, **options):
    """Search a flight that goes to another world after `leave` keyframes, up to the first loop."""
    true, poses, marks = flight(world, **options)
    if leave < FLIGHT:
        marks[leave:] = flight(type(world)(seed=9))[2][leave:]
    search = LoopSearch()
    for i, m in enumerate(marks):
        closing = search.step(m, looks(i), snapshot(poses[: i + 1]))
        if closing is not None:
            return search, closing, i, true, poses
    return search, None, FLIGHT, true, poses


def test_a_loop_is_closed_once_a_second_keyframe_confirms_it(world):
    pytest.importorskip("gtsam")
    search, closing, at, true, poses = run(world)
    assert at == ROUND + 1 and search.loops == 1 and search.rejected == 0
    before = np.linalg.norm(poses[at][:3, 3] - true[at][:3, 3])
    after = np.linalg.norm(transform(closing.of(at), poses[at][:3, 3]) - true[at][:3, 3])
    assert before > 0.5 and after < before / 5


def test_keyframes_that_came_since_move_with_the_newest(world):
    pytest.importorskip("gtsam")
    _, closing, at, _, _ = run(world)
    assert np.array_equal(closing.of(at + 7), closing.of(at))
    assert closing.scale(0) == pytest.approx(1.0, abs=1e-6)


def test_one_keyframe_alone_is_not_believed(world):
    search, closing, *_ = run(world, leave=ROUND + 1)
    assert closing is None and search.loops == 0 and search.rejected == 1


def test_a_place_that_stays_in_view_while_the_camera_flies_on_is_no_loop(world):
    poses = [world.camera(0.3 * i, 0.0) for i in range(30)]
    assert snapshot(poses).left_behind(2.0) == set()
    there_and_back = snapshot(poses + poses[::-1])
    assert there_and_back.left_behind(2.0) >= set(range(15))


def test_a_flight_without_drift_finds_its_loop_and_moves_nothing(world):
    search, closing, *_ = run(world, drift=0.0)
    assert closing is None and search.loops == 1


def test_without_gtsam_the_loop_is_counted_and_the_log_says_once_what_to_install(world, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "gtsam", None)
    with caplog.at_level(logging.WARNING):
        search, closing, *_ = run(world)
    assert closing is None and search.loops == 1
    assert [r.message for r in caplog.records if "recon3d_ros[loops]" in r.message] == [
        caplog.records[0].message
    ]


def test_after_a_closing_the_same_sightings_call_for_no_other(world):
    pytest.importorskip("gtsam")
    search, closing, at, _, poses = run(world)
    search.closed(closing)
    bent = [apply_similarity(closing.of(i), T) for i, T in enumerate(poses[: at + 1])]
    assert search.finish(snapshot(bent)) is None
    search._unused = True
    again = search.finish(snapshot(bent))
    moved = [
        np.linalg.norm(transform(c.of(at), T[:3, 3]) - T[:3, 3])
        for c, T in ((closing, poses[at]), (again, bent[at]))
    ]
    assert moved[1] < moved[0] / 20
