# SPDX-License-Identifier: Apache-2.0
"""The mesher thread: order, publication, reset, and keyframes that cannot be read."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError, StoreError
from recon3d_ros.core.types import Keyframe, Scale
from recon3d_ros.mapping import weld
from recon3d_ros.runtime import mesher as module
from recon3d_ros.runtime import pace
from recon3d_ros.runtime.archive import write_archive
from recon3d_ros.runtime.mesher import MesherLoop

CAMERA = Camera(64, 48, 60, 60, 31.5, 23.5)


def wall(id_=0, distance=2.0):
    """A keyframe that looks at a wall."""
    rays = CAMERA.rays().reshape(-1, 2)
    points = (np.column_stack([rays, np.ones(len(rays))]) * distance).astype(np.float32)
    return Keyframe(id_, id_, np.eye(4), CAMERA, points, np.full((len(points), 3), 200, np.uint8))


@pytest.fixture
def params():
    return MeshParams(voxel_size=0.05, min_weight=1.0, min_component=10, publish_rate=50.0)


def test_keyframes_become_a_surface_at_the_wall(params):
    loop = MesherLoop(params, realtime=False)
    for i in range(3):
        loop.put(wall(i))
    loop.finish()
    mesh = loop.surface()
    assert len(mesh.triangles) > 100 and np.abs(mesh.vertices[:, 2] - 2.0).max() < 0.025


def test_blocks_are_published_while_keyframes_come_and_again_on_request(params):
    batches, enough = [], threading.Event()

    def sink(blocks):
        batches.append(blocks)
        enough.set()

    loop = MesherLoop(params, realtime=True, sink=sink)
    loop.put(wall())
    assert enough.wait(20)
    first = {b.id for b in batches[-1]}
    enough.clear()
    loop.republish()
    assert enough.wait(20)
    assert {b.id for b in batches[-1]} == first
    loop.close()


def test_a_keyframe_that_cannot_be_opened_costs_only_itself(params):
    @contextmanager
    def gone():
        raise StoreError("overwritten")
        yield

    loop = MesherLoop(params, realtime=False)
    loop.put_lease(gone)
    loop.put(wall())
    loop.finish()
    assert len(loop.surface().triangles) > 0
    assert loop.metrics.drops == {"keyframe overwritten": 1}


def test_m22_reset_empties_the_surface(params):
    loop = MesherLoop(params, realtime=False)
    loop.put(wall())
    loop.reset()
    loop.finish()
    assert len(loop.surface().triangles) == 0


def test_keyframes_are_integrated_while_a_surface_is_joined(params, monkeypatch):
    """And the surface is that of the moment when it was asked for."""
    loop = MesherLoop(params, realtime=True)
    loop.put(wall())
    loop.drain()

    def joined(parts):
        loop.put(shifted(wall(1), 1.0))
        end = time.monotonic() + 20
        while loop.mesher.keyframes < 2 and time.monotonic() < end:
            time.sleep(0.001)
        return weld.joined(parts)

    monkeypatch.setattr(module, "joined", joined)
    mesh = loop.surface()
    assert loop.mesher.keyframes == 2 and lies_at({0: mesh}, 2.0)
    loop.close()


def shifted(keyframe, way):
    """The same depth from a place displaced along z."""
    T = keyframe.T_map_cam.copy()
    T[2, 3] += way
    return replace(keyframe, T_map_cam=T, points=(keyframe.points + [0, 0, way]).astype(np.float32))


class Shown:
    """A sink that keeps what a viewer would show."""

    def __init__(self):
        self.blocks, self.largest = {}, 0
        self._changed = threading.Condition()

    def __call__(self, blocks):
        with self._changed:
            self.largest = max(self.largest, len(blocks))
            for block in blocks:
                self.blocks[block.id] = block
                if not len(block.triangles):
                    del self.blocks[block.id]
            self._changed.notify_all()

    def wait_for(self, condition):
        """Wait until what is shown fulfils a condition."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self.blocks), 20)


def lies_at(blocks, z):
    """True if there is a surface and all of it lies at z."""
    found = [block.vertices[:, 2] for block in blocks.values()]
    return bool(found) and np.abs(np.concatenate(found) - z).max() < 0.03


