# SPDX-License-Identifier: Apache-2.0
"""Sparse voxels: blocks of 8x8x8 in one pool, found by an open-addressing hash of their integer coordinates.

The arrays are reserved for the whole capacity and the operating system commits a page when it is first written, so the
pool costs what it holds and never has to be copied to grow. Voxel (x, y, z) of a block is entry (z * 8 + y) * 8 + x."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.voxel_hash import EMPTY, LIMIT, pack, probe

#: Voxels along the edge of a block, and in a block.
SIDE = 8
VOXELS = SIDE**3

#: Bytes of the voxels of a block.
BLOCK_BYTES = VOXELS * 7

#: Fixed point of the weights: 64 is one full observation.
UNIT_WEIGHT = 64

#: Low bits of a weight in the pool: how many views, up to MOST_VIEWS, the colour is the mean of. Above that it is a running
#: mean; with more the rounding to uint8 would swallow small changes.
VIEW_BITS = 3
MOST_VIEWS = (1 << VIEW_BITS) - 1

#: Places in `Blocks.counts`: slots ever used, slots given back.
HIGH, FREE = 0, 1

_EVICTED_SHARE = 10  # a full pool drops one in so many of its blocks at once


class Blocks(NamedTuple):
    """The pool, as arrays that the kernels take together. C is the capacity.

    keys int64 / slots int32 [2^k]: the hash, -1 = empty. tsdf int16 [C,512]: distance / truncation * 32767. weight uint16
    [C,512]: observations * 64 << 3 | views that gave the colour. colour uint8 [C,512,3]. coords int32 [C,3]: of the block,
    x y z. alive bool [C]. last_seen int64 [C]: stamp of the last integration that listed the block. dirty bool [C]: changed
    since it was meshed. free int32 [C]: stack of slots given back. counts int64 [2]: slots ever used, height of that stack.
    """

    keys: NDArray[np.int64]
    slots: NDArray[np.int32]
    tsdf: NDArray[np.int16]
    weight: NDArray[np.uint16]
    colour: NDArray[np.uint8]
    coords: NDArray[np.int32]
    alive: NDArray[np.bool_]
    last_seen: NDArray[np.int64]
    dirty: NDArray[np.bool_]
    free: NDArray[np.int32]
    counts: NDArray[np.int64]


def allocate(capacity: int, xp: Any = np) -> Blocks:
    """An empty pool for `capacity` blocks. xp: what makes its arrays, numpy or a module of the same functions for those on
    a device; `counts` is numpy's in any case. Raises InputError when there is no memory for it."""
    table = 1 << (2 * capacity - 1).bit_length()
    try:
        return Blocks(
            keys=xp.full(table, EMPTY, np.int64),
            slots=xp.full(table, -1, np.int32),
            tsdf=xp.empty((capacity, VOXELS), np.int16),
            weight=xp.empty((capacity, VOXELS), np.uint16),
            colour=xp.empty((capacity, VOXELS, 3), np.uint8),
            coords=xp.empty((capacity, 3), np.int32),
            alive=xp.zeros(capacity, np.bool_),
            last_seen=xp.zeros(capacity, np.int64),
            dirty=xp.zeros(capacity, np.bool_),
            free=xp.empty(capacity, np.int32),
            counts=np.zeros(2, np.int64),
        )
    except MemoryError as error:
        raise InputError(f"no memory for {capacity} mesh blocks: lower mesh.max_blocks") from error


def weight_of(observations: float) -> int:
    """The least weight in the pool of a voxel with so many observations."""
    return max(1, round(observations * UNIT_WEIGHT)) << VIEW_BITS


def count(blocks: Blocks) -> int:
    """Number of blocks held."""
    return int(blocks.counts[HIGH] - blocks.counts[FREE])


def memory(blocks: Blocks) -> int:
    """Bytes in use."""
    per_slot = sum(array.nbytes for array in blocks[2:-1]) // len(blocks.alive)
    return blocks.keys.nbytes + blocks.slots.nbytes + int(blocks.counts[HIGH]) * per_slot


def copy_table(source: Blocks, target: Blocks) -> None:
    """Copy what is known of the blocks, but not their voxels and not the hash, into a pool of the same capacity."""
    used = int(source.counts[HIGH])
    for name in ("coords", "alive", "last_seen", "free"):
        getattr(target, name)[:used] = getattr(source, name)[:used]
    target.counts[:] = source.counts


def coordinates(blocks: Blocks) -> NDArray[np.int32]:
    """Coordinates [n,3] of all blocks."""
    return blocks.coords[blocks.alive]


