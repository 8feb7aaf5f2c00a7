# SPDX-License-Identifier: Apache-2.0
"""The pool of voxel blocks: its hash, its bound, and the dropping of old blocks."""

import os
from pathlib import Path

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import blocks as pool


def filled(capacity, coords):
    blocks = pool.allocate(capacity)
    return blocks, [pool.insert(blocks, *c) for c in coords]


def slot_of(blocks, coords):
    return pool.find(blocks.keys, blocks.slots, *coords)


@pytest.fixture
def coords():
    rng = np.random.default_rng(0)
    near = rng.integers(-20, 20, (400, 3))
    far = rng.integers(-pool.LIMIT, pool.LIMIT, (400, 3))
    return np.unique(np.vstack([near, far]), axis=0).tolist()


def test_every_block_is_found_under_its_coordinates_and_no_other(coords):
    blocks, slots = filled(1000, coords)
    assert sorted(slots) == list(range(len(coords)))
    assert [slot_of(blocks, c) for c in coords] == slots
    known = set(map(tuple, coords))
    others = [
        c for c in np.random.default_rng(1).integers(-30, 30, (500, 3)).tolist() if tuple(c) not in known
    ]
    assert all(slot_of(blocks, c) == -1 for c in others)


def test_a_full_pool_refuses_and_keeps_what_it_has(coords):
    blocks, slots = filled(100, coords)
    assert slots[100:] == [-1] * (len(coords) - 100)
    assert pool.count(blocks) == 100 and [slot_of(blocks, c) for c in coords[:100]] == slots[:100]


def test_the_least_recently_seen_blocks_are_dropped_and_their_room_is_used_again(coords):
    blocks, slots = filled(100, coords[:100])
    blocks.last_seen[slots] = np.arange(100)[::-1]
    blocks.tsdf[slots] = -5
    gone = pool.drop(blocks, pool.oldest(blocks, stamp=99))
    pool.rehash(blocks)
    # The very last was seen now (stamp 99 is that of coords[0]); the oldest are at the end.
    assert sorted(map(tuple, gone.tolist())) == sorted(map(tuple, coords[90:100]))
    assert pool.count(blocks) == 90 and slot_of(blocks, coords[95]) == -1
    assert slot_of(blocks, coords[50]) == slots[50]
    slot = pool.insert(blocks, *coords[200])
    assert slot in slots[90:] and (blocks.tsdf[slot] == 32767).all() and (blocks.weight[slot] == 0).all()


def test_blocks_seen_now_are_never_dropped(coords):
    blocks, slots = filled(50, coords[:50])
    blocks.last_seen[slots] = 7
    assert len(pool.oldest(blocks, stamp=7)) == 0 and pool.count(blocks) == 50


def test_memory_is_that_of_the_blocks_held_not_of_the_room_reserved(coords):
    blocks, _ = filled(100_000, coords)
    per_voxel = (pool.memory(blocks) - blocks.keys.nbytes - blocks.slots.nbytes) / (len(coords) * pool.VOXELS)
    assert 7 <= per_voxel < 7.2


def test_blocks_to_come_can_have_their_memory_beforehand():
    blocks = pool.allocate(20_000)
    pool.insert(blocks, 0, 0, 0)
    pool.commit(blocks, 1, 10_000)
    before = resident_bytes()
    for i in range(1, 10_000):
        pool.insert(blocks, i, 0, 0)
    assert resident_bytes() - before < 0.1 * 10_000 * pool.BLOCK_BYTES


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_rows_are_made_unique_with_negative_coordinates():
    rows = np.array([(0, 0, 0), (-1, 5, 2), (0, 0, 0), (-1, -5, 2), (-1, 5, 2)], np.int32)
    assert pool.unique_rows(rows).tolist() == [[-1, -5, 2], [-1, 5, 2], [0, 0, 0]]


def test_more_blocks_than_the_machine_can_hold_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"mesh\.max_blocks"):
        pool.allocate(1 << 44)
