# SPDX-License-Identifier: Apache-2.0
"""Sparse voxels: blocks of 8x8x8 in one pool, found by an open-addressing hash of their integer coordinates.

The arrays are reserved for the whole capacity and the operating system commits a page when it is first written, so the
pool costs what it holds and never has to be copied to grow. Voxel (x, y, z) of a block is entry (z * 8 + y) * 8 + x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping.jit import kernel

#: Voxels along the edge of a block, and in a block.
SIDE = 8
VOXELS = SIDE**3

#: Block coordinates reach from -LIMIT to LIMIT - 1.
LIMIT = 1 << 20

#: Fixed point of the weights: 64 is one full observation.
UNIT_WEIGHT = 64

_EMPTY = -1
#: Places in `Blocks.counts`: slots ever used, slots given back.
HIGH, FREE = 0, 1


class Blocks(NamedTuple):
    """The pool, as arrays that the kernels take together. C is the capacity.

    keys int64 / slots int32 [2^k]: the hash, key -1 = empty. tsdf int16 [C,512]: distance / truncation * 32767. weight
    uint16 [C,512]: observations * 64. colour uint8 [C,512,3]. coords int32 [C,3]: of the block, x y z. alive bool [C].
    last_seen int64 [C]: stamp of the last integration that listed the block. dirty bool [C]: changed since it was meshed.
    free int32 [C]: stack of slots given back. counts int64 [2]: slots ever used, height of that stack.
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


def allocate(capacity: int) -> Blocks:
    """An empty pool for `capacity` blocks. Raises InputError when the machine cannot reserve it."""
    table = 1 << (2 * capacity - 1).bit_length()
    try:
        return Blocks(
            keys=np.full(table, _EMPTY, np.int64),
            slots=np.empty(table, np.int32),
            tsdf=np.empty((capacity, VOXELS), np.int16),
            weight=np.empty((capacity, VOXELS), np.uint16),
            colour=np.empty((capacity, VOXELS, 3), np.uint8),
            coords=np.empty((capacity, 3), np.int32),
            alive=np.zeros(capacity, np.bool_),
            last_seen=np.zeros(capacity, np.int64),
            dirty=np.zeros(capacity, np.bool_),
            free=np.empty(capacity, np.int32),
            counts=np.zeros(2, np.int64),
        )
    except MemoryError as error:
        raise InputError(f"no memory for {capacity} mesh blocks: lower mesh.max_blocks") from error


def count(blocks: Blocks) -> int:
    """Number of blocks held."""
    return int(blocks.counts[HIGH] - blocks.counts[FREE])


def memory(blocks: Blocks) -> int:
    """Bytes in use."""
    per_slot = sum(array.nbytes for array in blocks[2:-1]) // len(blocks.alive)
    return blocks.keys.nbytes + blocks.slots.nbytes + int(blocks.counts[HIGH]) * per_slot


def copy(blocks: Blocks) -> Blocks:
    """A pool of the same capacity and content."""
    other = allocate(len(blocks.alive))
    other.keys[:], other.slots[:] = blocks.keys, blocks.slots
    sources: Sequence[NDArray[Any]] = blocks[2:-1]
    targets: Sequence[NDArray[Any]] = other[2:-1]
    used = int(blocks.counts[HIGH])
    for source, target in zip(sources, targets, strict=True):
        target[:used] = source[:used]
    other.counts[:] = blocks.counts
    return other


def coordinates(blocks: Blocks) -> NDArray[np.int32]:
    """Coordinates [n,3] of all blocks."""
    return blocks.coords[blocks.alive]


def evict(blocks: Blocks, number: int, stamp: int) -> NDArray[np.int32]:
    """Drop up to `number` blocks, the least recently seen first, none seen at `stamp`; returns their coordinates [n,3]."""
    candidates = np.flatnonzero(blocks.alive & (blocks.last_seen < stamp))
    order = np.argsort(blocks.last_seen[candidates], kind="stable")
    dropped = candidates[order[:number]]
    coords = blocks.coords[dropped].copy()
    blocks.alive[dropped] = False
    blocks.dirty[dropped] = False
    top = blocks.counts[FREE]
    blocks.free[top : top + len(dropped)] = dropped
    blocks.counts[FREE] += len(dropped)
    _rehash(blocks)
    return coords


