# SPDX-License-Identifier: Apache-2.0
"""The geometric backend on synthetic flights with exact truth, and on what goes wrong with real cameras."""

import dataclasses
from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import body_from_optical, inverse, pose, rotation_angle, so3_exp, transform
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame, Scale, Tracking
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.render import render

CAMERA = camera_of(320, 240, 70.0)
BLACK = np.zeros((240, 320, 3), np.uint8)
QUICK = build(Config, {"geometric.depth_width": 80, "geometric.depth_planes": 16})


@cache
def orbit(frames=40, camera=CAMERA, fps=10.0):
    """Frames of a flight around a building, and their true poses."""
    flight = SyntheticFlight("building", "orbit", FlightOptions(frames=frames, camera=camera, fps=fps))
    return list(flight), flight.truth.poses


def run(frames, config=QUICK, realtime=False):
    """All updates of a new backend, and the backend."""
    backend = registry.create("geometric", config, realtime)
    updates = [update for frame in frames for update in backend.step(frame)] + backend.finish()
    backend.close()
    return updates, backend


def answers(updates):
    """The one answer to each frame, by index."""
    first = [u for u in updates if not u.revises]
    assert len({u.index for u in first}) == len(first)
    return {u.index: u for u in first}


def share_of_path(poses, truth):
    """RMS of the positions (frame index -> pose) after Sim(3) alignment, as a share of the true path."""
    indices = sorted(poses)
    est, true = np.array([poses[i][:3, 3] for i in indices]), np.array([truth[i][:3, 3] for i in indices])
    rms = np.sqrt(((transform(umeyama(est, true), est) - true) ** 2).sum(axis=1).mean())
    return rms / np.linalg.norm(np.diff(true, axis=0), axis=1).sum()


def with_image(frame, image):
    return dataclasses.replace(frame, image=image)


def restamped(frames):
    return [dataclasses.replace(f, stamp_ns=10**8 * i) for i, f in enumerate(frames)]


@cache
def flown():
    return run(orbit()[0])


def test_every_frame_of_a_flight_is_answered_once_and_posed():
    updates, backend = flown()
    assert sorted(answers(updates)) == list(range(40))
    assert {u.tracking for u in updates} == {Tracking.TRACKING}
    assert {u.scale for u in updates} == {Scale.UNKNOWN}
    assert sorted(backend.poses()) == list(range(40))


def test_the_poses_follow_the_truth():
    assert share_of_path(flown()[1].poses(), orbit()[1]) < 0.002


def test_the_map_begins_at_the_first_camera_with_median_depth_one():
    updates, _ = flown()
    first = answers(updates)[0]
    assert first.is_keyframe and first.reason == "first"
    assert first.T_map_cam == pytest.approx(body_from_optical())
    depth = next(u.depth for u in updates if u.revises and u.index == 0)
    assert np.nanmedian(depth) == pytest.approx(1.0, rel=0.3)


def test_keyframes_are_announced_at_once_and_get_their_depth_later():
    updates, _ = flown()
    announced = [u for u in updates if u.is_keyframe and not u.revises]
    revised = [u for u in updates if u.revises]
    assert len(announced) > 5
    assert all(u.depth is None and u.reason for u in announced)
    assert {u.index for u in revised} <= {u.index for u in announced}
    assert len(revised) >= len(announced) - 1
    for u in revised:
        assert u.depth.shape == u.colours.shape[:2] == (u.camera.height, u.camera.width)
        assert u.camera.model == "pinhole"


def test_the_depth_is_that_of_the_scene():
    truth = orbit()[1]
    updates, backend = flown()
    poses = backend.poses()
    S = umeyama(np.array([poses[i][:3, 3] for i in range(40)]), truth[:, :3, 3])
    scene = SyntheticFlight("building", "orbit", FlightOptions(camera=CAMERA)).scene
    for u in [u for u in updates if u.revises][3:6]:
        true = render(scene, u.camera, truth[u.index])[1]
        ratio = np.cbrt(np.linalg.det(S[:3, :3])) * u.depth / true
        assert abs(np.nanmedian(ratio) - 1) < 0.02


def test_corrections_tell_where_older_keyframes_moved():
    updates, backend = flown()
    told = {}
    for u in updates:
        if u.is_keyframe and not u.revises:
            told[u.index] = u.T_map_cam
        assert set(u.corrections) <= set(told)
        told |= u.corrections
    assert any(u.corrections for u in updates)
    poses = backend.poses()
    for index, T in told.items():
        assert np.linalg.norm(T[:3, 3] - poses[index][:3, 3]) < 5e-3


