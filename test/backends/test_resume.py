# SPDX-License-Identifier: Apache-2.0
"""A map that was saved is found again by another backend object, in its own coordinates, and goes on being mapped."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import transform
from recon3d_ros.core.packing import part_of, unpack
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame, Gravity, Scale, Tracking
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

CAMERA = camera_of(320, 240, 70.0)
QUICK = {"geometric.depth_width": 80, "geometric.depth_planes": 16}
SAVED = 40
FLIGHTS = {"geometric": ("building", "orbit"), "rgbd": ("room", "forward")}


@cache
def flight(backend):
    options = FlightOptions(frames=62, camera=CAMERA, fps=10.0, depth=backend == "rgbd")
    flown = SyntheticFlight(*FLIGHTS[backend], options)
    return list(flown), np.array(flown.truth.poses)


def config(**values):
    return build(Config, {**QUICK, **values})


def fly(backend, frames, start_ns):
    """Answers that do not revise, by index."""
    updates = []
    for i, frame in enumerate(frames):
        updates += backend.step(dataclasses.replace(frame, stamp_ns=start_ns + i * 10**8))
    return {u.index: u for u in updates + backend.finish() if not u.revises}


@cache
def first(name):
    """Answers and map of a flight over the first part."""
    backend = registry.create(name, config())
    answers = fly(backend, flight(name)[0][:SAVED], 10**9)
    number, arrays = backend.saved()
    poses = backend.poses()
    backend.close()
    assert number == 0 and len(answers) == SAVED
    return poses, arrays


def resumed(name, **values):
    backend = registry.create(name, config(**values))
    backend.resume(first(name)[1])
    return backend


def error(name, poses, which):
    """Largest distance from the truth as a share of its path, in the coordinates of the first part's map."""
    truth = flight(name)[1][:, :3, 3]
    before = first(name)[0]
    S = umeyama(np.array([before[i][:3, 3] for i in sorted(before)]), truth[sorted(before)], True)
    there = transform(S, np.array([poses[i][:3, 3] for i in sorted(poses)]))
    path = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    return np.linalg.norm(there - truth[which], axis=1).max() / path


@pytest.mark.parametrize("name", FLIGHTS)
def test_a_second_flight_goes_on_in_the_map_of_the_first(name):
    backend = resumed(name)
    begin = SAVED - 10
    answers = fly(backend, flight(name)[0][begin:], 10**12)
    poses = backend.poses()
    backend.close()
    # Indices go on from those of the frames that the map was made of.
    assert sorted(answers) == list(range(SAVED, SAVED + 62 - begin))
    assert sorted(poses) == sorted(answers)
    assert {u.map_id for u in answers.values()} == {0}
    assert error(name, poses, np.arange(begin, 62)) < 0.005


@pytest.mark.parametrize("name", FLIGHTS)
def test_what_the_map_does_not_show_stays_lost_until_it_is_seen(name):
    backend = resumed(name)
    noise = np.random.default_rng(0)
    elsewhere = [
        dataclasses.replace(f, image=noise.integers(0, 255, f.image.shape, np.uint8))
        for f in flight(name)[0][:35]
    ]
    answers = fly(backend, [*elsewhere, *flight(name)[0][20:26]], 10**12)
    poses = backend.poses()
    backend.close()
    lost = [i for i in sorted(answers) if answers[i].tracking is Tracking.LOST]
    assert lost == list(range(SAVED, SAVED + 35))
    assert sorted(poses) == list(range(SAVED + 35, SAVED + 41))
    assert error(name, poses, np.arange(20, 26)) < 0.005


@pytest.mark.parametrize("name", FLIGHTS)
def test_a_map_that_went_on_can_be_saved_again(name):
    backend = resumed(name)
    fly(backend, flight(name)[0][30:50], 10**12)
    arrays = backend.saved()[1]
    backend.close()
    again = registry.create(name, config())
    again.resume(arrays)
    fly(again, flight(name)[0][44:62], 10**13)
    poses = again.poses()
    again.close()
    assert sorted(poses) == list(range(SAVED + 20, SAVED + 38))
    assert error(name, poses, np.arange(44, 62)) < 0.005


