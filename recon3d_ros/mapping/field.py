# SPDX-License-Identifier: Apache-2.0
"""What the mesher asks of a volume, wherever its voxels lie. `tsdf.Volume` is the one for the CPU."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import MeshBlock, Pose
from recon3d_ros.mapping.saved import SavedBlocks
from recon3d_ros.mapping.splat import DepthImage

Coordinates = NDArray[np.int32]


class Moment(Protocol):
    """The content of a field at one moment, whatever the field does afterwards."""

    def restored(self) -> tuple[Any, Iterator[None]]:
        """A field of its own, and the bounded steps that fill it with the content of that moment."""

    def saving(self) -> Generator[None, None, SavedBlocks]:
        """The content of that moment, copied once, in bounded steps; that on disk too."""


class Field(Protocol):
    """A signed distance field. refused, evicted: blocks for which there was no room, blocks dropped to make room."""

    refused: int
    evicted: int

    @property
    def count(self) -> int:
        """Blocks held."""

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks held, moments included."""

    def integrate(self, image: DepthImage, T_map_cam: Pose, far: float, spread: float = 0.0) -> None:
        """Take in a depth image seen from a pose. far, spread: see `tsdf.Volume.integrate`."""

    def prepare(self) -> bool:
        """A bounded step of what can be done before the next keyframe comes. True while more is to be done."""

    def take_changed(self) -> Coordinates:
        """Coordinates [n,3] of the blocks whose surface may differ since the last call, those dropped among them."""

    def coordinates(self) -> Coordinates:
        """Coordinates [n,3] of all blocks held."""

    def extract(self, regions: Coordinates) -> list[MeshBlock]:
        """The triangles of each region [n,3], in the given order, with no vertex twice inside one."""

    def extract_all(self) -> list[MeshBlock]:
        """All regions that have triangles, the blocks on disk among them."""

    def seen_share(self, image: DepthImage, T_map_cam: Pose, far: float, observations: float) -> float:
        """Share of the voxels that a depth image occupies, up to `far`, with at least so many observations."""

    def compare(self, other: Any) -> Iterator[Coordinates]:
        """Coordinates [n,3] of the blocks of either field whose surface the other does not have, in bounded steps."""

    def resume(self, saved: SavedBlocks) -> None:
        """Take in the content of another field of the same voxels, while this one is empty. Raises InputError where there
        is no room for it."""

    def checkpoint(self) -> Any:
        """The present content, a `Moment`."""

    def forget(self, checkpoint: Any) -> None:
        """A moment is not needed any more."""

    def release(self) -> None:
        """Give back what is held on disk."""
