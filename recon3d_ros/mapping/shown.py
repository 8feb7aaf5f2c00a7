# SPDX-License-Identifier: Apache-2.0
"""What viewers have been given of the mesh, and what of it has changed since."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.blocks import unique_rows
from recon3d_ros.mapping.field import Field
from recon3d_ros.mapping.regions import regions_meeting


class Shown:
    """triangles: of all regions as they were last given out."""

    def __init__(self) -> None:
        self.triangles = 0
        self._sizes: dict[tuple[int, int, int], int] = {}
        self._changed: list[NDArray[np.int32]] = []
        self._left = np.empty((0, 3), np.int32)

    @property
    def waiting(self) -> bool:
        """True while the last call of `changes` left regions for the next."""
        return len(self._left) > 0

    def note(self, blocks: NDArray[np.int32]) -> None:
        """The surface of blocks [n,3] may differ."""
        self._changed.append(blocks)

    def changes(self, volume: Field, most: int | None) -> list[MeshBlock]:
        """The regions whose triangles may differ, at most so many; one that became empty comes with 0 triangles."""
        regions = regions_meeting(np.concatenate(self._changed)) if self._changed else self._left[:0]
        if self.waiting:
            regions = unique_rows(np.concatenate([self._left, regions]))
        self._changed.clear()
        count = len(regions) if most is None else most
        self._left = regions[count:]
        out = []
        for block in volume.extract(regions[:count]):
            before, after = self._sizes.pop(block.id, 0), len(block.triangles)
            self.triangles += after - before
            if after:
                self._sizes[block.id] = after
            if before or after:
                out.append(block)
        return out
