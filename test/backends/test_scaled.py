# SPDX-License-Identifier: Apache-2.0
"""A map of unknown scale becomes metric and level by what comes with its frames: when, by how much, and what becomes of
what was given out before."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.backends.base import Capabilities
from recon3d_ros.backends.ground import ground_plane
from recon3d_ros.backends.metric_scale import levelling
from recon3d_ros.backends.scaled import ScaledReconstructor
from recon3d_ros.core.align import umeyama
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import apply_similarity, inverse, pose, rotation_angle, similarity, so3_exp
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Frame, Gravity, Join, Scale, Tracking, Update
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

IMAGE = np.zeros((24, 32, 3), np.uint8)
CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
#: World in metres <- engine's world, of every test here.
S = similarity(3.7, so3_exp(np.array([0.3, -0.5, 0.8])), np.array([5.0, 6.0, 7.0]))
SCALE = 3.7


def curve(count, step=0.3):
    """Poses in the engine's world along a path that spans all directions."""
    t = step * np.arange(count)
    centres = np.stack([t, 1.5 * np.sin(0.7 * t), 0.4 * np.cos(1.1 * t)], axis=1)
    return [pose(so3_exp(np.array([0.02 * i, 0.1 * np.sin(i), 0.05 * i])), c) for i, c in enumerate(centres)]


class Engine:
    """Knows its poses. Every `every`-th frame is a keyframe, whose depth of 2 comes `late` frames after it."""

    capabilities = Capabilities()

    def __init__(self, poses, every=1, late=2, drift=0.0, maps=None):
        self.own, self.every, self.late, self.maps = dict(enumerate(poses)), every, late, maps or {}
        # The unit grows from frame to frame: distances measured in it shrink.
        for i in range(1, len(poses)) if drift else ():
            way = poses[i][:3, 3] - poses[i - 1][:3, 3]
            self.own[i] = pose(poses[i][:3, :3], self.own[i - 1][:3, 3] + way * (1 - drift) ** i)
        self.reset()

    def reset(self):
        self.stamps = []

    def step(self, frame):
        index = len(self.stamps)
        self.stamps.append(frame.stamp_ns)
        out = [self.update(index, is_keyframe=index % self.every == 0, reason="flow")]
        return out + ([self.dense(index - self.late)] if index >= self.late else [])

    def finish(self):
        count = len(self.stamps)
        return [self.dense(i) for i in range(max(count - self.late, 0), count) if i % self.every == 0]

    def dense(self, index):
        if index % self.every:
            return self.update(index, revises=True)
        depth = np.full((24, 32), 2.0, np.float32)
        return self.update(
            index, is_keyframe=True, revises=True, depth=depth, colours=IMAGE, camera=CAMERA, reason="depth"
        )

    def update(self, index, **fields):
        map_id = self.maps.get(index, 0)
        return Update(index, self.stamps[index], self.own[index], Tracking.TRACKING, map_id=map_id, **fields)

    def poses(self):
        return {i: self.own[i] for i in range(len(self.stamps))}

    def statistics(self):
        return {"engine": 1.0}

    def close(self):
        pass


def given(poses, noise=0.0, S=S, **fields):
    """Frames with the true pose of each as prior, in metres; noise: of their positions."""
    rng = np.random.default_rng(5)
    out = []
    for i, T in enumerate(poses):
        prior = apply_similarity(S, T)
        prior[:3, 3] += rng.normal(scale=noise, size=3) if noise else 0.0
        out.append(Frame((i + 1) * 10**8, IMAGE, CAMERA, prior=prior, **fields))
    return out


def fixes(poses, noise=0.0):
    """Frames with the true position of each as GPS fix."""
    return [replace(f, prior=None, position=f.prior[:3, 3]) for f in given(poses, noise)]


def run(engine, frames, **values):
    backend = ScaledReconstructor(engine, build(Config, {"prior": True, **values}))
    updates = [u for f in frames for u in backend.step(f)] + backend.finish()
    return updates, backend


