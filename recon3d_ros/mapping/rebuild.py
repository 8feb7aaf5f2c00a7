# SPDX-License-Identifier: Apache-2.0
"""A second volume is filled from the kept depth images at their newest poses, piece by piece beside the live one, compared
with it, and takes its place."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.mapping.field import Field, Moment
from recon3d_ros.mapping.history import History


class Rebuild:
    """One rebuild. Call `step` until it returns True; then `volume` is to replace the live one.

    The result equals, bit for bit, a new volume into which the same keyframes are integrated in the same order at the poses
    `Record.rebuilt`. Where the memory of depth images was full, "the same keyframes" begins with the content that those let
    go had left by then, at the poses of that time. The cap on blocks holds here as there: the new volume drops what a live
    one of that history would have dropped, which need not be what the old one had dropped.

    Keyframes that come meanwhile are integrated in the live volume at once and here in their turn. A correction that comes
    meanwhile counts where its keyframe has not had its turn; otherwise it is left for the next rebuild.
    """

    def __init__(self, history: History, live: Field, make_volume: Callable[[], Field]) -> None:
        self._history = history
        self._filling: Iterator[None] = iter(())
        if history.base is None:
            self.volume = make_volume()
        else:
            self.volume, self._filling = history.base.restored()
        self._base: Moment | None = None
        self._live = live
        self._generation = history.generation
        self._taken = 0
        self._checkpoint: Moment | None = None
        self._differing: list[NDArray[np.int32]] = []
        self._comparing = False
        # A generator refers to this object and this object to it: unless it is closed, both volumes would stay in memory.
        self._work = self._steps()

    @property
    def stale(self) -> bool:
        """True when keyframes were let go meanwhile: what was built so far starts from before them."""
        return self._generation != self._history.generation

    def step(self) -> bool:
        """One bounded piece of the work: a keyframe, or some hundred blocks. True when all is done."""
        return next(self._work, True) is not None

    def published(self, coords: NDArray[np.int32]) -> None:
        """Changes of the live volume [n,3] were taken to be shown."""
        if self._comparing:
            self._differing.append(coords)

    def swap(self) -> NDArray[np.int32]:
        """Hand over to `volume`; returns the blocks [n,3] whose surface may differ from what was shown."""
        self._work.close()
        self._live.release()
        self._history.rebuilt(self._base, self._checkpoint)
        return np.concatenate([*self._differing, self._live.take_changed(), self.volume.take_changed()])

    def abandon(self) -> None:
        """Give back what was built so far."""
        self._work.close()
        self.volume.release()

    def _steps(self) -> Generator[bool | None, None, None]:
        yield from self._filling
        if self._history.base is not None:
            self._base = self.volume.checkpoint()
        yield from self._catch_up()
        # From here on both volumes tell what they change, so a block need not be compared twice.
        self.volume.take_changed()
        self._comparing = True
        for coords in self.volume.compare(self._live):
            self._differing.append(coords)
            yield None
        yield from self._catch_up()
        yield True

    def _catch_up(self) -> Iterator[None]:
        while self._taken < len(self._history.records):
            record = self._history.records[self._taken]
            record.rebuilt = record.corrected
            self.volume.integrate(record.image, record.rebuilt, record.far, record.spread)
            self._taken += 1
            if record.id == self._history.checkpoint_id:
                self._checkpoint = self.volume.checkpoint()
            yield None