@pytest.mark.parametrize("threads", [1, 2])
def test_poses_are_the_same_bits_live_and_offline_with_any_number_of_threads(threads):
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        updates, backend = run(orbit()[0], realtime=True)
    finally:
        cv2.setNumThreads(before)
    expected, reference = flown()
    assert {i: T.tobytes() for i, T in backend.poses().items()} == {
        i: T.tobytes() for i, T in reference.poses().items()
    }
    assert [answers(updates)[i].T_map_cam.tobytes() for i in range(40)] == [
        answers(expected)[i].T_map_cam.tobytes() for i in range(40)
    ]


def test_after_a_reset_the_same_frames_give_the_same_map():
    frames = orbit()[0][:12]
    backend = registry.create("geometric", QUICK)
    first = [u for f in frames for u in backend.step(f)]
    backend.reset()
    assert backend.poses() == {}
    second = [u for f in frames for u in backend.step(f)]
    backend.close()
    poses = [[u.T_map_cam.tobytes() for u in updates if not u.revises] for updates in (first, second)]
    assert poses[0] == poses[1] and len(poses[0]) == 12


def test_a_camera_covered_for_a_moment_is_lost_and_found_again():
    frames, truth = orbit()
    updates, backend = run([with_image(f, BLACK) if 15 <= i < 19 else f for i, f in enumerate(frames)])
    states = [answers(updates)[i].tracking for i in range(40)]
    assert states[15:19] == [Tracking.LOST] * 4
    assert set(states[:15] + states[19:]) == {Tracking.TRACKING}
    assert all(answers(updates)[i].T_map_cam is None and answers(updates)[i].reason for i in range(15, 19))
    assert share_of_path(backend.poses(), truth) < 0.004


def test_a_step_of_the_exposure_does_not_lose_the_camera():
    frames, truth = orbit()
    dark = [with_image(f, (0.55 * f.image).astype(np.uint8)) if i >= 20 else f for i, f in enumerate(frames)]
    updates, backend = run(dark)
    assert {u.tracking for u in updates} == {Tracking.TRACKING}
    assert share_of_path(backend.poses(), truth) < 0.004


def test_photos_far_apart_are_matched():
    frames, truth = orbit(8, fps=0.9)
    updates, backend = run(frames)
    assert len(backend.poses()) == 8
    assert "matched" in {u.reason for u in updates}
    assert share_of_path(backend.poses(), truth) < 0.01


def test_another_place_is_not_taken_for_the_map():
    flight = SyntheticFlight("room", "orbit", FlightOptions(frames=10, camera=CAMERA))
    updates, _ = run(restamped(orbit()[0][:20] + list(flight)))
    assert [answers(updates)[i].tracking for i in range(20, 30)] == [Tracking.LOST] * 10


def turning(flight, T, degrees):
    """Frames that a camera sees turning about its place from pose T, and their poses."""
    poses = [T @ pose(so3_exp(np.array([0.0, np.radians(a), 0.0])), np.zeros(3)) for a in degrees]
    return [Frame(0, render(flight.scene, CAMERA, P)[0], CAMERA) for P in poses], poses


def test_a_turn_in_place_beyond_the_map_and_back_keeps_the_orientation_and_the_map():
    flight = SyntheticFlight("room", "orbit", FlightOptions(frames=24, camera=CAMERA, fps=5.0))
    frames, truth = list(flight), flight.truth.poses
    away = list(range(6, 91, 6))
    turned, poses = turning(flight, truth[15], away + away[::-1])
    updates, backend = run(restamped(frames[:16] + turned + frames[16:]))
    truth = np.concatenate([truth[:16], poses, truth[16:]])
    assert sorted(backend.poses()) == list(range(len(truth)))
    assert {u.tracking for u in updates} == {Tracking.TRACKING, Tracking.ROTATION_ONLY}
    tracked = {i: T for i, T in backend.poses().items() if answers(updates)[i].tracking is Tracking.TRACKING}
    assert share_of_path(tracked, truth) < 0.01
    for i, T in backend.poses().items():
        error = (inverse(backend.poses()[0]) @ T)[:3, :3].T @ (inverse(truth[0]) @ truth[i])[:3, :3]
        assert rotation_angle(error) < np.radians(2)


