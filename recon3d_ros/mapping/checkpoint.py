# SPDX-License-Identifier: Apache-2.0
"""The content of a volume at one moment, kept while the volume goes on. A block is put aside when it is first written
after that moment, so nothing has to be copied at once and a block that is never seen again is not copied at all."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.saved import CONTENT, TABLE, SavedBlocks

if TYPE_CHECKING:
    from recon3d_ros.mapping.tsdf import Volume

#: Blocks copied in one step of `restored` and `saving`.
_STEP = 500


class Checkpoint:
    """Made by `Volume.checkpoint`; the volume calls `put_aside` before it writes."""

    def __init__(self, volume: Volume) -> None:
        self._state = volume.twin()
        self._live = volume.blocks
        self._aside = np.zeros(len(volume.blocks.alive), np.bool_)
        pool.copy_table(self._live, self._state.blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks put aside."""
        return int(np.count_nonzero(self._aside)) * pool.BLOCK_BYTES

    def put_aside(self, slots: NDArray[np.int32] | NDArray[np.int64]) -> None:
        """The volume is about to write these slots."""
        due = slots[self._state.blocks.alive[slots] & ~self._aside[slots]]
        pool.copy_voxels(self._live, self._state.blocks, due.astype(np.int64))
        self._aside[due] = True

    def restored(self) -> tuple[Volume, Iterator[None]]:
        """A volume, and the steps that fill it with the content of that moment; the watched one may go on between them."""
        into = self._state.twin()
        return into, self._fill(into)

    def _fill(self, into: Volume) -> Iterator[None]:
        pool.copy_table(self._state.blocks, into.blocks)
        pool.rehash(into.blocks)
        used = int(into.blocks.counts[pool.HIGH])
        for start in range(0, used, _STEP):
            slots = start + np.flatnonzero(into.blocks.alive[start : min(start + _STEP, used)])
            aside = self._aside[slots]
            pool.copy_voxels(self._state.blocks, into.blocks, slots[aside])
            pool.copy_voxels(self._live, into.blocks, slots[~aside])
            yield

    def saving(self) -> Generator[None, None, SavedBlocks]:
        """The content of that moment, some blocks at a step; the watched volume may go on between them."""
        blocks = self._state.blocks
        # A copy of its own: when the watched volume is replaced, its checkpoints forget what they have on disk.
        spill = None if self._state.spill is None else self._state.spill.copy()
        slots, free = np.flatnonzero(blocks.alive), blocks.free[: int(blocks.counts[pool.FREE])]
        out = SavedBlocks.blank(self._state.stamp, slots, free, 0 if spill is None else len(spill))
        for name in TABLE:
            getattr(out, name)[: len(slots)] = getattr(blocks, name)[slots]
        try:
            for start in range(0, len(slots), _STEP):
                self._copy(out, slots, start, min(start + _STEP, len(slots)))
                yield
            if spill is not None:
                yield from spill.saving(out, len(slots), _STEP)
        finally:
            if spill is not None:
                spill.clear()
        return out

    def _copy(self, out: SavedBlocks, slots: NDArray[np.int64], start: int, stop: int) -> None:
        """Write the voxels of rows start to stop."""
        some = slots[start:stop]
        aside = self._aside[some]
        for source, chosen in ((self._state.blocks, aside), (self._live, ~aside)):
            for name in CONTENT:
                getattr(out, name)[start:stop][chosen] = getattr(source, name)[some[chosen]]

    def release(self) -> None:
        """Give back what is held on disk."""
        self._state.release()
