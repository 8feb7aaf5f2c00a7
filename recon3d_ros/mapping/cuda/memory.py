# SPDX-License-Identifier: Apache-2.0
"""The pool of mapping/blocks.py in the memory of a device. Its arrays grow with what they hold, up to the capacity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import FREE, HIGH, VOXELS, Blocks
from recon3d_ros.mapping.cuda.device import Device, run
from recon3d_ros.mapping.voxel_hash import EMPTY

_FIRST_BLOCKS = 4096  # that memory is taken for at the start

#: `struct Pool` of blocks.cu.
_POINTERS = ("keys", "slots", "tsdf", "weight", "colour", "coords", "alive", "last_seen", "dirty")
_POOL = np.dtype([(name, np.uint64) for name in _POINTERS] + [("table", np.int64)])


class DevicePool:
    """Blocks on a device, at most `capacity` of them. `blocks.counts` lies on the host: it is this class that counts."""

    def __init__(self, device: Device, capacity: int) -> None:
        self.device = device
        self.blocks = pool.allocate(min(capacity, _FIRST_BLOCKS), device.xp)
        self._capacity = capacity

    @property
    def used(self) -> np.int32:
        """Slots ever used."""
        return np.int32(self.blocks.counts[HIGH])

    @property
    def room(self) -> int:
        """Blocks that could be made now."""
        return len(self.blocks.alive) - pool.count(self.blocks)

    def launch(self, kernel: str, threads: int | np.integer[Any], *arguments: Any) -> None:
        """Run so many threads of a kernel whose first argument is the pool."""
        run(self.device, kernel, threads, self.structure(), *arguments)

    def launch_blocks(self, kernel: str, number: int | np.integer[Any], *arguments: Any) -> None:
        """Run a thread for every voxel of so many blocks."""
        self.device.launch(kernel, int(number), VOXELS, self.structure(), *arguments)

    def structure(self) -> NDArray[np.void]:
        """The pool as an argument of kernels."""
        return _structure(self.device, self.blocks)

    def copy(self) -> DevicePool:
        """A pool of the same content."""
        other = DevicePool(self.device, 0)
        other.blocks, other._capacity = (
            _copy(self.device, self.blocks, len(self.blocks.alive)),
            self._capacity,
        )
        return other

    def make(self, fresh: Any, number: int, stamp: np.int64, listed: Any, counts: Any) -> None:
        """Give slots to the first `number` of the keys that `touch` has noted in `fresh`, and list them."""
        given_back = int(self.blocks.counts[FREE])
        slots = (self.blocks.free, np.int32(given_back), self.used, stamp)
        self.launch_blocks("make_blocks", number, fresh, *slots, listed, counts)
        again = min(number, given_back)
        self.blocks.counts[FREE] -= again
        self.blocks.counts[HIGH] += number - again

    def grow(self) -> bool:
        """Take memory for twice as many blocks. False at the limit, which is also where the device has no more."""
        size = len(self.blocks.alive)
        if size >= self._capacity:
            return False
        try:
            self.blocks = _copy(self.device, self.blocks, min(2 * size, self._capacity))
        except InputError:
            self._capacity = size
            return False
        return True

    def evict(self, stamp: np.int64) -> NDArray[np.int32]:
        """Drop some blocks, the least recently seen first, none seen at `stamp`; returns their coordinates [n,3]."""
        coords = pool.drop(self.blocks, pool.oldest(self.blocks, stamp, self.device.xp))
        self.rehash()
        return self.device.get(coords)

    def rehash(self) -> None:
        """Enter the living blocks into the hash anew, and nothing else."""
        _rehash(self.device, self.blocks)


def _structure(device: Device, blocks: Blocks) -> NDArray[np.void]:
    out = np.zeros(1, _POOL)
    for name in _POINTERS:
        out[name] = device.address(getattr(blocks, name))
    out["table"] = len(blocks.keys)
    return out


def _copy(device: Device, blocks: Blocks, capacity: int) -> Blocks:
    """The same content with room for `capacity` blocks."""
    out, used = pool.allocate(capacity, device.xp), int(blocks.counts[HIGH])
    sources: tuple[Any, ...] = blocks[2:-1]
    targets: tuple[Any, ...] = out[2:-1]
    for source, target in zip(sources, targets, strict=True):
        target[:used] = source[:used]
    out.counts[:] = blocks.counts
    _rehash(device, out)
    return out


def _rehash(device: Device, blocks: Blocks) -> None:
    blocks.keys.fill(EMPTY)
    blocks.slots.fill(-1)
    used = np.int32(blocks.counts[HIGH])
    run(device, "rehash", used, _structure(device, blocks), used)