def oldest(blocks: Blocks, stamp: int | np.int64, xp: Any = np) -> NDArray[np.int64]:
    """Slots of the blocks that a full pool drops at once: the least recently seen ones, in that order, none seen at
    `stamp`. xp: whose arrays the pool has."""
    candidates = xp.flatnonzero(blocks.alive & (blocks.last_seen < stamp))
    order = xp.argsort(blocks.last_seen[candidates], kind="stable")
    slots: NDArray[np.int64] = candidates[order[: math.ceil(len(blocks.alive) / _EVICTED_SHARE)]]
    return slots


def drop(blocks: Blocks, slots: NDArray[np.int64]) -> NDArray[np.int32]:
    """Drop blocks; returns their coordinates [n,3]. The hash holds them until it is filled anew."""
    coords = blocks.coords[slots]
    blocks.alive[slots] = False
    blocks.dirty[slots] = False
    top = int(blocks.counts[FREE])
    blocks.free[top : top + len(slots)] = slots
    blocks.counts[FREE] += len(slots)
    return coords


def unique_rows(coords: NDArray[np.int32]) -> NDArray[np.int32]:
    """The different rows of integer coordinates [n,3], in ascending order."""
    return unpacked(np.unique(keys_of(coords)))


def unpacked(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Coordinates [n,3] of keys [n]."""
    parts = (keys >> 42, keys >> 21 & (2 * LIMIT - 1), keys & (2 * LIMIT - 1))
    return (np.stack(parts, axis=-1) - LIMIT).astype(np.int32)


@kernel
def keys_of(coords):
    """Keys [n] of coordinates [n,3]."""
    keys = np.empty(len(coords), np.int64)
    for i in range(len(coords)):
        keys[i] = pack(coords[i, 0], coords[i, 1], coords[i, 2])
    return keys


# Kernels take arrays out of the pool before their loops: handing on the whole pool costs more than a look-up.


@kernel
def find(keys, slots, x, y, z):
    """Slot of a block in the hash `keys`, `slots` of a pool; -1 if there is none."""
    key = pack(x, y, z)
    place = probe(keys, key)
    return slots[place] if keys[place] == key else np.int32(-1)


@kernel
def insert(blocks, x, y, z):
    """Slot of a new, empty block; -1 when the pool is full."""
    slot = _take_slot(blocks)
    if slot >= 0:
        key = pack(x, y, z)
        place = probe(blocks.keys, key)
        blocks.keys[place] = key
        blocks.slots[place] = slot
        blocks.tsdf[slot] = 32767
        blocks.weight[slot] = 0
        blocks.colour[slot] = 0
        blocks.coords[slot, 0], blocks.coords[slot, 1], blocks.coords[slot, 2] = x, y, z
        blocks.alive[slot] = True
        blocks.last_seen[slot] = -1
        blocks.dirty[slot] = True  # that it is there may be a change, even if nothing is written to it
    return slot


@kernel
def _take_slot(blocks):
    if blocks.counts[FREE] > 0:
        blocks.counts[FREE] -= 1
        return blocks.free[blocks.counts[FREE]]
    if blocks.counts[HIGH] < len(blocks.alive):
        blocks.counts[HIGH] += 1
        return np.int32(blocks.counts[HIGH] - 1)
    return np.int32(-1)


@kernel
def commit(blocks, start, stop):
    """Write to slots that were never used: the operating system gives their memory now, not when blocks are made there."""
    for slot in range(start, stop):
        blocks.tsdf[slot, 0] = 0
        blocks.weight[slot, 0] = 0
        blocks.colour[slot, 0, 0] = 0


@kernel
def rehash(blocks):
    """Enter all blocks into the hash anew."""
    blocks.keys[:] = EMPTY
    for slot in range(blocks.counts[HIGH]):
        if blocks.alive[slot]:
            x, y, z = blocks.coords[slot]
            key = pack(x, y, z)
            place = probe(blocks.keys, key)
            blocks.keys[place] = key
            blocks.slots[place] = slot


@kernel
def insert_copies(source, target, coords):
    """Insert copies of those blocks of one pool that stand at coords [n,3] into another that has room for them."""
    for i in range(len(coords)):
        slot = find(source.keys, source.slots, coords[i, 0], coords[i, 1], coords[i, 2])
        if slot >= 0:
            new = insert(target, coords[i, 0], coords[i, 1], coords[i, 2])
            target.tsdf[new] = source.tsdf[slot]
            target.weight[new] = source.weight[slot]
            target.colour[new] = source.colour[slot]


@kernel
def copy_voxels(source, target, slots):
    """Copy the voxels of some slots from one pool into the same slots of another."""
    for slot in slots:
        target.tsdf[slot] = source.tsdf[slot]
        target.weight[slot] = source.weight[slot]
        target.colour[slot] = source.colour[slot]