def told_poses(updates):
    """The newest pose of every keyframe, as a consumer knows it."""
    told = {}
    for u in updates:
        assert set(u.corrections) <= set(told), "a correction of what was never given out"
        told |= u.corrections
        if u.is_keyframe and u.T_map_cam is not None:
            told[u.index] = u.T_map_cam
    return told


def check_answers(updates, count):
    assert sorted(u.index for u in updates if not u.revises) == list(range(count))


def test_without_anything_known_all_passes_through_untouched():
    poses = curve(20)
    frames = [replace(f, prior=None) for f in given(poses)]
    engine, direct = Engine(poses, every=3), Engine(poses, every=3)
    updates, backend = run(engine, frames)
    expected = [u for f in frames for u in direct.step(f)] + direct.finish()
    for a, b in zip(updates, expected, strict=True):
        assert a.T_map_cam is b.T_map_cam and a.scale is Scale.UNKNOWN and a.gravity is Gravity.UNKNOWN
    assert backend.poses().keys() == direct.poses().keys()
    assert backend.statistics() == {"engine": 1.0}


def test_priors_that_were_not_asked_for_are_not_used():
    updates, _ = run(Engine(curve(20)), given(curve(20)), prior=False)
    assert {u.scale for u in updates} == {Scale.UNKNOWN}


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_given_poses_tell_the_unit_and_the_place_of_the_map(every, late):
    poses = curve(40)
    updates, backend = run(Engine(poses, every, late), given(poses))
    check_answers(updates, 40)
    for i, T in backend.poses().items():
        np.testing.assert_allclose(T, apply_similarity(S, poses[i]), atol=1e-9)
    for i, T in told_poses(updates).items():
        np.testing.assert_allclose(T, apply_similarity(S, poses[i]), atol=1e-9)
    dense = [u for u in updates if u.depth is not None]
    assert sorted(u.index for u in dense) == list(range(0, 40, every))
    for u in dense:
        assert u.revises and u.scale is Scale.PRIOR and u.gravity is Gravity.PRIOR
        np.testing.assert_allclose(u.depth, 2 * SCALE, rtol=1e-6)
    assert backend.statistics()["prior_scale"] == pytest.approx(SCALE)
    assert backend.statistics()["prior_scale_now"] == pytest.approx(SCALE)


def test_before_the_scale_is_known_poses_are_given_out_in_the_engines_unit_where_the_first_prior_says():
    poses = curve(40)
    updates, _ = run(Engine(poses), given(poses))
    first, second = (u.T_map_cam for u in updates if u.index in (0, 1) and not u.revises)
    np.testing.assert_allclose(first, apply_similarity(S, poses[0]), atol=1e-9)
    way = np.linalg.norm(second[:3, 3] - first[:3, 3])
    assert way == pytest.approx(np.linalg.norm(poses[1][:3, 3] - poses[0][:3, 3]))
    states = [u.scale for u in updates if not u.revises]
    known = states.index(Scale.PRIOR)
    assert known >= 7 and set(states[known:]) == {Scale.PRIOR}


def test_depth_waits_for_the_scale_and_no_longer():
    poses = curve(40)
    updates, _ = run(Engine(poses, late=0), given(poses))
    order = [u.index for u in updates if u.depth is not None]
    first = next(u for u in updates if u.depth is not None)
    assert len(order) == len(set(order)) == 40
    position = updates.index(first)
    assert all(u.depth is None and u.colours is None for u in updates[:position])
    assert max(u.index for u in updates[:position]) < 12


@pytest.mark.parametrize("seed", range(5))
def test_odometry_with_five_per_cent_noise_gives_the_scale_within_two_after_ten_keyframes(seed):
    poses = curve(50, step=0.06)
    rng = np.random.default_rng(seed)
    frames, at = given(poses), np.zeros(3)
    for i in range(1, 50):
        way = frames[i].prior[:3, 3] - frames[i - 1].prior[:3, 3]
        at = at + way * rng.normal(1.0, 0.05) + rng.normal(scale=0.05 * np.linalg.norm(way) / 3**0.5, size=3)
        noisy = frames[i].prior.copy()
        noisy[:3, 3] = at + given(poses)[0].prior[:3, 3]
        frames[i] = replace(frames[i], prior=noisy)
    updates, backend = run(Engine(poses, every=5), frames)
    assert updates[-1].scale is Scale.PRIOR
    assert backend.statistics()["prior_scale"] == pytest.approx(SCALE, rel=0.02)


