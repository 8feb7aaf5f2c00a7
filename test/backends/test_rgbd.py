# SPDX-License-Identifier: Apache-2.0
import dataclasses
from functools import cache

import cv2
import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.backends.rgbd.kernels import fit_planes, shrink
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import body_from_optical, inverse, pose, rotation_angle, so3_exp, transform
from recon3d_ros.core.image import resampling_map
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame, Scale, Tracking
from recon3d_ros.runtime.sources import open_source
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.sensor import Faults

CAMERA = camera_of(240, 180, 70.0)


@cache
def room(frames=24, path="orbit"):
    """Frames of a flight through a room with a noisy depth sensor, and their true poses."""
    faults = Faults(depth_noise=0.005, noise=3.0)
    flight = SyntheticFlight(
        "room", path, FlightOptions(frames=frames, camera=CAMERA, depth=True, faults=faults)
    )
    return list(flight), flight.truth.poses


def run(frames, config=None):
    """All updates of a new backend, and the backend."""
    backend = registry.create("rgbd", config or Config())
    return [update for frame in frames for update in backend.step(frame)] + backend.finish(), backend


def errors(updates, truth):
    """Distance in metres and angle in radians of every pose from the truth, both seen from the first frame."""
    first = next(u for u in updates if u.T_map_cam is not None)
    T_truth_map = truth[first.index] @ inverse(first.T_map_cam)
    distances, angles = [], []
    for u in updates:
        if u.T_map_cam is not None:
            E = inverse(truth[u.index]) @ T_truth_map @ u.T_map_cam
            distances.append(np.linalg.norm(E[:3, 3]))
            angles.append(rotation_angle(E[:3, :3]))
    return np.array(distances), np.array(angles)


def test_a_flight_with_depth_is_followed_in_metres():
    frames, truth = room()
    updates, backend = run(frames)
    assert [u.index for u in updates] == list(range(len(frames)))
    assert [u.stamp_ns for u in updates] == [f.stamp_ns for f in frames]
    assert all(u.tracking == Tracking.TRACKING and u.scale == Scale.SENSOR for u in updates)
    np.testing.assert_array_equal(updates[0].T_map_cam, body_from_optical())
    distances, angles = errors(updates, truth)
    assert np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum() > 0.5
    assert distances.max() < 0.02
    assert np.degrees(angles.max()) < 0.5
    assert sorted(backend.poses()) == list(range(len(frames)))


def test_keyframes_carry_the_depth_and_colours_of_an_ideal_camera():
    frames, _ = room()
    updates, _ = run(frames)
    keyframes = [u for u in updates if u.is_keyframe]
    assert 2 <= len(keyframes) < len(frames)
    assert keyframes[0].reason == "first"
    for u in keyframes:
        assert u.camera == CAMERA
        np.testing.assert_array_equal(u.colours, frames[u.index].image)
        usable = np.where(frames[u.index].depth <= 6.0, frames[u.index].depth, np.nan)
        np.testing.assert_array_equal(u.depth, usable)
    assert all(u.depth is None for u in updates if not u.is_keyframe)


def test_two_runs_give_the_same_poses_to_the_bit():
    frames, _ = room()
    first, second = (run(frames[:12])[1].poses() for _ in range(2))
    assert all(np.array_equal(first[i], second[i]) for i in first)


def test_after_a_reset_the_next_frame_is_the_first():
    frames, _ = room()
    _, backend = run(frames[:5])
    backend.reset()
    assert backend.poses() == {}
    update = backend.step(frames[7])[0]
    assert (update.index, update.reason) == (0, "first")


def test_frames_without_depth_are_followed_by_their_image_and_are_no_keyframes():
    frames, truth = room()
    frames = [f if i % 3 == 0 else dataclasses.replace(f, depth=None) for i, f in enumerate(frames)]
    updates, _ = run(frames)
    assert all(u.tracking == Tracking.TRACKING for u in updates)
    assert not any(u.is_keyframe for u in updates if u.index % 3)
    assert errors(updates, truth)[0].max() < 0.03


def test_in_the_dark_depth_alone_is_enough():
    frames, truth = room()
    dark = [dataclasses.replace(f, image=np.zeros_like(f.image)) for f in frames[:15]]
    updates, _ = run(dark)
    assert all(u.tracking == Tracking.TRACKING for u in updates)
    assert errors(updates, truth)[0].max() < 0.03


def test_before_the_first_depth_frames_are_answered_without_a_pose():
    frames, _ = room()
    blind = [dataclasses.replace(f, depth=None) for f in frames[:2]]
    updates, _ = run([*blind, *frames[2:4]])
    assert [(u.tracking, u.reason) for u in updates[:2]] == [(Tracking.INITIALISING, "no depth")] * 2
    assert updates[0].T_map_cam is None
    assert updates[2].is_keyframe
    assert [u.index for u in updates] == [0, 1, 2, 3]