def test_a_reset_forgets_the_loaded_map():
    backend = resumed("geometric")
    backend.reset()
    answers = fly(backend, flight("geometric")[0][:20], 10**12)
    backend.close()
    assert sorted(answers) == list(range(20)) and Tracking.LOST not in {u.tracking for u in answers.values()}


def test_loops_with_the_keyframes_of_a_loaded_map_are_known():
    arrays = first("geometric")[1]
    backend = resumed("geometric", **{"geometric.loops": True})
    closer = backend.inner._session.current.loops
    looks = dict(
        zip(arrays["map.view_index"].tolist(), unpack(part_of("map.view_grey", arrays)), strict=True)
    )
    index = arrays["loops.places.index"].tolist()[-1]
    assert len(arrays["loops.places.index"]) == len(arrays["loops.landmarks.index"]) >= 5
    assert closer.alike(looks[index].reshape(240, 320), best=1) == [index]
    backend.close()


def test_metres_and_gravity_of_a_loaded_map_stay():
    frames, truth = flight("geometric")
    given = [dataclasses.replace(f, prior=T) for f, T in zip(frames, truth, strict=True)]
    backend = registry.create("geometric", config(prior=True))
    fly(backend, given[:SAVED], 10**9)
    arrays = backend.saved()[1]
    backend.close()
    again = registry.create("geometric", config(prior=True))
    again.resume(arrays)
    # Odometry that was started again elsewhere must not move the map.
    shift = np.eye(4)
    shift[:3, 3] = 100.0, 50.0, 3.0
    moved = [dataclasses.replace(f, prior=shift @ T) for f, T in zip(frames, truth, strict=True)]
    answers = fly(again, moved[30:], 10**12)
    poses = again.poses()
    again.close()
    newest = answers[max(answers)]
    assert (newest.scale, newest.gravity) == (Scale.PRIOR, Gravity.PRIOR)
    found = np.array([poses[i][:3, 3] for i in sorted(poses)])
    assert np.abs(found - truth[30:, :3, 3]).max() < 0.3


def test_another_camera_goes_on_in_the_map():
    small = camera_of(256, 192, 75.0)
    options = FlightOptions(frames=62, camera=small, fps=10.0)
    frames = list(SyntheticFlight("building", "orbit", options))
    backend = resumed("geometric")
    fly(backend, frames[30:45], 10**12)
    poses = backend.poses()
    arrays = backend.saved()[1]
    backend.close()
    assert len(poses) == 15 and error("geometric", poses, np.arange(30, 45)) < 0.01
    # Saved again, the images of both are there: the first camera finds its place too.
    assert arrays["map.lenses"] == 2 and arrays["map.lens0.camera.values"][:2].tolist() == [256, 192]
    again = registry.create("geometric", config())
    again.resume(arrays)
    fly(again, flight("geometric")[0][4:8], 10**13)
    poses = again.poses()
    again.close()
    assert len(poses) == 4 and error("geometric", poses, np.arange(4, 8)) < 0.005


def test_without_a_map_there_is_nothing_to_save():
    for name in FLIGHTS:
        backend = registry.create(name, config())
        with pytest.raises(InputError, match="there is no map yet"):
            backend.saved()
        backend.close()


def test_given_poses_keep_no_map():
    backend = registry.create("geometric", config(**{"prior": True, "geometric.mapping_only": True}))
    with pytest.raises(InputError, match="mapping_only"):
        backend.resume(first("geometric")[1])
    backend.step(Frame(1, flight("geometric")[0][0].image, CAMERA, prior=np.eye(4)))
    with pytest.raises(InputError, match="save_map"):
        backend.saved()
    backend.close()