def test_a_prior_that_stands_still_costs_no_keyframe(caplog):
    poses = curve(60)
    frames = [replace(f, prior=np.eye(4)) for f in given(poses)]
    with caplog.at_level(logging.WARNING):
        updates, backend = run(Engine(poses, late=0), frames)
    assert caplog.text.count("does not tell the scale") == 1
    dense = [u for u in updates if u.depth is not None]
    assert sorted(u.index for u in dense) == list(range(60))
    assert {u.scale for u in dense} == {Scale.UNKNOWN}
    assert sum(u.revises for u in dense) == 60
    assert max(len(backend._placements[0].held), 0) == 0
    np.testing.assert_allclose(dense[5].depth, 2.0)


def test_a_stream_too_short_for_a_scale_still_gets_its_depth():
    poses = curve(5)
    updates, _ = run(Engine(poses), given(poses))
    assert sorted(u.index for u in updates if u.depth is not None) == list(range(5))
    assert updates[-1].scale is Scale.UNKNOWN


def test_single_wild_priors_do_not_move_the_map():
    poses = curve(40)
    frames = given(poses)
    for i in (3, 11, 12, 30):
        frames[i] = replace(frames[i], prior=pose(np.eye(3), np.array([900.0, -40.0, 7.0])))
    _, backend = run(Engine(poses), frames)
    assert backend.statistics()["prior_scale"] == pytest.approx(SCALE, rel=0.01)
    error = [
        np.linalg.norm(T[:3, 3] - apply_similarity(S, poses[i])[:3, 3]) for i, T in backend.poses().items()
    ]
    assert np.median(error) < 0.1


def test_the_scale_follows_drift_without_a_jump():
    poses = curve(200, step=0.2)
    updates, backend = run(Engine(poses, drift=0.003), given(poses, noise=0.02))
    path = backend.poses()
    ways = np.array([np.linalg.norm(path[i][:3, 3] - path[i - 1][:3, 3]) for i in range(1, 200)])
    true = SCALE * np.array([np.linalg.norm(poses[i][:3, 3] - poses[i - 1][:3, 3]) for i in range(1, 200)])
    # The engine's steps are 45 % too short at the end, those of the map hardly.
    assert ways[-20:].sum() / true[-20:].sum() == pytest.approx(1.0, abs=0.12)
    ratio = ways / true
    assert np.abs(np.diff(ratio)).max() < 0.02
    told = told_poses(updates)
    for i in (5, 100, 150, 199):
        np.testing.assert_allclose(told[i], path[i], atol=1e-9)
    # Depth has the scale of the pose that it belongs to.
    depth = {u.index: np.median(u.depth) for u in updates if u.depth is not None}
    engine = Engine(poses, drift=0.003).own
    for i in (100, 150):
        step = np.linalg.norm(engine[i][:3, 3] - engine[i - 1][:3, 3])
        assert depth[i] / 2 == pytest.approx(ways[i - 1] / step, rel=0.01)


def test_noise_alone_does_not_make_the_scale_wander():
    poses = curve(150, step=0.2)
    _, backend = run(Engine(poses), given(poses, noise=0.05))
    placement = backend._placements[0]
    scales = [np.cbrt(np.linalg.det(s[:3, :3])) for s in placement._similarities]
    assert np.ptp(scales) / SCALE < 0.02


def test_orientations_that_contradict_the_path_are_left_out(caplog):
    poses = curve(40)
    wrong = pose(so3_exp(np.array([0.0, 1.6, 0.0])), np.zeros(3))
    frames = [
        replace(f, prior=pose(f.prior[:3, :3] @ wrong[:3, :3] @ so3_exp([0.0, 0.0, 1.2]), f.prior[:3, 3]))
        for f in given(poses)
    ]
    with caplog.at_level(logging.WARNING):
        _, backend = run(Engine(poses), frames)
    assert "contradict" in caplog.text
    np.testing.assert_allclose(backend.poses()[20], apply_similarity(S, poses[20]), atol=1e-6)


