# SPDX-License-Identifier: Apache-2.0
"""Keyframes between processes: what readers see, when slots are used again, and that nothing is left behind."""

import errno
import os
import signal
import threading
import time

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Scale
from recon3d_ros.store import files, layout
from recon3d_ros.store.arena import SegmentHandle
from recon3d_ros.store.reader import SegmentReader
from recon3d_ros.store.shared import SharedArena

#: A writer with keyframes in shared memory that waits for a line, then ends as its arguments say.
WRITER = """
import dataclasses, json, os, sys
import numpy as np
from recon3d_ros.core.errors import StoreError
from recon3d_ros.store import layout
from recon3d_ros.store.shared import SharedArena

arena, blocks = SharedArena(4, 2.0, sys.argv[1]), layout.Blocks.aligned(10)
for generation in range(1, 7):
    slot = arena.reserve(blocks.size, generation)
    layout.arrays(slot.memory, blocks)[0][:] = generation
    layout.seal(slot.memory, layout.Header(generation, 0, np.eye(4), np.zeros(6), blocks))
print(json.dumps(dataclasses.asdict(slot.handle)), flush=True)
sys.stdin.readline()
if sys.argv[2] == "raise":
    raise StoreError("full", "as if")
elif sys.argv[2] == "fork" and os.fork() == 0:
    sys.exit()  # the child must leave the files of its parent alone
elif sys.argv[2] == "fork":
    os.wait()
    print("{}", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def reader():
    reader = SegmentReader()
    yield reader
    reader.close()


#: A reader that counts keyframes whose points are not those announced, when taken or a moment later.
RACER = """
import random, sys, time
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Scale
from recon3d_ros.store.reader import SegmentReader

reader, wrong = SegmentReader(), 0
for line in sys.stdin:
    name, size, generation = line.split()
    try:
        with reader.read(name, int(size), int(generation), Camera(1, 1, 1, 1, 0, 0), Scale.SENSOR) as keyframe:
            wrong += (keyframe.points != int(generation)).any()
            time.sleep(random.random() * 0.003)
            wrong += (keyframe.points != int(generation)).any()
    except StoreError:
        pass
