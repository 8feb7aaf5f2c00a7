# SPDX-License-Identifier: Apache-2.0
"""Mapping only: the geometric backend trusts the poses that come with the images and makes metric depth of them."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.backends.geometric.backend import GeometricReconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import pose, so3_exp
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Scale, Tracking
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.render import render

CAMERA = camera_of(320, 240, 70.0)
MAPPING = build(
    Config,
    {
        "prior": True,
        "geometric.mapping_only": True,
        "geometric.depth_width": 160,
        "geometric.depth_planes": 32,
    },
)


@cache
def orbit(frames=24, fps=10.0):
    """Frames of a flight around a building with their true poses as prior."""
    flight = SyntheticFlight(
        "building", "orbit", FlightOptions(frames=frames, camera=CAMERA, fps=fps, prior=True)
    )
    return list(flight), flight


def run(frames, config=MAPPING):
    backend = registry.create("geometric", config)
    updates = [update for frame in frames for update in backend.step(frame)] + backend.finish()
    backend.close()
    return updates, backend


@cache
def mapped():
    return run(orbit()[0])


def depth_errors(updates, flight):
    """Median of |depth / truth - 1|, in metres against metres, and the share of the truth that has depth, per keyframe."""
    errors, shares = [], []
    for u in updates:
        if u.depth is not None:
            truth = render(flight.scene, u.camera, flight.truth.poses[u.index])[1]
            known = np.isfinite(truth) & np.isfinite(u.depth)
            errors.append(np.median(np.abs(u.depth[known] / truth[known] - 1)))
            shares.append(known.sum() / np.isfinite(truth).sum())
    return np.array(errors), np.array(shares)


def test_every_pose_is_the_one_given():
    frames, _ = orbit()
    updates, backend = mapped()
    answers = [u for u in updates if not u.revises]
    assert [u.index for u in answers] == list(range(24))
    for u, frame in zip(answers, frames, strict=True):
        assert u.T_map_cam == pytest.approx(frame.prior)
        assert backend.poses()[u.index] == pytest.approx(frame.prior)
    assert {(u.tracking, u.scale) for u in updates} == {(Tracking.TRACKING, Scale.PRIOR)}


def test_the_depth_is_in_metres():
    updates, _ = mapped()
    errors, shares = depth_errors(updates, orbit()[1])
    assert len(errors) >= 4
    assert np.median(errors) < 0.008 and np.median(shares) > 0.5


def test_the_backend_says_that_it_is_metric():
    backend = GeometricReconstructor(MAPPING, realtime=False)
    assert backend.capabilities.metric
    backend.close()
    backend = GeometricReconstructor(Config(), realtime=False)
    assert not backend.capabilities.metric
    backend.close()


def test_frames_without_a_pose_are_answered_and_counted():
    frames = [dataclasses.replace(f, prior=None) if i in (0, 1, 9) else f for i, f in enumerate(orbit()[0])]
    updates, backend = run(frames)
    answers = {u.index: u for u in updates if not u.revises}
    assert sorted(answers) == list(range(24))
    assert [answers[i].tracking for i in (0, 1, 9)] == [
        Tracking.INITIALISING,
        Tracking.INITIALISING,
        Tracking.LOST,
    ]
    assert all(answers[i].T_map_cam is None and answers[i].reason for i in (0, 1, 9))
    assert answers[2].reason == "first"
    assert backend.statistics()["without_prior"] == 3
    errors, _ = depth_errors(updates, orbit()[1])
    assert np.median(errors) < 0.008


def test_photos_far_apart_get_depth():
    frames, flight = orbit(8, fps=1.1)
    updates, _ = run(frames)
    assert "matched" in {u.reason for u in updates}
    errors, _ = depth_errors(updates, flight)
    assert len(errors) >= 4
    assert np.median(errors) < 0.015


def test_poses_that_are_a_little_off_still_give_depth():
    frames, flight = orbit()
    rng = np.random.default_rng(3)
    off = [
        dataclasses.replace(f, prior=f.prior @ pose(so3_exp(rng.normal(0, 1e-3, 3)), rng.normal(0, 0.02, 3)))
        for f in frames
    ]
    updates, _ = run(off)
    errors, shares = depth_errors(updates, flight)
    assert len(errors) >= 4
    assert np.median(errors) < 0.03 and np.median(shares) > 0.2


def test_it_needs_to_be_told_to_take_poses():
    with pytest.raises(InputError, match="--prior"):
        registry.create("geometric", build(Config, {"geometric.mapping_only": True}))
