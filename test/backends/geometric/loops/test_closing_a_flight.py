# SPDX-License-Identifier: Apache-2.0
"""The whole engine on a flight that comes back to its start, with drift injected at every keyframe."""

from functools import cache

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.backends.geometric.mapper import Mapper
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import apply_similarity, inverse, similarity, so3_exp, transform
from recon3d_ros.core.params import build
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

#: One round takes 181 frames; the start of the flight that fixes where the map is.
FRAMES, START = 225, 40
QUICK = {"geometric.depth_width": 80, "geometric.depth_planes": 16}


@cache
def flight():
    flown = SyntheticFlight(
        "building", "orbit", FlightOptions(frames=FRAMES, camera=camera_of(320, 240, 70.0))
    )
    return list(flown), flown.truth.poses


def drifting(insert, drift=0.003):
    """At every keyframe the newest part of the map grows and turns about it."""

    def insert_and_drift(self, placed):
        keyframe = insert(self, placed)
        newest = self.map.keyframes[-self.params.window :]
        S = similarity(1 + drift, so3_exp(np.array([0.0, 0.0, 0.3 * drift])), np.zeros(3))
        centre = keyframe.T_map_cam[:3, 3]
        S[:3, 3] = centre - S[:3, :3] @ centre
        ids = np.unique(np.concatenate([k.ids for k in newest]))
        self.map.place(ids, transform(S, self.map.points(ids)))
        for k in newest:
            k.T_cam_map = inverse(apply_similarity(S, k.T_map_cam))
        return keyframe

    return insert_and_drift


def run(**options):
    """Updates, poses and statistics of a run over the flight."""
    backend = registry.create("geometric", build(Config, QUICK | options))
    updates = [u for frame in flight()[0] for u in backend.step(frame)] + backend.finish()
    poses, statistics = backend.poses(), backend.statistics()
    backend.close()
    return updates, poses, statistics


def end_error(poses):
    """Metres by which the last frames are off, seen from the first ones."""
    truth = flight()[1]
    est = np.array([poses[i][:3, 3] for i in range(FRAMES)])
    S = umeyama(est[:START], truth[:START, :3, 3])
    return float(np.linalg.norm(transform(S, est) - truth[:, :3, 3], axis=1)[-15:].mean())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flight_back_to_its_start_loses_its_drift_and_repeats_bit_for_bit(monkeypatch):
    pytest.importorskip("gtsam")
    monkeypatch.setattr(Mapper, "insert", drifting(Mapper.insert))
    _, open_poses, statistics = run(**{"geometric.loops": False})
    assert statistics["loops"] == 0
    updates, poses, statistics = run()
    assert sorted(poses) == list(range(FRAMES)) and statistics["loops"] >= 1
    before, after = end_error(open_poses), end_error(poses)
    assert before > 0.3 and after < before / 5
    told = {}
    for u in updates:
        if u.is_keyframe and not u.revises:
            told[u.index] = u.T_map_cam
        assert set(u.corrections) <= set(told)
        told |= u.corrections
    for index, T in told.items():
        assert np.linalg.norm(T[:3, 3] - poses[index][:3, 3]) < 0.01
    _, again, _ = run()
    assert all(np.array_equal(poses[i], again[i]) for i in poses)
