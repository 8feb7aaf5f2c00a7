# SPDX-License-Identifier: Apache-2.0
"""What the geometric backend does when the images stop making sense: cuts, blanks, steps of the light, covered lenses,
moving scenes, other cameras. It may be lost or begin another map; it never puts a frame to a false place."""

import dataclasses
from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import transform
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame, Tracking
from recon3d_ros.runtime.pipeline import Pipeline
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

CAMERA = camera_of(320, 240, 70.0)
QUICK = build(Config, {"geometric.depth_width": 80, "geometric.depth_planes": 16})
#: Share of the path that the frames of a map may be off.
BAR = 0.003


@cache
def orbit(camera=CAMERA):
    """Frames 2 degrees apart around a building, and their true poses."""
    flight = SyntheticFlight("building", "orbit", FlightOptions(frames=62, camera=camera, fps=10.0))
    return list(flight), flight.truth.poses


class Outcome:
    """A run: the answer to every frame, and poses by map."""

    def __init__(self, frames, config=QUICK):
        frames = [dataclasses.replace(f, stamp_ns=10**8 * i) for i, f in enumerate(frames)]
        backend = registry.create("geometric", config)
        store = KeyframeStore(HeapArena(), config.store, config.cloud)
        self.pipeline = Pipeline(config, backend, store)
        self.steps = [s for f in frames for s in self.pipeline.step(f)] + self.pipeline.finish()
        backend.close()
        updates = [s.update for s in self.steps]
        self.answers = {u.index: u for u in updates if not u.revises}
        assert sorted(self.answers) == list(range(len(frames)))
        assert sum(not u.revises for u in updates) == len(frames)
        self.poses, self.maps = backend.poses(), self.pipeline.maps.frames
        self.joins = [u.join for u in updates if u.join is not None]
        self.statistics = backend.statistics()

    def states(self, frames=slice(None)):
        return [self.answers[i].tracking for i in range(len(self.answers))][frames]

    def frames_of(self, number):
        return [i for i in sorted(self.poses) if self.maps[i] == number]

    def errors(self, truth):
        """Error of each map after Sim(3) alignment, as a share of its path."""
        return {m: self._error(self.frames_of(m), truth) for m in sorted(set(self.maps.values()))}

    def _error(self, frames, truth):
        est, true = (np.array([T[i][:3, 3] for i in frames]) for T in (self.poses, truth))
        rms = np.sqrt(((transform(umeyama(est, true), est) - true) ** 2).sum(axis=1).mean())
        return rms / np.linalg.norm(np.diff(true, axis=0), axis=1).sum()


def flown(order):
    """The orbit in another order of frames: the outcome and the true poses."""
    frames, truth = orbit()
    return Outcome([frames[i] for i in order]), truth[order]


def with_image(frame, image):
    return dataclasses.replace(frame, image=image)


def replaced(images, start, end=None, frames=None):
    """The orbit with other images from frame `start` on; `images`: frame image -> image."""
    frames = list(frames or orbit()[0])
    return [with_image(f, images(f.image)) if start <= i < (end or 99) else f for i, f in enumerate(frames)]


@cache
def cut():
    """A cut by 52 degrees, far enough that nothing is recognised."""
    return flown([*range(20), *range(46, 62)])


def test_after_a_cut_another_map_begins_and_both_are_right():
    outcome, truth = cut()
    assert set(outcome.states()) == {Tracking.TRACKING, Tracking.LOST}
    assert outcome.states(slice(None, 20)) == [Tracking.TRACKING] * 20
    assert outcome.states()[-1] is Tracking.TRACKING
    assert outcome.states().count(Tracking.LOST) <= 14
    errors = outcome.errors(truth)
    assert list(errors) == [0, 1] and max(errors.values()) < BAR
    assert outcome.statistics["maps"] == 2


