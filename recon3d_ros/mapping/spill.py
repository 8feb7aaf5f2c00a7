# SPDX-License-Identifier: Apache-2.0
"""Dropped blocks kept on disk, as raw records of one size in a file without a name: the operating system frees it with the
process, however that ends. Reading and writing cost about 10 microseconds a block."""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import BLOCK_BYTES, Blocks
from recon3d_ros.mapping.saved import SavedBlocks

log = logging.getLogger(__name__)


class BlockFile:
    """Records of BLOCK_BYTES. A record lives while somebody uses it; its place is then taken again.

    Raises InputError when nothing can be written in `folder`."""

    def __init__(self, folder: str) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - as long as the mesher
        except OSError as error:
            raise InputError(f"mesh.spill: no file in '{folder}' ({error.strerror})") from error
        self._users: Counter[int] = Counter()
        self._free: list[int] = []
        self._end = 0
        self.full = False

    def write(self, record: bytes) -> int | None:
        """Where the record stands; None when the disk takes no more (said once)."""
        place = self._free.pop() if self._free else self._end
        try:
            if os.pwrite(self._file.fileno(), record, place * BLOCK_BYTES) < BLOCK_BYTES:
                raise OSError("disk full")
        except OSError as error:
            self._free.append(place)
            if not self.full:
                log.warning("mesh.spill: dropped blocks are lost from now on (%s)", error)
            self.full = True
            return None
        self._end = max(self._end, place + 1)
        self._users[place] = 1
        return place

    def read(self, place: int) -> bytes:
        """The record that was written there."""
        return os.pread(self._file.fileno(), BLOCK_BYTES, place * BLOCK_BYTES)

    def use(self, places: Iterable[int]) -> None:
        """One more user of each."""
        self._users.update(places)

    def leave(self, places: Iterable[int]) -> None:
        """One user of each less."""
        for place in places:
            self._users[place] -= 1
            if not self._users[place]:
                del self._users[place]
                self._free.append(place)


class Spill:
    """The blocks of one volume that are on disk. Volumes that come from another share its records."""

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def coordinates(self) -> NDArray[np.int32]:
        """Coordinates [n,3] of the blocks on disk."""
        return pool.unpacked(np.fromiter(self._places, np.int64, len(self._places)))

    def copy(self) -> Spill:
        """The same blocks for another volume."""
        other = Spill(self._file)
        other._places = dict(self._places)
        self._file.use(other._places.values())
        return other

    def clear(self) -> None:
        """Forget all."""
        self._file.leave(self._places.values())
        self._places = {}

    def store(self, blocks: Blocks | SavedBlocks, slots: NDArray[np.int64]) -> None:
        """Write blocks; when the disk is full they are lost."""
        keys = pool.keys_of(blocks.coords[slots]).tolist()
        for key, slot in zip(keys, slots.tolist(), strict=True):
            arrays = (blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot])
            place = self._file.write(b"".join(array.tobytes() for array in arrays))
            if place is not None:
                self._places[key] = place

    def recall(self, blocks: Blocks, slots: NDArray[np.int32]) -> None:
        """Read those of the given (empty or never dropped) blocks that are on disk, and forget them here."""
        if not self._places:
            return
        for key, slot in zip(pool.keys_of(blocks.coords[slots]).tolist(), slots.tolist(), strict=True):
            if key in self._places:
                place = self._places.pop(key)
                self._load(blocks, slot, place)
                self._file.leave([place])

    def peek(self, blocks: Blocks, coords: NDArray[np.int32]) -> None:
        """Insert copies of the blocks at `coords` [n,3] that are on disk into another pool."""
        for key, (x, y, z) in zip(pool.keys_of(coords).tolist(), coords.tolist(), strict=True):
            if key in self._places:
                self._load(blocks, pool.insert(blocks, x, y, z), self._places[key])

    def saving(self, saved: SavedBlocks, first: int, step: int) -> Iterator[None]:
        """Write all blocks to the rows from `first` on, so many at a step."""
        saved.coords[first:] = self.coordinates
        places = list(self._places.values())
        for start in range(0, len(places), step):
            for row, place in enumerate(places[start : start + step], first + start):
                self._load(saved, row, place)
            yield

    def _load(self, blocks: Blocks | SavedBlocks, slot: int, place: int) -> None:
        record = np.frombuffer(self._file.read(place), np.uint8)
        start = 0
        for array in (blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot]):
            array.reshape(-1).view(np.uint8)[:] = record[start : start + array.nbytes]
            start += array.nbytes