def test_depth_beyond_the_limits_says_which_they_are():
    frames, _ = room()
    updates, _ = run(frames[:1], build(Config, {"rgbd.max_depth": 0.5}))
    assert updates[0].T_map_cam is None
    assert "0.2 and 0.5 m" in updates[0].reason


def test_a_covered_camera_is_lost_and_found_again():
    frames, truth = room()
    covered = {
        "image": np.zeros_like(frames[0].image),
        "depth": np.full_like(frames[0].depth, np.nan),
    }
    frames = [dataclasses.replace(f, **covered) if 8 <= i < 12 else f for i, f in enumerate(frames)]
    updates, backend = run(frames)
    states = [u.tracking for u in updates]
    assert states[8:12] == [Tracking.LOST] * 4
    assert all(u.T_map_cam is None and u.reason for u in updates[8:12])
    assert set(states[:8] + states[12:]) == {Tracking.TRACKING}
    assert errors(updates, truth)[0].max() < 0.03
    assert backend.statistics()["lost"] == backend.statistics()["found"] == 1


def test_a_jump_back_to_a_known_place_is_recognised():
    frames, truth = room()
    order = [*range(len(frames)), *range(4)]
    updates, _ = run([dataclasses.replace(frames[i], stamp_ns=n) for n, i in enumerate(order)])
    assert errors(updates, truth[order])[0][-4:].max() < 0.03


def with_prior(frames, truth, T_world_truth, first=0):
    return [
        dataclasses.replace(f, prior=T_world_truth @ T if i >= first else None)
        for i, (f, T) in enumerate(zip(frames, truth, strict=True))
    ]


WORLD = pose(so3_exp(np.array([0.1, -0.4, 2.0])), np.array([5.0, -3.0, 1.0]))


def test_a_prior_is_taken_as_it_is_when_asked_for_and_else_ignored():
    frames, truth = room()
    given = with_prior(frames[:6], truth[:6], WORLD)
    updates, _ = run(given, Config(prior=True))
    for u in updates:
        np.testing.assert_allclose(u.T_map_cam, WORLD @ truth[u.index], atol=1e-12)
    assert run(given)[0][0].T_map_cam[0, 3] == 0


def test_where_the_prior_is_missing_the_own_odometry_goes_on_in_its_world():
    frames, truth = room()
    given = with_prior(frames[:10], truth[:10], WORLD)
    given = [dataclasses.replace(f, prior=None) if i in (4, 5, 6) else f for i, f in enumerate(given)]
    updates, _ = run(given, Config(prior=True))
    assert max(np.linalg.norm(u.T_map_cam[:3, 3] - (WORLD @ truth[u.index])[:3, 3]) for u in updates) < 0.02


def test_a_prior_that_comes_late_does_not_tear_the_map():
    frames, truth = room()
    updates, _ = run(with_prior(frames[:10], truth[:10], WORLD, first=5), Config(prior=True))
    assert errors(updates, truth)[0].max() < 0.02


def test_frames_of_another_size_are_refused_and_take_no_index():
    frames, _ = room()
    _, backend = run(frames[:2])
    half = CAMERA.resized(120, 90)
    small = cv2.resize(frames[2].image, half.size)
    for reason, changes in {
        "image size": {"image": small, "camera": half},
        "depth size": {"depth": np.ones((90, 120), np.float32)},
        "no camera": {"camera": None},
    }.items():
        with pytest.raises(FrameError) as error:
            backend.step(dataclasses.replace(frames[2], **changes))
        assert error.value.reason == reason
    with pytest.raises(FrameError, match="its camera of 120x90"):
        backend.step(dataclasses.replace(frames[2], camera=half))
    assert backend.step(frames[2])[0].index == 2


def test_lenses_are_taken_out_of_depth_and_colours():
    frames, _ = room()
    lens = dataclasses.replace(CAMERA, model="plumb_bob", distortion=(-0.25, 0.08, 0.001, 0.0, 0.0))
    table = resampling_map(lens, CAMERA)
    bent = [
        dataclasses.replace(
            f,
            image=cv2.remap(f.image, table, None, cv2.INTER_LINEAR),
            depth=cv2.remap(f.depth, table, None, cv2.INTER_NEAREST),
            camera=lens,
        )
        for f in frames[:1]
    ]
    keyframe = run(bent)[0][0]
    assert keyframe.camera == CAMERA
    middle = np.s_[20:-20, 20:-20]
    ratio = (keyframe.depth / frames[0].depth)[middle]
    assert np.nanmedian(np.abs(ratio - 1)) < 0.01
    straight = np.abs(keyframe.colours[middle].astype(int) - frames[0].image[middle]).mean()
    assert straight < 0.5 * np.abs(bent[0].image[middle].astype(int) - frames[0].image[middle]).mean()