def test_frames_that_were_lost_get_their_pose_in_the_map_that_began_with_them():
    outcome, _ = cut()
    assert len(outcome.frames_of(1)) >= 10
    late = [i for i in outcome.frames_of(1) if outcome.answers[i].tracking is Tracking.LOST]
    assert late and all(outcome.answers[i].T_map_cam is None for i in late)


def test_trajectories_never_mix_two_maps():
    outcome, _ = cut()
    trajectories = outcome.pipeline.trajectories()
    assert {number: len(t) for number, t in trajectories.items()} == {
        number: len(outcome.frames_of(number)) for number in (0, 1)
    }
    assert len(outcome.pipeline.trajectory()) == max(len(t) for t in trajectories.values())


def test_what_is_shown_begins_anew_with_the_map():
    outcome, _ = cut()
    begins = [s for s in outcome.steps if s.begins]
    assert [s.update.map_id for s in begins] == [1]
    at = outcome.steps.index(begins[0])
    assert {s.update.map_id for s in outcome.steps[:at]} == {0}
    assert {s.update.map_id for s in outcome.steps[at:] if s.keyframe is not None} == {1}
    assert outcome.pipeline.cloud is outcome.pipeline.maps.clouds[1]
    assert all(len(cloud) for cloud in outcome.pipeline.maps.clouds.values())


@pytest.mark.parametrize("jump", [15, 24])
def test_after_a_cut_no_frame_is_put_to_a_false_place(jump):
    outcome, truth = flown([*range(20), *range(19 + jump, 37 + jump)])
    assert max(outcome.errors(truth).values()) < BAR


@cache
def joined():
    """A cut, and a flight from there back to where the first map is."""
    return flown([*range(12), *range(42, 8, -1)])


def keyframes_before_the_join(outcome, number):
    """Indices of the keyframes that a map had when it was joined."""
    at = next(i for i, s in enumerate(outcome.steps) if s.update.join is not None)
    updates = [s.update for s in outcome.steps[:at]]
    return {u.index for u in updates if u.is_keyframe and u.map_id == number}


def test_a_map_that_sees_an_older_one_again_is_joined_to_it_in_one_scale():
    outcome, truth = joined()
    (join,) = outcome.joins
    assert len(keyframes_before_the_join(outcome, join.moved)) <= len(
        keyframes_before_the_join(outcome, join.kept)
    )
    assert set(outcome.maps.values()) == {0}
    assert outcome.errors(truth)[0] < BAR
    assert outcome.statistics["maps"] == 1 and outcome.statistics["maps_joined"] == 1
    assert list(outcome.pipeline.maps.clouds) == [0]


def test_a_joined_map_moves_its_keyframes_by_corrections():
    outcome, _ = joined()
    update = next(s.update for s in outcome.steps if s.update.join is not None)
    moved = keyframes_before_the_join(outcome, update.join.moved)
    assert moved and moved <= set(update.corrections)
    for i, T in update.corrections.items():
        assert np.linalg.norm(T[:3, 3] - outcome.poses[i][:3, 3]) < 0.02


def test_six_blank_frames_are_lost_and_the_next_ones_found():
    truth = orbit()[1]
    outcome = Outcome(replaced(np.zeros_like, 15, 21)[:30])
    assert outcome.states(slice(15, 21)) == [Tracking.LOST] * 6
    assert set(outcome.states(slice(21, None))) == {Tracking.TRACKING}
    assert outcome.errors(truth) == {0: pytest.approx(0, abs=BAR)}


def test_a_step_of_the_exposure_is_followed():
    outcome = Outcome(replaced(lambda image: (0.55 * image).astype(np.uint8), 15)[:30])
    assert set(outcome.states()) == {Tracking.TRACKING}
    assert outcome.errors(orbit()[1])[0] < BAR


def noise(image):
    return np.random.default_rng(int(image[0, 0, 0])).integers(0, 255, image.shape, dtype=np.uint8)