def unique_rows(coords: NDArray[np.int32]) -> NDArray[np.int32]:
    """The different rows of integer coordinates [n,3], in ascending order."""
    keys = np.unique(_keys(coords))
    parts = (keys >> 42, keys >> 21 & (2 * LIMIT - 1), keys & (2 * LIMIT - 1))
    return (np.stack(parts, axis=-1) - LIMIT).astype(np.int32)


@kernel
def _keys(coords):
    """Keys [n] of coordinates [n,3]."""
    keys = np.empty(len(coords), np.int64)
    for i in range(len(coords)):
        keys[i] = _pack(coords[i, 0], coords[i, 1], coords[i, 2])
    return keys


@kernel
def _pack(x, y, z):
    """One non-negative int64 of three coordinates in -LIMIT .. LIMIT - 1."""
    return (np.int64(x) + LIMIT) << 42 | (np.int64(y) + LIMIT) << 21 | (np.int64(z) + LIMIT)


# Kernels take arrays out of the pool before their loops: handing on the whole pool costs more than a look-up.


@kernel
def _probe(keys, key):
    """Place of a key in the hash, or of the empty place where it belongs (linear probing, 64-bit mixing)."""
    mask = len(keys) - 1
    mixed = (key ^ (key >> 31)) * np.int64(0x7FB5D329728EA185)
    place = (mixed ^ (mixed >> 29)) & mask
    while keys[place] != _EMPTY and keys[place] != key:
        place = (place + 1) & mask
    return place


@kernel
def find(keys, slots, x, y, z):
    """Slot of a block in the hash `keys`, `slots` of a pool; -1 if there is none."""
    key = _pack(x, y, z)
    place = _probe(keys, key)
    return slots[place] if keys[place] == key else np.int32(-1)


@kernel
def insert(blocks, x, y, z):
    """Slot of a new, empty block; -1 when the pool is full."""
    slot = _take_slot(blocks)
    if slot >= 0:
        key = _pack(x, y, z)
        place = _probe(blocks.keys, key)
        blocks.keys[place] = key
        blocks.slots[place] = slot
        blocks.tsdf[slot] = 32767
        blocks.weight[slot] = 0
        blocks.colour[slot] = 0
        blocks.coords[slot, 0], blocks.coords[slot, 1], blocks.coords[slot, 2] = x, y, z
        blocks.alive[slot] = True
        blocks.last_seen[slot] = -1
        blocks.dirty[slot] = False
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
def _rehash(blocks):
    blocks.keys[:] = _EMPTY
    for slot in range(blocks.counts[HIGH]):
        if blocks.alive[slot]:
            x, y, z = blocks.coords[slot]
            key = _pack(x, y, z)
            place = _probe(blocks.keys, key)
            blocks.keys[place] = key
            blocks.slots[place] = slot


@kernel
def differing(old, new, min_weight):
    """Flags over the slots of `new` (block absent from `old` or of other content) and over those of `old` (block gone)."""
    changed, gone = np.zeros(len(new.alive), np.bool_), np.zeros(len(old.alive), np.bool_)
    for slot in range(new.counts[HIGH]):
        if new.alive[slot]:
            x, y, z = new.coords[slot]
            other = find(old.keys, old.slots, x, y, z)
            changed[slot] = other < 0 or not _same_surface(old, other, new, slot, min_weight)
    for slot in range(old.counts[HIGH]):
        if old.alive[slot]:
            x, y, z = old.coords[slot]
            gone[slot] = find(new.keys, new.slots, x, y, z) < 0
    return changed, gone


@kernel
def _same_surface(a, slot_a, b, slot_b, min_weight):
    tsdf_a, weight_a, colour_a = a.tsdf[slot_a], a.weight[slot_a], a.colour[slot_a]
    tsdf_b, weight_b, colour_b = b.tsdf[slot_b], b.weight[slot_b], b.colour[slot_b]
    for i in range(VOXELS):
        if tsdf_a[i] != tsdf_b[i] or (weight_a[i] < min_weight) != (weight_b[i] < min_weight):
            return False
        for c in range(3):
            if colour_a[i, c] != colour_b[i, c]:
                return False
    return True
