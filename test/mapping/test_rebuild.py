# SPDX-License-Identifier: Apache-2.0
"""Corrected poses: a volume rebuilt piece by piece beside the live one is the volume that they would have given at once."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.mapping import checkpoint, tsdf
from recon3d_ros.mapping.mesher import Mesher


def mesher(**params):
    return Mesher(MeshParams(**{"voxel_size": 0.04, "duplicate_share": 0.0, **params}))


def fed(target, keyframes):
    for keyframe in keyframes:
        assert target.integrate(keyframe)
    return target


def poses(keyframes):
    return {k.id: k.T_map_cam for k in keyframes}


def voxels(volume):
    """Everything that is known of every block, by coordinates; a copy."""
    blocks = volume.blocks
    slots = np.flatnonzero(blocks.alive)
    slots = slots[np.lexsort(blocks.coords[slots].T)]
    seen = blocks.last_seen[slots] - volume.stamp
    return (blocks.coords[slots], blocks.tsdf[slots], blocks.weight[slots], blocks.colour[slots], seen)


def assert_same_volume(a, b):
    for mine, other in zip(voxels(a._volume), voxels(b._volume), strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("max_blocks", [10_000, 120], ids=["room for all", "full"])
def test_a_correction_rebuilds_the_volume_of_the_corrected_poses_bit_for_bit(walks, viewer, max_blocks):
    true, drifted = walks
    target = fed(mesher(max_blocks=max_blocks), drifted)
    viewer.follow(target.changed())
    assert not target.rebuild()
    target.correct(poses(true) | {99: np.eye(4), 3: np.full((4, 4), np.nan)})
    target.correct({3: true[3].T_map_cam})
    assert target.rebuild() and not target.rebuild()
    viewer.follow(target.changed())
    viewer.assert_full(target)
    fresh = fed(mesher(max_blocks=max_blocks), true)
    assert (fresh.counters["blocks evicted"] > 0) == (max_blocks == 120)
    assert_same_volume(target, fresh)
    fresh.changed()
    viewer.assert_full(fresh)


@pytest.mark.parametrize("max_blocks", [10_000, 120], ids=["room for all", "full"])
@pytest.mark.parametrize("memory", [256, 1], ids=["all depth kept", "depth memory full"])
@pytest.mark.parametrize("seed", range(3))
def test_keyframes_corrections_and_publications_may_come_in_the_middle(
    walks, viewer, monkeypatch, max_blocks, memory, seed
):
    """Whatever comes in between, the viewer ends up with the mesh of the newest poses (of keyframes let go: of those they
    had then), and the volume is that of these poses."""
    monkeypatch.setattr(tsdf, "_COMPARED", 15)
    monkeypatch.setattr(checkpoint, "_STEP", 15)
    rng = np.random.default_rng(seed)
    target = mesher(max_blocks=max_blocks, depth_memory=memory)
    newest, settled = {}, {}
    swaps = 0
    for turn in range(600):
        if turn % 50 == 0:
            keyframe = walks[1][turn // 50]
            newest[keyframe.id] = keyframe
            before = list(target._history.records)
            assert target.integrate(keyframe)
            kept = {record.id for record in target._history.records}
            settled |= {record.id: record.pose for record in before if record.id not in kept}
        if rng.random() < 0.05:
            at = int(rng.choice(list(newest)))
            newest[at] = walks[rng.integers(2)][at]
            target.correct(poses([newest[at]]))
        if rng.random() < 0.5:
            before = target._volume
            target.rebuild_step()
            swaps += target._volume is not before
        if rng.random() < 0.3:
            viewer.follow(target.changed(most=int(rng.integers(1, 40))))
    assert swaps > 0 and bool(settled) == (memory == 1)
    target.rebuild()
    viewer.follow(target.changed())
    viewer.assert_full(target)
    at_last = [
        next(walk[i] for walk in walks if np.array_equal(walk[i].T_map_cam, settled.get(i, k.T_map_cam)))
        for i, k in newest.items()
    ]
    assert_same_volume(target, fed(mesher(max_blocks=max_blocks), at_last))


@pytest.mark.parametrize("published", [True, False])
def test_a_keyframe_that_is_corrected_while_the_volumes_are_compared_is_shown_where_it_belongs(
    walks, viewer, monkeypatch, published
):
    """It is in the live volume where it came, and in the other where it belongs, after most blocks were compared."""
    monkeypatch.setattr(tsdf, "_COMPARED", 15)
    true, drifted = walks
    target = fed(mesher(), true[:5] + drifted[5:6])  # so most of it is alike in both volumes
    target.correct(poses(true[5:6]))
    while not target._rebuild or not target._rebuild._comparing:
        target.rebuild_step()
    for _ in range(4):
        target.rebuild_step()
    if published:
        viewer.follow(target.changed())
    astray = true[6].T_map_cam + np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    points = (true[6].points + [0, 1, 0]).astype(np.float32)
    assert target.integrate(replace(true[6], T_map_cam=astray, points=points))
    if published:
        viewer.follow(target.changed())
    target.correct(poses(true[6:7]))
    assert target.rebuilding and target.rebuild() and not target.rebuilding
    viewer.follow(target.changed())
    viewer.assert_full(target)
    assert_same_volume(target, fed(mesher(), true[:7]))


@pytest.mark.parametrize("max_blocks", [10_000, 130], ids=["room for all", "full"])
def test_a_checkpoint_gives_the_content_of_its_moment_whatever_the_volume_does(
    walks, monkeypatch, max_blocks
):
    monkeypatch.setattr(checkpoint, "_STEP", 15)
    target = fed(mesher(max_blocks=max_blocks), walks[0][:5])
    at_the_time, moment = voxels(target._volume), target._volume.checkpoint()
    copies = []
    for keyframe in walks[0][5:]:
        restored, steps = moment.restored()
        next(steps)
        assert target.integrate(keyframe)
        list(steps)
        copies.append(restored)
    assert (target.counters["blocks evicted"] > 0) == (max_blocks == 130)
    for restored in copies:
        assert all(map(np.array_equal, voxels(restored), at_the_time))
    restored.integrate(target._history.records[5].image, walks[0][5].T_map_cam, 1e3)
    assert all(map(np.array_equal, voxels(copies[0]), at_the_time))
    target._volume.forget(moment)
    assert target._volume.nbytes < 1.01 * tsdf.pool.memory(target._volume.blocks)


def test_a_step_is_at_most_one_keyframe_or_some_hundred_blocks(walks, monkeypatch):
    true, drifted = walks
    target = fed(mesher(), drifted)
    target.correct(poses(true))
    work = []
    integrate, compare = tsdf.Volume.integrate, tsdf.differing

    def counted(self, *arguments):
        work.append("keyframe")
        integrate(self, *arguments)

    def compared(some, others, start, stop, weight):
        work.append(stop - start)
        return compare(some, others, start, stop, weight)

    monkeypatch.setattr(tsdf.Volume, "integrate", counted)
    monkeypatch.setattr(tsdf, "differing", compared)
    steps = 0
    while target.rebuild_step():
        assert len(work) <= 1 and all(w == "keyframe" or w <= 500 for w in work)
        work.clear()
        steps += 1
    assert steps > len(drifted)


def test_while_a_rebuild_is_under_way_the_live_mesh_stays_as_it_is(walks, viewer):
    true, drifted = walks
    target = fed(mesher(), drifted[:6])
    viewer.follow(target.changed())
    target.correct(poses(true[:6]))
    assert target.rebuild_step() and target.rebuilding
    assert target.changed() == []
    viewer.assert_full(target)


def test_m17_absurd_corrections_are_counted_and_change_nothing(walks):
    target = fed(mesher(), walks[0])
    away, broken = np.eye(4), np.full((4, 4), np.nan)
    away[0, 3] = 1e9
    target.correct({1: away, 2: broken, 3: np.zeros((4, 4))})
    assert target.counters["corrections dropped"] == 3 and not target.rebuild(exactly=True)


def test_a_correction_that_comes_before_its_keyframe_is_not_lost(walks):
    true, drifted = walks
    target = fed(mesher(), drifted[:3])
    target.correct(poses(true[3:5]))
    fed(target, drifted[3:5])
    assert_same_volume(target, fed(mesher(), drifted[:3] + true[3:5]))
    assert not target.moved


def test_letting_depth_go_leaves_the_mesh_and_begins_a_rebuild_anew(walks):
    true, drifted = walks
    target = fed(mesher(depth_memory=1), drifted[:6])
    target.correct(poses(true[:6]))
    for _ in range(3):
        assert target.rebuild_step()
    fed(target, drifted[6:7])  # the seventh image does not fit: the first four go, at the poses they had
    target.correct(poses(true))
    target.rebuild()
    assert_same_volume(target, fed(mesher(), drifted[:4] + true[4:7]))


def test_what_a_rebuild_starts_from_survives_several_rebuilds(walks):
    true, drifted = walks
    target = fed(mesher(depth_memory=1), drifted[:8])
    for keyframes in (true, drifted, true):
        target.correct(poses(keyframes))
        assert target.rebuild()
    assert_same_volume(target, fed(mesher(), drifted[:4] + true[4:8]))
    fed(target, drifted[8:])  # the checkpoint of the rebuilt volume becomes the base
    target.correct(poses(drifted))
    assert target.rebuild()
    assert_same_volume(target, fed(mesher(), drifted[:4] + true[4:8] + drifted[8:]))


def test_images_too_large_for_the_memory_leave_the_mesh_as_it_is_and_say_so(take_walk, caplog):
    camera = Camera(320, 240, 290.0, 290.0, 159.5, 119.5)
    target = fed(mesher(depth_memory=1), take_walk(3, camera=camera))
    before = voxels(target._volume)
    target.correct({1: np.diag([1.0, -1.0, -1.0, 1.0])})
    assert not target.rebuild() and all(map(np.array_equal, before, voxels(target._volume)))
    assert sum("mesh.depth_memory" in record.message for record in caplog.records) == 1


def test_the_work_and_memory_of_a_keyframe_do_not_grow_over_a_flight_of_400(take_walk, monkeypatch):
    """Counted in blocks listed and blocks copied, the depth memory full many times: bar 1.15."""
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    keyframes = take_walk(48, step=1 / 16, camera=camera)
    target = mesher(voxel_size=0.1, depth_memory=1)
    work = []
    update, copy_voxels = tsdf.update, tsdf.pool.copy_voxels

    def counted(blocks, listed, *arguments):
        work[-1] += len(listed)
        update(blocks, listed, *arguments)

    def copied(source, to, slots):
        work[-1] += len(slots)
        copy_voxels(source, to, slots)

    monkeypatch.setattr(tsdf, "update", counted)
    monkeypatch.setattr(tsdf.pool, "copy_voxels", copied)
    there_and_back = [*range(48), *range(46, 0, -1)]
    for i in range(400):
        keyframe = keyframes[there_and_back[i % len(there_and_back)]]
        work.append(0)
        assert target.integrate(type(keyframe)(**{**vars(keyframe), "id": i}))
    assert target._history.generation >= 4
    assert target._history.nbytes <= 1_000_000
    assert np.median(work[-20:]) <= 1.15 * np.median(work[5:25])
    assert target.memory_mb <= 3 * 3.7e-3 * target.blocks + 3.0


def test_a_correction_of_less_than_half_a_voxel_waits(take_walk):
    target = mesher()
    for keyframe in take_walk(4):
        target.integrate(keyframe)
    pose = take_walk(4)[2].T_map_cam
    for shift, moved in ((0.015, False), (0.025, True)):
        corrected = pose.copy()
        corrected[0, 3] += shift
        target.correct({2: corrected})
        assert target.rebuild() == moved


def test_without_depth_memory_a_correction_changes_nothing(take_walk):
    target = mesher(depth_memory=0)
    for keyframe in take_walk(4):
        target.integrate(keyframe)
    before = voxels(target._volume)
    target.correct({1: np.diag([1.0, -1.0, -1.0, 1.0])})
    assert not target.rebuild() and all(map(np.array_equal, before, voxels(target._volume)))


@pytest.mark.parametrize("end", ["replaced", "abandoned", "reset"])
def test_volumes_that_are_not_needed_are_freed_at_once_not_when_cycles_are_collected(walks, end):
    true, drifted = walks
    target = fed(mesher(depth_memory=1), drifted[:8])
    target.correct(poses(true))
    gc.disable()
    try:
        target.rebuild_step()
        gone = [
            weakref.ref(target._volume if end == "replaced" else target._rebuild.volume),
            weakref.ref(target._rebuild),
        ]
        if end == "abandoned":
            fed(target, drifted[8:])
            target.rebuild_step()
        elif end == "reset":
            target.reset()
        else:
            target.rebuild()
        assert all(ref() is None for ref in gone)
    finally:
        gc.enable()