def test_depth_of_another_camera_gets_the_colours_it_sees():
    options = FlightOptions(frames=1, camera=CAMERA, depth=True)
    narrow = camera_of(200, 150, 50.0)
    colour = next(iter(SyntheticFlight("room", "orbit", options)))
    depth = next(iter(SyntheticFlight("room", "orbit", dataclasses.replace(options, camera=narrow))))
    keyframe = run([dataclasses.replace(colour, depth=depth.depth, depth_camera=narrow)])[0][0]
    assert keyframe.camera == narrow
    assert np.median(np.abs(keyframe.colours.astype(int) - depth.image)) <= 6


def test_depth_that_no_colour_belongs_to_is_left_out():
    frames, _ = room()
    wide = Camera(240, 180, 120.0, 120.0, 119.5, 89.5)
    keyframe = run(
        [dataclasses.replace(frames[0], depth=np.full((180, 240), 2.0, np.float32), depth_camera=wide)]
    )[0][0]
    assert np.isnan(keyframe.depth[:, 0]).all()
    assert np.isfinite(keyframe.depth[90, 120])


def test_along_a_flat_wall_the_texture_says_how_far():
    random = np.random.default_rng(0)
    wall = cv2.GaussianBlur(random.integers(0, 256, (180, 400), np.uint8), (0, 0), 2.0)
    wall = cv2.cvtColor(cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX), cv2.COLOR_GRAY2RGB)
    depth = np.full((180, 240), 2.0, np.float32)
    frames = [Frame(i, np.ascontiguousarray(wall[:, 4 * i : 4 * i + 240]), CAMERA, depth) for i in range(12)]
    truth = np.array([pose(np.eye(3), np.array([4 * i * 2.0 / CAMERA.fx, 0.0, 0.0])) for i in range(12)])
    updates, _ = run(frames)
    assert truth[-1, 0, 3] > 0.4
    assert errors(updates, truth)[0].max() < 0.01


def test_planes_are_fitted_through_noisy_depth():
    fx = fy = 100.0
    u, v = np.meshgrid(np.arange(60) - 30.0, np.arange(50) - 25.0)
    normal = np.array([0.3, -0.2, -0.9])
    normal /= np.linalg.norm(normal)
    rays = np.stack([u / fx, v / fy, np.ones_like(u)], axis=-1)
    depth = -2.0 / (rays @ normal)
    noisy = (depth + np.random.default_rng(2).normal(scale=0.003, size=depth.shape)).astype(np.float32)
    smooth, normals = fit_planes(noisy, fx, fy, 30.0, 25.0, 2, 0.03)
    inner = np.s_[2:-2, 2:-2]
    assert np.std((smooth - depth)[inner]) < 0.5 * np.std((noisy - depth)[inner])
    assert np.abs(np.nanmean((smooth - depth)[inner])) < 3e-4
    np.testing.assert_allclose(np.nanmean(normals[inner], axis=(0, 1)), normal, atol=0.01)


def test_planes_end_at_edges():
    depth = np.full((40, 40), 2.0, np.float32)
    depth[:, 20:] = 3.0
    smooth, _ = fit_planes(depth, 50.0, 50.0, 20.0, 20.0, 2, 0.03)
    known = np.isfinite(smooth)
    assert known.mean() > 0.7
    np.testing.assert_allclose(smooth[known], depth[known], rtol=1e-5)


def test_shrinking_does_not_mix_foreground_and_background():
    depth = np.array([[1.0, 1.01, 5.0, 5.0], [4.0, np.nan, 5.0, np.nan]], np.float32)
    np.testing.assert_allclose(shrink(depth, 2, 0.03), [[1.005, 5.0]], rtol=1e-6)
    assert np.isnan(shrink(np.full((2, 2), np.nan, np.float32), 2, 0.03)).all()


@pytest.mark.data
@pytest.mark.slow
def test_a_real_recording_is_followed_within_six_centimetres(data_dir):
    source = open_source(data_dir / "7scenes-redkitchen")
    updates, backend = run(source)
    assert len(backend.poses()) == source.length
    positions = np.array([u.T_map_cam[:3, 3] for u in updates])
    S = umeyama(positions, source.truth.positions, with_scale=False)
    ate = np.sqrt(((transform(S, positions) - source.truth.positions) ** 2).sum(axis=1).mean())
    assert ate < 0.06