def test_positions_place_the_map_east_north_up():
    poses = curve(40)
    updates, backend = run(Engine(poses), fixes(poses, noise=0.02), prior=False)
    check_answers(updates, 40)
    error = [
        np.linalg.norm(T[:3, 3] - apply_similarity(S, poses[i])[:3, 3]) for i, T in backend.poses().items()
    ]
    assert np.sqrt(np.mean(np.square(error))) < 0.03
    assert updates[-1].scale is Scale.PRIOR and updates[-1].gravity is Gravity.GPS
    for i, T in told_poses(updates).items():
        np.testing.assert_allclose(T, backend.poses()[i], atol=1e-9)


def test_positions_on_a_line_do_not_say_what_is_level():
    poses = [pose(np.eye(3), np.array([0.3 * i, 0.001 * (i % 2), 0.0])) for i in range(60)]
    updates, _ = run(Engine(poses), fixes(poses, noise=0.05), prior=False)
    assert updates[-1].scale is Scale.UNKNOWN and updates[-1].gravity is Gravity.UNKNOWN
    assert sorted(u.index for u in updates if u.depth is not None) == list(range(60))


def test_positions_on_a_line_and_gravity_place_the_map():
    poses = [pose(np.eye(3), np.array([0.3 * i, 0.001 * (i % 2), 0.0])) for i in range(60)]
    # Slow enough for gravity: the engine's depth is 2 units, a step 0.3; so the first frames hover.
    poses = [poses[0]] * 12 + poses
    up = S[:3, :3].T @ np.array([0.0, 0.0, 1.0]) / SCALE
    frames = [replace(f, up=T[:3, :3].T @ up) for f, T in zip(fixes(poses, 0.05), poses, strict=True)]
    updates, backend = run(Engine(poses), frames, prior=False)
    assert updates[-1].scale is Scale.PRIOR and updates[-1].gravity is Gravity.IMU
    error = [
        np.linalg.norm(T[:3, 3] - apply_similarity(S, poses[i])[:3, 3]) for i, T in backend.poses().items()
    ]
    assert max(error) < 0.15


def test_gravity_alone_levels_the_map_and_holds_nothing_back():
    poses = [
        pose(so3_exp(0.02 * i * np.array([0.3, 1.0, 0.0])), T[:3, 3]) for i, T in enumerate(curve(40, 0.005))
    ]
    up = np.array([0.0, 0.6, 0.8])
    frames = [replace(f, prior=None, up=T[:3, :3].T @ up) for f, T in zip(given(poses), poses, strict=True)]
    updates, backend = run(Engine(poses, late=0), frames)
    assert updates[-1].gravity is Gravity.IMU and updates[-1].scale is Scale.UNKNOWN
    assert [u.index for u in updates if u.depth is not None] == list(range(40))
    for i, T in backend.poses().items():
        np.testing.assert_allclose(T[:3, :3] @ poses[i][:3, :3].T @ up, [0, 0, 1], atol=1e-9)
        np.testing.assert_allclose(told_poses(updates)[i], T, atol=1e-9)


def test_gravity_while_the_camera_is_fast_does_not_count():
    poses = curve(40, step=0.5)
    frames = [replace(f, prior=None, up=np.array([0.0, -1.0, 0.0])) for f in given(poses)]
    updates, _ = run(Engine(poses, late=0), frames)
    assert updates[-1].gravity is Gravity.UNKNOWN


def test_positions_that_come_after_the_first_depth_are_too_late(caplog):
    poses = curve(40)
    frames = [replace(f, position=None if i < 10 else f.position) for i, f in enumerate(fixes(poses))]
    with caplog.at_level(logging.WARNING):
        updates, _ = run(Engine(poses), frames, prior=False)
    assert "too late" in caplog.text and caplog.text.count("too late") == 1
    assert {u.scale for u in updates} == {Scale.UNKNOWN}
    assert sorted(u.index for u in updates if u.depth is not None) == list(range(40))