@pytest.mark.parametrize("cap", [np.zeros_like, lambda i: np.full_like(i, 255), noise])
def test_a_lens_cap_for_three_seconds_is_lost_and_what_follows_is_found(cap):
    frames, truth = orbit()
    order = [*range(16), *[15] * 31, *range(16, 24)]
    covered = replaced(cap, 16, 47, [frames[i] for i in order])
    outcome = Outcome(covered)
    assert outcome.states(slice(16, 47)) == [Tracking.LOST] * 31
    assert set(outcome.states(slice(47, None))) == {Tracking.TRACKING}
    assert set(outcome.maps.values()) == {0}
    assert outcome.errors(truth[order])[0] < BAR


@pytest.mark.parametrize("at", [0, 15])
def test_a_frame_that_comes_twice_does_no_harm(at):
    order = [*range(at + 1), *range(at, 24)]
    outcome, truth = flown(order)
    assert set(outcome.states()) == {Tracking.TRACKING}
    assert outcome.errors(truth)[0] < BAR
    T, again = outcome.poses[at], outcome.poses[at + 1]
    assert np.linalg.norm(T[:3, 3] - again[:3, 3]) < 2e-3


def test_missing_frames_are_bridged():
    order = [i for i in range(40) if not (8 <= i < 16 and i % 2) and not (20 <= i < 36 and i % 4)]
    outcome, truth = flown(order)
    assert set(outcome.states()) == {Tracking.TRACKING}
    assert outcome.errors(truth)[0] < BAR


def test_one_channel_repeated_is_enough():
    truth = orbit()[1]
    outcome = Outcome(replaced(lambda image: np.repeat(image[..., 1:2], 3, axis=2), 0)[:24])
    assert set(outcome.states()) == {Tracking.TRACKING}
    assert outcome.errors(truth)[0] < BAR


def dots(count=36):
    """Dots that wander about, each its own way."""
    rng = np.random.default_rng(1)
    at, way = rng.uniform(20, 220, (150, 2)), rng.normal(0, 3, (150, 2))
    for i in range(count):
        image = np.full((240, 320, 3), 90, np.uint8)
        for x, y in at + i * way:
            cv2.circle(image, (int(x * 1.3) % 320, int(y) % 240), 4, (230, 230, 60), -1)
        yield Frame(10**8 * i, image, CAMERA)


def test_a_scene_in_which_everything_moves_makes_no_map():
    outcome = Outcome(list(dots(20)))
    assert set(outcome.states()) == {Tracking.INITIALISING}
    assert outcome.poses == {}


def test_a_scene_in_which_everything_moves_does_not_disturb_the_map():
    frames, truth = orbit()
    outcome = Outcome([*frames[:14], *dots(36), *frames[14:22]])
    assert not {Tracking.TRACKING, Tracking.ROTATION_ONLY} & set(outcome.states(slice(16, 50)))
    assert outcome.states()[-1] is Tracking.TRACKING
    order = [*range(14), *[0] * 36, *range(14, 22)]
    assert outcome.errors(truth[order])[0] < BAR


def test_images_without_texture_are_lost_and_counted():
    ramp = np.repeat(np.linspace(60, 180, 320).astype(np.uint8)[None, :, None], 240, axis=0).repeat(3, axis=2)
    outcome = Outcome(replaced(lambda _: ramp, 12, 20)[:26])
    assert outcome.states(slice(12, 20)) == [Tracking.LOST] * 8
    assert outcome.statistics["lost"] == 8
    assert outcome.errors(orbit()[1])[0] < BAR


def test_a_camera_of_another_size_is_refused_until_a_reset():
    frames, _ = orbit()
    small = [
        dataclasses.replace(f, image=cv2.resize(f.image, (160, 120)), camera=CAMERA.resized(160, 120))
        for f in frames[8:14]
    ]
    backend = registry.create("geometric", QUICK)
    for f in frames[:8]:
        backend.step(f)
    for f in small:
        with pytest.raises(FrameError, match="those before were"):
            backend.step(f)
    backend.reset()
    states = Counter(u.tracking for f in small for u in backend.step(f))
    backend.close()
    assert Tracking.LOST not in states