print(f'{{"taken": {reader.taken}, "wrong": {wrong}}}', flush=True)
reader.close()
"""

CAMERA = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)


def read(reader, handle, camera=CAMERA):
    return reader.read(handle.shm_name, handle.shm_size, handle.generation, camera, Scale.SENSOR)


def test_another_process_reads_what_was_put(make_store, prefix, tools, spawn):
    store = make_store(SharedArena(3, 2.0, prefix))
    expected = store.put(tools.update(4))
    child = spawn()
    answer = child.ask("read", *tools.words(store.handle(4)))
    assert answer == {"ids": [4], "sums": [expected.points.sum(dtype=float)]}


def test_m4_a_reader_has_views_on_the_memory_of_the_writer_that_it_cannot_write(
    make_store, prefix, tools, reader
):
    store = make_store(SharedArena(3, 2.0, prefix))
    expected = store.put(tools.update(4))
    with read(reader, store.handle(4)) as keyframe:
        assert (keyframe.id, keyframe.stamp_ns, keyframe.scale) == (4, 4_000_007, Scale.SENSOR)
        for name in ("points", "colours", "confidence", "T_map_cam"):
            np.testing.assert_array_equal(getattr(keyframe, name), getattr(expected, name))
        for array in (keyframe.points, keyframe.colours, keyframe.confidence):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
        expected.colours.flags.writeable = True
        expected.colours[0] = 1, 2, 3
        assert keyframe.colours[0].tolist() == [1, 2, 3]


def test_m6_two_readers_share_a_keyframe_and_the_end_of_one_is_nothing_to_the_other(
    make_store, prefix, tools, spawn, reader
):
    store = make_store(SharedArena(3, 2.0, prefix))
    store.put(tools.update(0))
    first, second = spawn(), spawn()
    answer = first.ask("read", *tools.words(store.handle(0)))
    assert second.ask("read", *tools.words(store.handle(0))) == answer
    assert first.end() == 0
    assert second.ask("look") == answer
    second.kill()
    read(reader, store.handle(0)).release()


def test_memory_is_never_overwritten_under_a_reader(make_store, prefix, tools, spawn):
    store = make_store(SharedArena(3, 0.05, prefix))
    child = spawn()
    for index in range(2):
        store.put(tools.update(index))
        answer = child.ask("read", *tools.words(store.handle(index)))
    for index in range(2, 20):
        store.put(tools.update(index))
    assert child.ask("look") == answer
    assert store.statistics()["replaced_slots"] == 2
    assert len([name for name in tools.files_of(prefix) if "reader" not in name]) == 3 + 1


def test_readers_that_race_the_writer_never_see_another_keyframe(prefix, tools, spawn):
    arena, blocks = SharedArena(2, 0.0, prefix), layout.Blocks.aligned(20_000)
    children = [spawn(RACER) for _ in range(2)]
    for generation in range(1, 1501):
        slot = arena.reserve(blocks.size, generation)
        layout.arrays(slot.memory, blocks)[0][:] = generation
        layout.seal(slot.memory, layout.Header(generation, 0, np.eye(4), np.zeros(6), blocks))
        for child in children:
            child.tell(*tools.words(slot.handle))
        if generation % 10 == 0:
            time.sleep(0.005)
        del slot
    for child in children:
        child.process.stdin.close()
        answer = child.answer()
        assert answer["taken"] > 0
        assert answer["wrong"] == 0
        child.process.wait()
    arena.close()


def test_the_writer_waits_for_a_reader_that_still_looks(make_store, prefix, tools, reader):
    store = make_store(SharedArena(2, 60.0, prefix), slots=2)
    store.put(tools.update(0))
    lease = read(reader, store.handle(0))
    store.put(tools.update(1))
    read(reader, store.handle(1)).release()
    timer = threading.Timer(0.1, lease.release)
    timer.start()
    store.put(tools.update(2))
    timer.join()
    assert store.statistics()["replaced_slots"] == 0


def test_a_segment_that_is_being_filled_is_not_read(prefix, tools, reader):
    arena, blocks = SharedArena(2, 0.0, prefix), layout.Blocks.aligned(10)
    for generation in range(1, 6):
        slot = arena.reserve(blocks.size, generation)
        with pytest.raises(StoreError):
            read(reader, slot.handle)
        layout.seal(slot.memory, layout.Header(generation, 0, np.eye(4), np.zeros(6), blocks))
        read(reader, slot.handle).release()
        del slot
    arena.close()
    assert reader.refused == {"damaged": 2, "incomplete": 3}  # two new files, then used ones


def test_a_segment_that_was_withdrawn_says_so(make_store, prefix, tools):
    store = make_store(SharedArena(2, 0.0, prefix), slots=2)
    memory = store.put(tools.update(0)).points.base
    store.reset()
    with pytest.raises(StoreError) as error:
        layout.unpack(memory)
    assert error.value.reason == "withdrawn"


def test_a_closed_store_makes_no_files(make_store, prefix, tools):
    store = make_store(SharedArena(2, 0.0, prefix), slots=2)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.put(tools.update(0))


def test_a_slot_is_used_again_once_it_is_released(make_store, prefix, tools, reader):
    store = make_store(SharedArena(3, 60.0, prefix))
    for index in range(20):
        store.put(tools.update(index))
        read(reader, store.handle(index)).release()
    assert store.statistics()["replaced_slots"] == 0
    assert store.statistics()["shared_bytes"] == 3 << 20


def test_the_writer_waits_for_a_reader_that_has_fallen_behind(make_store, prefix, tools, spawn):
    store = make_store(SharedArena(2, 60.0, prefix), slots=2)
    child = spawn()
    store.put(tools.update(0))
    child.ask("read", *tools.words(store.handle(0)))
    child.ask("release")
    for index in range(1, 40):
        store.put(tools.update(index))
        child.tell("read", *tools.words(store.handle(index)))
        child.tell("release")
    answers = [child.answer() for _ in range(2 * 39)]
    assert [answer["ids"] for answer in answers[::2]] == [[index] for index in range(1, 40)]


def test_a_reader_need_not_read_every_keyframe(make_store, prefix, tools, reader):
    store = make_store(SharedArena(3, 60.0, prefix))
    for index in range(20):
        store.put(tools.update(index))
        if index % 3 == 0:
            read(reader, store.handle(index)).release()
    assert reader.taken == 7


def test_a_reader_that_stands_still_delays_the_writer_once(make_store, prefix, tools, reader):
    store = make_store(SharedArena(2, 0.2, prefix), slots=2)
    store.put(tools.update(0))
    read(reader, store.handle(0)).release()
    for index in range(1, 101):
        store.put(tools.update(index))
    assert 0 < store.statistics()["waited_ms"] < 100 * 200 / 10


def test_a_dead_reader_delays_nobody(make_store, prefix, tools, spawn):
    store = make_store(SharedArena(2, 600.0, prefix), slots=2)
    store.put(tools.update(0))
    child = spawn()
    child.ask("read", *tools.words(store.handle(0)))
    child.kill()
    for index in range(1, 10):
        store.put(tools.update(index))
    assert not [name for name in tools.files_of(prefix) if "reader" in name]


def test_a_reader_that_drops_a_lease_but_keeps_an_array_still_holds_the_slot(
    make_store, prefix, tools, reader
):
    store = make_store(SharedArena(2, 0.05, prefix), slots=2)
    store.put(tools.update(0))
    points = read(reader, store.handle(0)).keyframe.points
    expected = points.copy()
    for index in range(1, 5):
        store.put(tools.update(index))
    np.testing.assert_array_equal(points, expected)
    assert store.statistics()["replaced_slots"] == 1


def test_a_reader_that_comes_too_late_is_told_so(make_store, prefix, tools, reader):
    store = make_store(SharedArena(2, 0.0, prefix), slots=2)
    store.put(tools.update(0))
    old = store.handle(0)
    for index in range(1, 4):
        store.put(tools.update(index))
    newest = store.handle(3)
    with pytest.raises(StoreError, match="too late"):
        read(reader, old)
    store.close()
    with pytest.raises(StoreError, match="withdrawn"):
        read(reader, newest)
    assert reader.refused == {"overwritten": 1, "withdrawn": 1}


def test_readers_refuse_names_and_files_that_are_no_keyframe(make_store, prefix, tools, reader):
    store = make_store(SharedArena(3, 2.0, prefix))
    memory = store.put(tools.update(0)).points.base
    name, size, generation = tools.words(store.handle(0))
    good = memory[:size].tobytes()
    for wrong in ("", "x", "../etc/passwd", f"../shm/{name}", name + "\0", name + "_"):
        with pytest.raises(StoreError, match="does not name"):
            reader.read(wrong, size, generation, CAMERA, Scale.UNKNOWN)
    for size_given, generation_given in ((size - 64, 1), (size + 64, 1), (0, 1), (1 << 60, 1), (size, 2)):
        with pytest.raises(StoreError):
            reader.read(name, size_given, generation_given, CAMERA, Scale.UNKNOWN)
    rng = np.random.default_rng(0)
    damaged = files.SHM / files.segment_name(f"{prefix}_x", 1, 0)
    for trial in range(200):
        raw = bytearray(good)
        if trial % 2:
            raw[rng.integers(0, 188)] ^= int(rng.integers(1, 256))
        else:
            del raw[rng.integers(0, len(raw)) :]
        damaged.write_bytes(raw)
        with pytest.raises(StoreError):
            reader.read(damaged.name, size, 1, CAMERA, Scale.UNKNOWN)
    damaged.unlink()
    assert reader.taken == 0


def test_m5_a_thousand_keyframes_take_the_memory_of_the_slots(make_store, prefix, tools):
    camera = Camera(250, 200, 200.0, 200.0, 125.0, 100.0)
    update = tools.update(0, camera)
    store = make_store(SharedArena(8, 2.0, prefix), slots=8)
    most = 0
    for _ in range(1000):
        store.put(update)
        sizes = [(files.SHM / name).stat().st_size for name in tools.files_of(prefix)]
        most = max(most, sum(sizes))
    assert len(update.depth.ravel()) == 50_000
    assert most <= 8 << 20
    store.close()
    assert not tools.files_of(prefix)


def test_slots_grow_with_the_keyframes(make_store, prefix, tools, reader):
    store = make_store(SharedArena(2, 2.0, prefix), slots=2)
    for index, width in enumerate((40, 400, 400)):
        camera = Camera(width, 300, 200.0, 200.0, 20.0, 100.0)
        store.put(tools.update(index, camera))
        with read(reader, store.handle(index), camera) as keyframe:
            assert len(keyframe.points) == 300 * width
    assert store.statistics()["shared_bytes"] == 2 * (3 << 20)


def test_full_shared_memory_costs_one_keyframe_and_says_how_to_mend_it(
    make_store, prefix, tools, monkeypatch, reader
):
    store = make_store(SharedArena(3, 2.0, prefix))

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(StoreError, match="shm-size") as error:
            store.put(tools.update(0))
    assert error.value.reason == "full"
    assert "\n" not in str(error.value)
    assert len(tools.files_of(prefix)) == 1
    store.put(tools.update(1))
    read(reader, store.handle(1)).release()


def test_a_reset_withdraws_the_keyframes_but_not_from_readers_that_have_them(
    make_store, prefix, tools, spawn, reader
):
    store = make_store(SharedArena(3, 2.0, prefix))
    store.put(tools.update(0))
    handle = store.handle(0)
    child = spawn()
    answer = child.ask("read", *tools.words(handle))
    store.reset()
    assert child.ask("look") == answer
    with pytest.raises(StoreError):
        read(reader, handle)


@pytest.mark.parametrize("end", ["exit", "raise", "interrupt", "fork"])
def test_a_writer_that_ends_by_itself_leaves_nothing(prefix, tools, spawn, end):
    child = spawn(WRITER, prefix, end)
    child.answer()
    assert len(tools.files_of(prefix)) == 4 + 1
    if end == "interrupt":
        child.process.send_signal(signal.SIGINT)
    elif end == "fork":
        child.ask("go")
        assert len(tools.files_of(prefix)) == 4 + 1
    child.end()
    assert not tools.files_of(prefix)


def test_m5_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_living_ones(prefix, tools, spawn):
    killed, living = spawn(WRITER, prefix, "exit"), spawn(WRITER, prefix, "exit")
    killed.answer(), living.answer()
    killed.kill()
    assert len(tools.files_of(prefix)) == 2 * (4 + 1)
    arena = SharedArena(3, 2.0, prefix)
    own, theirs = f"{prefix}_{os.getpid()}_", f"{prefix}_{living.process.pid}_"
    assert [name for name in tools.files_of(prefix) if not name.startswith(theirs)] == [own + "control"]
    assert len(tools.files_of(theirs)) == 4 + 1
    arena.close()
    living.end()


def test_a_reader_that_closes_removes_what_its_killed_writer_left(prefix, tools, spawn):
    writer = spawn(WRITER, prefix, "exit")
    handle = SegmentHandle(**writer.answer())
    reader = SegmentReader()
    lease = read(reader, handle)
    writer.kill()
    reader.close()
    assert not tools.files_of(prefix)
    assert (lease.keyframe.points == handle.generation).all()


def test_writers_of_one_process_do_not_meet(make_store, prefix, tools, reader):
    stores = [make_store(SharedArena(3, 2.0, prefix)) for _ in range(2)]
    for index, store in enumerate(stores):
        store.put(tools.update(index))
    for index, store in enumerate(stores):
        with read(reader, store.handle(index)) as keyframe:
            assert keyframe.id == index
    stores[0].close()
    read(reader, stores[1].handle(1)).release()