def test_two_maps_each_find_their_own_scale():
    poses = curve(60)
    other = similarity(0.5, so3_exp(np.array([0.0, 0.4, 0.0])), np.array([1.0, 2.0, 3.0]))
    own = [T if i < 30 else apply_similarity(other, T) for i, T in enumerate(poses)]
    engine = Engine(own, late=0, maps={i: 1 for i in range(30, 60)})
    updates, backend = run(engine, given(poses))
    for i, T in backend.poses().items():
        np.testing.assert_allclose(T, apply_similarity(S, poses[i]), atol=1e-6)
    depth = {u.index: np.median(u.depth) for u in updates if u.depth is not None}
    assert depth[10] == pytest.approx(2 * SCALE, rel=1e-5)
    assert depth[50] == pytest.approx(2 * SCALE / 0.5, rel=1e-5)


def test_a_join_of_two_maps_is_told_in_metres():
    poses = curve(40)
    other = similarity(0.5, so3_exp(np.array([0.0, 0.4, 0.0])), np.array([1.0, 2.0, 3.0]))
    own = [T if i < 20 else apply_similarity(other, T) for i, T in enumerate(poses)]
    engine = Engine(own, late=0, maps={i: 1 for i in range(20, 39)})
    backend = ScaledReconstructor(engine, build(Config, {"prior": True}))
    frames = given(poses)
    updates = [u for f in frames[:39] for u in backend.step(f)]
    answer = replace(
        engine.step(frames[39])[0],
        T_map_cam=poses[39],
        join=Join(0, 1, np.linalg.inv(other)),
        corrections={i: poses[i] for i in range(20, 39)},
    )
    engine.own = dict(enumerate(poses))
    engine.step = lambda frame: [answer]
    [joined] = [u for u in backend.step(frames[39]) if u.join is not None]
    # Both lay in the same metres already.
    np.testing.assert_allclose(joined.join.S_kept_moved, np.eye(4), atol=1e-6)
    told = told_poses([*updates, joined])
    for i in range(40):
        np.testing.assert_allclose(told[i], apply_similarity(S, poses[i]), atol=1e-6)
        np.testing.assert_allclose(backend.poses()[i], told[i], atol=1e-6)


def test_a_closed_loop_has_one_scale_again():
    poses = curve(120, step=0.2)
    engine = Engine(poses, late=0, drift=0.004)
    backend = ScaledReconstructor(engine, build(Config, {"prior": True}))
    updates = [u for f in given(poses)[:119] for u in backend.step(f)]
    # The engine finds the way back and undoes its drift.
    engine.own = dict(enumerate(poses))
    step = engine.step
    engine.step = lambda frame: [
        replace(u, corrections={i: poses[i] for i in range(119)} if not u.revises else {})
        for u in step(frame)
    ]
    updates += backend.step(given(poses)[119])
    told = told_poses(updates)
    ways = [np.linalg.norm(told[i][:3, 3] - told[i - 1][:3, 3]) for i in range(1, 120)]
    true = [np.linalg.norm(poses[i][:3, 3] - poses[i - 1][:3, 3]) for i in range(1, 120)]
    assert np.ptp(np.divide(ways, true)) / SCALE < 1e-6


def test_a_reset_forgets_the_scale():
    poses = curve(40)
    _, backend = run(Engine(poses), given(poses))
    backend.reset()
    [first, *_] = backend.step(given(poses)[0])
    assert first.scale is Scale.UNKNOWN


def road(camera, height, roll, pitch, rng):
    """Depth of a flat road and of walls beside it, and the up direction, for a camera at `height`."""
    R = so3_exp(np.array([pitch, 0.0, 0.0])) @ so3_exp(np.array([0.0, 0.0, roll]))
    up = R @ np.array([0.0, -1.0, 0.0])
    rays = np.concatenate([camera.rays().astype(float), np.ones((camera.height, camera.width, 1))], axis=-1)
    with np.errstate(divide="ignore"):
        z = -height / (rays @ up)
    z = np.where((z > 0) & (z < 30 * height), z, np.nan) * rng.normal(1.0, 0.01, z.shape)
    side = np.abs(rays[..., 0] * np.nan_to_num(z, nan=0.0)) > 3 * height
    z[side] = 3 * height / np.abs(rays[..., 0][side])
    return z.astype(np.float32), up, R @ np.array([0.0, 0.0, 1.0])


