# SPDX-License-Identifier: Apache-2.0
"""A camera that came without calibration: its focal length is refined where the motion shows it, else left alone."""

import dataclasses
import logging
from functools import cache

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.backends.geometric.bundle import Observations, adjust, adjust_focal
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import inverse, pose, so3_exp, transform
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.render import render

CAMERA = camera_of(320, 240, 70.0)
QUICK = build(Config, {"geometric.depth_width": 80, "geometric.depth_planes": 16})
FOCAL = 500.0


def problem(turn, seed=0, cameras=8, points=200, noise=0.3):
    """Poses [K,4,4] (the last one holds the gauge), points and noisy observations of a camera that moves on and turns by
    `turn` radians from image to image."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.uniform(-4, 4, (points, 2)), rng.uniform(4, 12, points)])
    T = [
        inverse(pose(so3_exp(turn * np.array([0.2, k, 0.3 * k])), np.array([0.4 * k - 2, 0.02 * k, 0.1 * k])))
        for k in range(cameras)
    ]
    T = np.array(T[::-1])
    p = np.einsum("kij,mj->mki", T[:, :3, :3], X) + T[:, :3, 3]
    uv = FOCAL * p[..., :2] / p[..., 2:] + rng.normal(0, noise, (points, cameras, 2))
    start = np.arange(0, points * cameras + 1, cameras)
    return T, X, Observations(np.tile(np.arange(cameras), points), uv.reshape(-1, 2), start)


def refined(turn, guess, seed=0):
    T, X, seen = problem(turn, seed)
    free = len(T) - 1
    T, X, _ = adjust(T, X, seen, guess, free, 1.0, 20)
    return adjust_focal(T, X, seen, guess, free, 1.0, 30)


@pytest.mark.parametrize("wrong", [0.8, 1.2])
def test_a_turning_camera_shows_its_focal_length(wrong):
    result = refined(0.05, wrong * FOCAL)
    assert result.focal == pytest.approx(FOCAL, rel=0.003)
    assert result.sigma < 0.002
    assert np.median(result.errors) < 0.5


def test_the_stated_deviation_is_that_of_the_estimates():
    results = [refined(0.02, 1.05 * FOCAL, seed) for seed in range(12)]
    spread = np.std([np.log(r.focal / FOCAL) for r in results], ddof=1)
    assert 0.5 < spread / np.median([r.sigma for r in results]) < 2.0


def test_without_any_turn_nothing_is_known_and_hardly_anything_changes():
    result = refined(0.0, 1.2 * FOCAL)
    assert result.sigma > 0.1
    assert result.focal == pytest.approx(1.2 * FOCAL, rel=0.05)


def test_centred_pixels_stay_when_lens_and_map_are_stretched():
    lens = Lens(Camera(320, 240, 220.0, 230.0, 160.0, 118.0, estimated=True), 220.0)
    px = np.array([(3.0, 7.0), (300.0, 200.0)], np.float32)
    before = lens.centred(px)
    lens.stretch(1.1)
    assert lens.centred(px) == pytest.approx(before)
    assert lens.focal == pytest.approx(242.0)
    assert lens.camera.fy == pytest.approx(253.0)


def guessed(factor):
    return dataclasses.replace(CAMERA, fx=factor * CAMERA.fx, fy=factor * CAMERA.fy, estimated=True)


def frames_of(flight, camera):
    return [dataclasses.replace(frame, camera=camera) for frame in flight]


@cache
def orbit(count=36):
    """Frames of a flight around a building, every second a keyframe, and their true poses."""
    flight = SyntheticFlight("building", "orbit", FlightOptions(frames=count, camera=CAMERA, fps=3.5))
    return list(flight), flight.truth.poses


def straight():
    """Frames of a flight along a line with the camera held still."""
    flight = SyntheticFlight("terrain", "forward", FlightOptions(frames=1, camera=CAMERA))
    T = flight.truth.poses[0]
    for i in range(14):
        moved = T.copy()
        moved[:3, 3] += 4.0 * i * T[:3, 0]
        yield Frame(10**8 * i, render(flight.scene, CAMERA, moved)[0], CAMERA)


def run(frames, realtime=False):
    backend = registry.create("geometric", QUICK, realtime)
    updates = [update for frame in frames for update in backend.step(frame)] + backend.finish()
    backend.close()
    return updates, backend


@cache
def flown(factor):
    return run(frames_of(orbit()[0], guessed(factor)))


def share_of_path(poses, truth):
    indices = sorted(poses)
    est, true = np.array([poses[i][:3, 3] for i in indices]), np.array([truth[i][:3, 3] for i in indices])
    rms = np.sqrt(((transform(umeyama(est, true), est) - true) ** 2).sum(axis=1).mean())
    return rms / np.linalg.norm(np.diff(true, axis=0), axis=1).sum()


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_the_focal_length_of_a_guessed_camera_is_found_in_flight(factor):
    _, backend = flown(factor)
    statistics = backend.statistics()
    assert statistics["focal"] == pytest.approx(CAMERA.fx, rel=0.03)
    assert statistics["focal_ratio"] == pytest.approx(statistics["focal"] / guessed(factor).fx)
    assert statistics["focal_observable"] == 1
    assert 0 < statistics["focal_sigma"] < 0.04 * CAMERA.fx
    assert len(backend.poses()) == 36
    assert share_of_path(backend.poses(), orbit()[1]) < 0.004


def test_all_depth_is_made_with_the_refined_focal_length():
    updates, backend = flown(1.2)
    deep = [u for u in updates if u.depth is not None]
    focal = backend.statistics()["focal"] * 80 / 320
    assert len(deep) >= 15
    assert {round(u.camera.fx, 6) for u in deep} == {round(focal, 6)}


def test_keyframes_that_moved_with_the_focal_length_are_corrected():
    updates, backend = flown(1.2)
    told = {}
    for u in updates:
        if u.T_map_cam is not None and not u.revises and u.is_keyframe:
            told[u.index] = u.T_map_cam
        told |= u.corrections
    poses = backend.poses()
    for index, T in told.items():
        assert np.linalg.norm(T[:3, 3] - poses[index][:3, 3]) < 5e-3


def test_depth_that_waited_for_the_focal_length_is_not_dropped_live():
    updates, _ = run(frames_of(orbit()[0][:28], guessed(1.2)), realtime=True)
    settled = next(u.index for u in updates if u.depth is not None)
    held = [u.index for u in updates if u.is_keyframe and not u.revises and u.index <= settled]
    assert len(held) >= 1
    assert set(held) <= {u.index for u in updates if u.depth is not None}


def test_a_straight_flight_keeps_the_guess_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        _, backend = run([dataclasses.replace(f, camera=guessed(1.1)) for f in straight()])
    statistics = backend.statistics()
    assert statistics["keyframes"] >= 6
    assert statistics["focal_observable"] == 0
    assert statistics["focal_ratio"] == 1.0
    assert statistics["focal_sigma"] > 0.05 * statistics["focal"]
    assert sum("focal length" in r.getMessage() for r in caplog.records) == 1


def test_a_calibrated_camera_is_left_alone():
    _, backend = run(orbit()[0][:10])
    assert not any(name.startswith("focal") for name in backend.statistics() if name != "focal_ms")
