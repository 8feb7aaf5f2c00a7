# SPDX-License-Identifier: Apache-2.0
"""The pipeline around a backend: what is counted, what is recorded, what reaches the store."""

import numpy as np
import pytest

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.geometry import pose
from recon3d_ros.core.types import Frame, Gravity, Scale, Tracking, Update
from recon3d_ros.runtime.pipeline import Pipeline, demand
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore

CAMERA = Camera(32, 24, 30, 30, 15.5, 11.5)
IMAGE = np.full((24, 32, 3), 100, np.uint8)


class Sideways:
    """A backend that moves one unit sideways a frame; every third frame is a keyframe whose depth comes one frame late."""

    capabilities = Capabilities()

    def __init__(self):
        self.reset()

    def reset(self):
        self.seen, self.owed = [], []

    def step(self, frame):
        if frame.image.shape != IMAGE.shape:
            raise FrameError("image size", "another size")
        index = len(self.seen)
        self.seen.append(frame)
        out, self.owed = self.owed, []
        keyframe = index % 3 == 0
        out.append(self.update(index, is_keyframe=keyframe, reason="flow" if keyframe else ""))
        if keyframe:
            depth = np.full((24, 32), 2.0, np.float32)
            self.owed = [
                self.update(index, is_keyframe=True, revises=True, depth=depth, colours=IMAGE, camera=CAMERA)
            ]
        return out

    def update(self, index, **fields):
        return Update(index, self.seen[index].stamp_ns, self.poses()[index], Tracking.TRACKING, **fields)

    def finish(self):
        return self.owed

    def poses(self):
        return {i: pose(np.eye(3), np.array([float(i), 0, 0])) for i in range(len(self.seen))}

    def statistics(self):
        return {}

    def close(self):
        pass


@pytest.fixture
def pipeline():
    config = Config()
    return Pipeline(config, Sideways(), KeyframeStore(HeapArena(), config.store, config.cloud))


def frames(n, start=1):
    return [Frame((start + i) * 10**8, IMAGE, CAMERA) for i in range(n)]


def test_every_frame_is_answered_and_late_depth_completes_the_keyframe(pipeline):
    steps = [s for f in frames(7) for s in pipeline.step(f)] + pipeline.finish()
    assert [s.update.index for s in steps if not s.update.revises] == list(range(7))
    stored = [s.keyframe for s in steps if s.keyframe is not None]
    assert [k.id for k in stored] == [0, 3, 6] == list(pipeline.keyframes)
    assert all(len(k.points) == 24 * 32 for k in stored)
    assert stored[1].points[:, 2].min() == 2.0 and stored[1].T_map_cam[0, 3] == 3.0
    assert len(pipeline.cloud.points) > 0


def test_the_trajectory_carries_the_stamps_of_the_images(pipeline):
    for frame in frames(5):
        pipeline.step(frame)
    trajectory = pipeline.trajectory()
    assert trajectory.stamps_ns.tolist() == [f.stamp_ns for f in frames(5)]
    assert trajectory.positions[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_bad_frames_are_counted_by_reason_and_take_no_index(pipeline):
    a, b, c = frames(3)
    big = Frame(b.stamp_ns + 1, np.zeros((48, 64, 3), np.uint8), CAMERA)
    for frame in (a, b, b, a, big, c):
        pipeline.step(frame)
    assert pipeline.metrics.drops == {"stamp repeated": 1, "stamp backwards": 1, "image size": 1}
    assert pipeline.frames == 3


def test_of_many_keyframes_at_once_each_is_held_when_it_is_passed_on(pipeline):
    for frame in frames(40):
        pipeline.step(frame)
    backend, depth = pipeline.reconstructor, np.full((24, 32), 2.0, np.float32)
    seen = {"depth": depth, "colours": IMAGE, "camera": CAMERA}
    backend.owed = [backend.update(i, is_keyframe=True, revises=True, **seen) for i in range(0, 39, 3)]
    held = []
    steps = pipeline.finish(lambda step: held.append(pipeline.store.get(step.update.index) is step.keyframe))
    assert held == [True] * 13 == [step.keyframe is not None for step in steps]


def test_a_stamp_in_the_future_costs_a_few_frames_and_not_the_flight(pipeline):
    a, *others = frames(31)
    for frame in (a, Frame(10**18, a.image, CAMERA), *others):
        pipeline.step(frame)
    assert pipeline.metrics.drops == {"stamp backwards": 9} and pipeline.frames == 2 + 21
    assert pipeline.trajectory().stamps_ns[-2:].tolist() == [others[-1].stamp_ns, 10**18]


def test_a_prior_that_is_no_pose_is_left_out_and_counted(pipeline):
    pipeline.step(Frame(1, IMAGE, CAMERA, prior=np.full((4, 4), np.nan)))
    assert pipeline.metrics.drops == {"prior invalid": 1}
    assert pipeline.reconstructor.seen[0].prior is None


def test_images_without_a_camera_get_a_guessed_one(pipeline):
    pipeline.step(Frame(1, IMAGE))
    assert pipeline.reconstructor.seen[0].camera == Camera.guess(32, 24)


def test_reset_begins_a_new_map_and_old_stamps_are_welcome_again(pipeline):
    for frame in frames(4, start=100):
        pipeline.step(frame)
    pipeline.reset()
    assert pipeline.frames == 0 and len(pipeline.cloud.points) == 0
    for frame in frames(2):
        pipeline.step(frame)
    assert pipeline.frames == 2 and not pipeline.metrics.drops


def test_a_backend_that_needs_depth_is_refused_where_there_is_none():
    class NeedsDepth(Sideways):
        capabilities = Capabilities(needs_depth=True)

    with pytest.raises(InputError, match="--backend geometric"):
        demand(NeedsDepth(), "rgbd", has_depth=False)


def test_a_position_or_gravity_that_is_none_is_left_out_and_counted(pipeline):
    pipeline.step(Frame(1, IMAGE, CAMERA, position=np.full(3, np.nan), up=np.zeros((2, 2))))
    assert pipeline.metrics.drops == {"position invalid": 1, "up invalid": 1}
    assert pipeline.reconstructor.seen[0].position is None and pipeline.reconstructor.seen[0].up is None


def test_a_scale_that_becomes_known_late_is_the_state_at_the_end(pipeline):
    pipeline.step(frames(1)[0])
    told = pipeline.reconstructor.update(0, revises=True, scale=Scale.PRIOR, gravity=Gravity.GPS)
    pipeline.reconstructor.owed = [told]
    pipeline.finish()
    assert (pipeline.scale, pipeline.gravity) == (Scale.PRIOR, Gravity.GPS)