def test_m15_corrected_poses_move_the_published_mesh_a_slice_at_a_time(params, monkeypatch):
    """With slices and batches as small as they get, keyframes in between are not kept waiting and nothing stays behind."""
    monkeypatch.setattr(module, "SLICE", 0.0)
    monkeypatch.setattr(module, "REGIONS", 3)
    shown = Shown()
    loop = MesherLoop(params, realtime=True, sink=shown)
    keyframes = [wall(i) for i in range(4)]
    for keyframe in keyframes:
        loop.put(keyframe)
        assert shown.wait_for(lambda blocks: lies_at(blocks, 2.0))
    loop.correct({k.id: shifted(k, 0.5).T_map_cam for k in keyframes})
    loop.put(shifted(wall(4), 0.5))
    assert shown.wait_for(lambda blocks: lies_at(blocks, 2.5))
    assert shown.largest <= 3
    loop.finish()
    assert lies_at(shown.blocks, 2.5) and loop.mesher.keyframes == 5


def test_offline_the_mesh_does_not_depend_on_when_corrections_come(params):
    meshes = []
    for late in (True, False):
        loop = MesherLoop(params, realtime=False)
        for i in range(8):
            loop.put(wall(i))
            if not late:
                loop.correct({i: shifted(wall(i), 0.004 * i).T_map_cam})
        loop.drain()
        loop.correct({i: shifted(wall(i), 0.003 * i).T_map_cam for i in range(8)})
        loop.finish()
        meshes.append(loop.surface())
    assert np.array_equal(meshes[0].vertices, meshes[1].vertices)
    assert np.array_equal(meshes[0].triangles, meshes[1].triangles)


def test_m9_the_pace_follows_the_camera_by_metres_or_by_depths(params):
    for scale, way, fast in (
        (Scale.SENSOR, 0.06, True),
        (Scale.SENSOR, 0.03, False),
        (Scale.UNKNOWN, 0.06, False),  # 0.6 map units a second, but 0.3 median depths
    ):
        mine = pace.MeshPace(replace(params, adaptive=True))
        for i in range(20):
            mine.add(replace(shifted(wall(i), i * way), stamp_ns=i * 100_000_000, scale=scale))
        assert mine.period == (np.inf if fast else 2.0)
    assert pace.MeshPace(params).period == 0.0


def test_m9_what_a_fast_camera_passed_is_shown_once_it_is_silent(params, monkeypatch):
    shown = Shown()
    loop = MesherLoop(replace(params, adaptive=True), realtime=True, sink=shown)
    for i in range(12):
        loop.put(replace(shifted(wall(i), i * 0.5), stamp_ns=i * 100_000_000, scale=Scale.SENSOR))
        while loop.waiting:
            time.sleep(0.001)
    loop.drain()
    assert loop._pace.period == np.inf
    monkeypatch.setattr(pace, "_SILENCE", 0.05)
    assert shown.wait_for(lambda blocks: max(b.vertices[:, 2].max() for b in blocks.values()) > 7.4)
    loop.close()


def test_m19_a_callback_never_waits_and_a_full_queue_drops_the_oldest(params):
    """The mesher is held up; keyframes are handed over all the same, in the caller's thread nothing is meshed."""
    threads, go = [], threading.Event()

    @contextmanager
    def slow(id_):
        threads.append(threading.current_thread().name)
        assert go.wait(20)
        yield wall(id_)

    loop = MesherLoop(replace(params, queue=3), realtime=True)
    loop.put_lease(lambda: slow(0))
    while not threads:
        time.sleep(0.001)
    for i in range(1, 11):
        loop.put_lease(lambda i=i: slow(i))
    assert loop.waiting == 3 and loop.dropped == 7
    go.set()
    loop.finish()
    assert loop.mesher.keyframes == 4 and set(threads) == {"mesher"}


def test_m20_the_time_to_the_mesh_ends_with_the_last_piece_of_a_keyframe(params, monkeypatch):
    monkeypatch.setattr(module, "REGIONS", 1)
    pieces, per_piece = [], 0.005

    def sink(blocks):
        pieces.append(blocks)
        time.sleep(per_piece)

    loop = MesherLoop(params, realtime=True, sink=sink)
    loop.put(wall())
    end = time.monotonic() + 20
    while "to_mesh" not in loop.metrics.stages and time.monotonic() < end:
        time.sleep(0.01)
    loop.close()
    assert len(pieces) > 1
    times = loop.metrics.stages["to_mesh"]
    assert times.p50 == times.max >= 1e3 * per_piece * len(pieces)