@pytest.mark.parametrize("roll, pitch", [(0.0, 0.0), (0.03, 0.1), (-0.05, 0.4)])
def test_the_ground_before_a_vehicle_is_found(roll, pitch):
    camera = camera_of(320, 240, 70.0)
    depth, up, forward = road(camera, 1.3, roll, pitch, np.random.default_rng(1))
    found = ground_plane(depth, camera, forward)
    assert found is not None
    height, normal = found
    assert height == pytest.approx(1.3, rel=0.01)
    assert np.degrees(np.arccos(normal @ up)) < 0.5


def test_a_wall_is_no_ground():
    camera = camera_of(320, 240, 70.0)
    assert ground_plane(np.full((240, 320), 4.0, np.float32), camera, np.array([0.0, 0.0, 1.0])) is None
    assert ground_plane(np.full((240, 320), np.nan, np.float32), camera, np.array([0.0, 0.0, 1.0])) is None


def test_the_height_of_the_camera_gives_metres_and_level_ground():
    camera, rng = camera_of(320, 240, 70.0), np.random.default_rng(2)
    depth, up, forward = road(camera, 0.07, 0.02, 0.1, rng)
    poses = [pose(np.eye(3), 0.04 * i * forward) for i in range(40)]
    engine = Engine(poses)
    update = engine.update
    engine.update = lambda index, **fields: update(
        index, **{**fields, **({"depth": depth, "camera": camera} if "depth" in fields else {})}
    )
    frames = [replace(f, prior=None) for f in given(poses)]
    updates, backend = run(engine, frames, **{"scale.camera_height": 1.4, "prior": False})
    assert updates[-1].scale is Scale.PRIOR and updates[-1].gravity is Gravity.PLANE
    assert backend.statistics()["prior_scale"] == pytest.approx(1.4 / 0.07, rel=0.01)
    turn = backend.poses()[0][:3, :3]
    assert np.degrees(np.arccos((turn @ up)[2])) < 0.5
    assert sorted(u.index for u in updates if u.depth is not None) == list(range(40))


@pytest.mark.parametrize("up", [[0, 0, 1], [0, 0, -1], [1, 0, 0], [0.6, 0.0, -0.8]])
def test_levelling_brings_up_to_z(up):
    R = levelling(np.array(up, float))
    np.testing.assert_allclose(R @ up, [0, 0, 1], atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)


def test_the_geometric_backend_finds_metres_by_odometry():
    camera = camera_of(256, 192, 70.0)
    flight = SyntheticFlight("building", "orbit", FlightOptions(frames=35, camera=camera, fps=8.0))
    rng = np.random.default_rng(3)
    truth, frames, at = flight.truth.poses, [], flight.truth.poses[0][:3, 3]
    for i, frame in enumerate(flight):
        way = truth[i][:3, 3] - truth[max(i - 1, 0)][:3, 3]
        at = at + way + rng.normal(scale=0.05 * np.linalg.norm(way) / 3**0.5, size=3)
        frames.append(replace(frame, prior=pose(truth[i][:3, :3], at)))
    config = build(Config, {"prior": True, "geometric.depth_width": 80, "geometric.depth_planes": 16})
    backend = registry.create("geometric", config)
    updates, keyframes, known = [], 0, None
    for frame in frames:
        for u in backend.step(frame):
            updates.append(u)
            keyframes += u.is_keyframe and not u.revises
            known = keyframes if known is None and u.scale is Scale.PRIOR else known
    updates += backend.finish()
    poses = backend.poses()
    backend.close()
    assert known is not None and known <= 10
    S = umeyama(np.array([poses[i][:3, 3] for i in range(35)]), truth[:, :3, 3])
    assert np.cbrt(np.linalg.det(S[:3, :3])) == pytest.approx(1.0, abs=0.02)
    assert max(rotation_angle((inverse(poses[i]) @ truth[i])[:3, :3]) for i in poses) < np.radians(1.0)
    dense = [u for u in updates if u.depth is not None]
    assert dense and {u.scale for u in dense} == {Scale.PRIOR}