def nothing(kind):
    rng = np.random.default_rng(0)
    image = {"black": BLACK, "grey": np.full_like(BLACK, 128), "still": orbit()[0][0].image}.get(kind)
    for i in range(12):
        noise = rng.integers(0, 255, BLACK.shape, dtype=np.uint8) if image is None else image
        yield Frame(10**8 * i, noise, CAMERA)


@pytest.mark.parametrize("kind", ["black", "grey", "still", "noise"])
def test_without_anything_to_see_the_map_does_not_begin_and_every_frame_is_answered(kind):
    updates, backend = run(nothing(kind))
    assert [(u.index, u.tracking, u.T_map_cam) for u in updates] == [
        (i, Tracking.INITIALISING, None) for i in range(12)
    ]
    assert all(u.reason for u in updates)
    assert backend.poses() == {}


def test_a_camera_that_waits_long_before_it_moves_gets_answers_meanwhile():
    frames = orbit()[0]
    backend = registry.create("geometric", QUICK)
    waiting = [u for f in restamped([frames[0]] * 330) for u in backend.step(f)]
    assert [u.index for u in waiting] == list(range(30))
    rest = [u for f in frames[1:12] for u in backend.step(f)] + backend.finish()
    backend.close()
    assert sorted(answers(waiting + rest)) == list(range(341))
    assert set(range(330, 341)) <= set(backend.poses())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((120, 160, 3), np.uint8),
        np.zeros((240, 320), np.uint8),
        np.zeros((240, 320, 4), np.uint8),
        np.zeros((240, 320, 3), np.float32),
    ],
)
def test_an_image_of_another_kind_is_refused_and_changes_nothing(image):
    frames = orbit()[0]
    backend = registry.create("geometric", QUICK)
    updates = [u for f in frames[:6] for u in backend.step(f)]
    with pytest.raises(FrameError) as refused:
        backend.step(with_image(frames[6], image))
    assert refused.value.reason == "image size"
    updates += [u for f in frames[6:12] for u in backend.step(f)]
    backend.close()
    assert sorted(answers(updates)) == list(range(12))


def test_a_camera_for_another_image_size_is_refused():
    backend = registry.create("geometric", QUICK)
    frame = dataclasses.replace(orbit()[0][0], camera=camera_of(640, 480, 70.0))
    with pytest.raises(FrameError, match="640x480"):
        backend.step(frame)


def test_lens_distortion_is_taken_out():
    camera = Camera(320, 240, 220.0, 222.0, 162.0, 118.0, "plumb_bob", (-0.25, 0.06, 0.001, -0.001, 0.0))
    frames, truth = orbit(24, camera)
    _, backend = run(frames)
    assert share_of_path(backend.poses(), truth) < 0.005


def test_a_guessed_camera_tracks_and_a_missing_one_is_refused():
    frames = [dataclasses.replace(f, camera=Camera.guess(320, 240)) for f in orbit()[0][:20]]
    _, backend = run(frames)
    assert len(backend.poses()) == 20
    with pytest.raises(FrameError, match="no camera"):
        backend.step(dataclasses.replace(frames[0], camera=None))


def test_grey_images_track_as_well():
    frames, truth = orbit()
    grey = [with_image(f, np.repeat(f.image[..., 1:2], 3, axis=2)) for f in frames[:20]]
    _, backend = run(grey)
    assert share_of_path(backend.poses(), truth) < 0.005


def test_another_camera_of_the_same_image_size_may_take_over_in_mid_stream():
    frames, truth = orbit(24)
    other = camera_of(320, 240, 60.0)
    frames = frames[:12] + orbit(24, other)[0][12:]
    updates, backend = run(frames)
    assert Counter(u.tracking for u in answers(updates).values())[Tracking.TRACKING] >= 23
    assert share_of_path(backend.poses(), truth) < 0.005


def test_large_images_are_tracked_at_a_smaller_size():
    frames, truth = orbit(8)
    large = Camera(
        1920, 1440, *(6 * v for v in (CAMERA.fx, CAMERA.fy)), 6 * CAMERA.cx + 2.5, 6 * CAMERA.cy + 2.5
    )
    frames = [dataclasses.replace(f, image=cv2.resize(f.image, large.size), camera=large) for f in frames]
    _, backend = run(frames)
    assert len(backend.poses()) == 8
    assert share_of_path(backend.poses(), truth) < 0.01


def test_statistics_name_the_stages():
    statistics = flown()[1].statistics()
    assert statistics["keyframes"] > 5 and statistics["depth_dropped"] == 0
    assert {"track_ms", "pose_ms", "ba_ms"} <= set(statistics)