def test_a_saved_surface_is_gone_on_with_and_shown_whole(params, tmp_path):
    first = MesherLoop(params, realtime=True)
    first.put(wall(0))
    first.drain()
    first.save(tmp_path / "surface.npz")
    shown, told = Shown(), []
    loop = MesherLoop(params, realtime=True, sink=shown)
    loop.put(shifted(wall(7), 5.0))
    assert shown.wait_for(lambda blocks: lies_at(blocks, 7.0))
    loop.resume(tmp_path / "surface.npz", then=lambda: told.append(shown.blocks.clear()))
    assert shown.wait_for(lambda blocks: lies_at(blocks, 2.0)) and len(told) == 1
    assert same(loop.surface(), first.surface())
    for each in (loop, first):
        each.put(wall(0))  # is in it already
        each.put(shifted(wall(1), 0.01))
        each.drain()
    assert same(loop.surface(), first.surface()) and loop.mesher.keyframes == 2
    assert loop.mesher.counters["repeated"] == 1
    for each in (loop, first):
        each.close()


def same(a, b):
    return np.array_equal(a.vertices, b.vertices) and np.array_equal(a.triangles, b.triangles)


def test_what_waits_and_what_was_corrected_does_not_get_into_a_resumed_surface(params, tmp_path):
    loop = MesherLoop(params, realtime=True)
    loop.put(wall(0))
    loop.drain()
    loop.save(tmp_path / "surface.npz")
    held, go = threading.Event(), threading.Event()

    @contextmanager
    def slow():
        held.set()
        assert go.wait(20)
        raise StoreError("gone")
        yield

    loop.put_lease(slow)
    assert held.wait(20)
    loop.put(shifted(wall(1), 3.0))
    loop.correct({2: np.diag([1.0, 1.0, -1.0, 1.0])})
    loop.resume(tmp_path / "surface.npz")
    go.set()
    loop.put(wall(2))
    loop.drain()
    assert loop.mesher.keyframes == 2 and lies_at({0: loop.surface()}, 2.0)
    loop.close()


@pytest.mark.parametrize("realtime", [True, False])
def test_a_saved_surface_follows_the_corrections_that_came_before(params, tmp_path, monkeypatch, realtime):
    """Live, where a rebuild would wait for its turn; in steps between which keyframes go on."""
    loop = MesherLoop(replace(params, queue=10), realtime)
    keyframes = [wall(i) for i in range(4)]
    for keyframe in keyframes:
        loop.put(keyframe)
    loop.drain()
    loop._rebuild_from = np.inf
    pauses, sleep = [], time.sleep

    def pause(seconds):
        if threading.current_thread() is threading.main_thread() and not pauses:
            pauses.append(seconds)
            loop.put(shifted(wall(4), 0.5))
            end = time.monotonic() + 20
            while loop.mesher.keyframes < 5 and time.monotonic() < end:
                sleep(0.001)
        sleep(seconds)

    monkeypatch.setattr(module.time, "sleep", pause)
    loop.correct({k.id: shifted(k, 0.5).T_map_cam for k in keyframes})
    loop.save(tmp_path / "surface.npz")
    loop.close()
    other = MesherLoop(params, realtime)
    other.resume(tmp_path / "surface.npz")
    assert lies_at({0: other.surface()}, 2.5) and other.mesher.keyframes == 5
    other.close()


def test_keyframes_are_integrated_while_a_surface_is_written(params, tmp_path, monkeypatch):
    """And the file is that of the moment when it was asked for."""
    loop = MesherLoop(params, realtime=True)
    loop.put(wall())
    loop.drain()

    def written(path, kind, arrays):
        loop.put(shifted(wall(1), 1.0))
        end = time.monotonic() + 20
        while loop.mesher.keyframes < 2 and time.monotonic() < end:
            time.sleep(0.001)
        return write_archive(path, kind, arrays)

    monkeypatch.setattr(module, "write_archive", written)
    loop.save(tmp_path / "surface.npz")
    assert loop.mesher.keyframes == 2
    loop.resume(tmp_path / "surface.npz")
    assert loop.mesher.keyframes == 1 and lies_at({0: loop.surface()}, 2.0)
    loop.close()


def test_a_file_that_cannot_be_used_changes_nothing(params, tmp_path):
    loop = MesherLoop(params, realtime=True)
    with pytest.raises(InputError, match="no surface yet"):
        loop.save(tmp_path / "surface.npz")
    loop.put(wall())
    loop.drain()
    before = loop.surface()
    loop.save(tmp_path / "surface.npz")
    with pytest.raises(InputError, match="is not there"):
        loop.resume(tmp_path / "missing.npz")
    other = MesherLoop(replace(params, voxel_size=0.1), realtime=True)
    with pytest.raises(InputError, match=r"mesh\.voxel_size"):
        other.resume(tmp_path / "surface.npz")
    with pytest.raises(InputError, match="cannot write"):
        loop.save(tmp_path / "missing" / "surface.npz")
    assert same(loop.surface(), before) and not other.mesher.keyframes
    for each in (loop, other):
        each.close()
