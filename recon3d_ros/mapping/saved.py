# SPDX-License-Identifier: Apache-2.0
"""A surface as it is saved, with all that a mesher needs to go on with it as if it had never stopped: among it where each
block stood, so that a full pool later drops the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Arrays, Scale
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import FREE, HIGH, VOXELS, Blocks

#: Arrays with a row for each block, as in `Blocks`: what is known of it, and its voxels.
TABLE, CONTENT = ("coords", "last_seen"), ("tsdf", "weight", "colour")

#: Type and shape of every array; -1: any number.
_ARRAYS: dict[str, tuple[Any, tuple[int, ...]]] = {
    **dict.fromkeys(("voxel_size", "truncation", "median", "farthest"), (np.float64, ())),
    **dict.fromkeys(("newest", "alike", "stamp"), (np.int64, ())),
    "scale": (np.str_, ()),
    "integrated": (np.int64, (-1,)),
    "place": (np.float64, (-1, 3)),
    "slots": (np.int32, (-1,)),
    "free": (np.int32, (-1,)),
    "coords": (np.int32, (-1, 3)),
    "last_seen": (np.int64, (-1,)),
    "tsdf": (np.int16, (-1, VOXELS)),
    "weight": (np.uint16, (-1, VOXELS)),
    "colour": (np.uint8, (-1, VOXELS, 3)),
}


class SavedBlocks(NamedTuple):
    """n blocks: m that were in memory, by slot, then those on disk.

    stamp int64 []: of the last integration. slots int32 [m]: of those in memory; free int32 [f]: stack of slots given back.
    coords int32 [n,3], last_seen int64 [n] (-1: on disk), tsdf int16 [n,512], weight uint16 [n,512], colour uint8
    [n,512,3]: as in `Blocks`."""

    stamp: NDArray[np.int64]
    slots: NDArray[np.int32]
    free: NDArray[np.int32]
    coords: NDArray[np.int32]
    last_seen: NDArray[np.int64]
    tsdf: NDArray[np.int16]
    weight: NDArray[np.uint16]
    colour: NDArray[np.uint8]

    @staticmethod
    def blank(stamp: int, slots: NDArray[Any], free: NDArray[np.int32], on_disk: int) -> SavedBlocks:
        """The rows of these slots and of so many blocks on disk are still to be written."""
        rows = {}
        for name in (*TABLE, *CONTENT):
            kind, shape = _ARRAYS[name]
            rows[name] = np.empty((len(slots) + on_disk, *shape[1:]), kind)
        rows["last_seen"][:] = -1
        return SavedBlocks(np.array(stamp, np.int64), slots.astype(np.int32), free.copy(), **rows)

    def placed(
        self, capacity: int, disk: bool
    ) -> tuple[NDArray[np.int64] | slice, NDArray[Any], NDArray[Any]]:
        """Which rows go into an empty pool of that capacity, to which slots, and the stack of free ones: all as it was,
        where there is room for that. disk: whether blocks may stay on disk, and go there if they do not fit."""
        count = len(self.slots) if disk else len(self.coords)
        if count == len(self.slots) and count + len(self.free) <= capacity:
            return slice(0, count), self.slots, self.free
        rows = np.arange(count)
        if count > capacity:
            rows = np.sort(np.argsort(self.last_seen[:count], kind="stable")[count - capacity :])
        return rows, np.arange(len(rows)), self.free[:0]

    def fill(
        self,
        blocks: Blocks,
        rows: NDArray[np.int64] | slice,
        slots: NDArray[Any],
        free: NDArray[Any],
        put: Callable[[NDArray[Any]], Any] = lambda array: array,
    ) -> None:
        """Write rows to slots of an empty pool; its hash is left alone, and all is dirty. put: makes an array of the device
        that the pool is on."""
        at = put(np.ascontiguousarray(slots, np.int64))
        for name in (*TABLE, *CONTENT):
            getattr(blocks, name)[at] = put(getattr(self, name)[rows])
        blocks.alive[at] = True
        blocks.dirty[at] = True
        blocks.free[: len(free)] = put(free)
        blocks.counts[HIGH], blocks.counts[FREE] = len(slots) + len(free), len(free)

    def is_sound(self) -> bool:
        """Whether a volume can have saved this."""
        used = np.sort(np.concatenate([self.slots, self.free]))
        lengths = {len(getattr(self, name)) for name in (*TABLE, *CONTENT)}
        return (
            len(lengths) == 1
            and len(self.slots) <= len(self.coords)
            and np.array_equal(used, np.arange(len(used)))
            and bool((self.coords >= -pool.LIMIT).all() and (self.coords < pool.LIMIT).all())
            and len(pool.unique_rows(self.coords)) == len(self.coords)
            and bool((self.last_seen <= self.stamp).all())
        )


@dataclass(frozen=True, eq=False)
class SavedSurface:
    """What a `Mesher` knows. voxel_size, farthest, median (that the volumes began with): map units. truncation: voxels.
    integrated int64 [k]: ids of keyframes; newest: the largest that came. place float64 [1,3] (or none), alike: of
    `Duplicates`."""

    voxel_size: float
    truncation: float
    median: float
    scale: Scale
    integrated: NDArray[np.int64]
    newest: int
    farthest: float
    place: NDArray[np.float64]
    alike: int
    blocks: SavedBlocks

    @staticmethod
    def of(arrays: Arrays) -> SavedSurface:
        """From what `arrays` gave. Raises InputError for what cannot be that."""
        own = {name: _own(name, arrays) for name in _ARRAYS}
        blocks = SavedBlocks(**{name: own.pop(name) for name in SavedBlocks._fields})
        values: dict[str, Any] = {n: array.item() if array.shape == () else array for n, array in own.items()}
        lengths = [values[name] for name in ("voxel_size", "truncation", "median", "farthest")]
        if not (blocks.is_sound() and all(0 < length < math.inf for length in lengths)):
            raise _damaged("blocks")
        if values["scale"] not in {scale.value for scale in Scale}:
            raise _damaged("scale")
        return SavedSurface(**{**values, "scale": Scale(values["scale"]), "blocks": blocks})

    def arrays(self) -> Arrays:
        """All of it by name."""
        values = {**vars(self), **self.blocks._asdict(), "scale": self.scale.value}
        return {name: np.asarray(values[name], kind) for name, (kind, _) in _ARRAYS.items()}

    def check(self, params: MeshParams) -> None:
        """Raises InputError, in one line with the mend, where parameters contradict what was saved."""
        voxel, truncation, number = self.voxel_size, self.truncation, len(self.blocks.coords)
        if params.voxel_size and not math.isclose(params.voxel_size, voxel, rel_tol=1e-5):
            raise InputError(
                f"mesh.voxel_size is {params.voxel_size:g}, that of the saved map {voxel:g}: set it to 0"
            )
        if not math.isclose(params.truncation, truncation, rel_tol=1e-5):
            raise InputError(
                f"mesh.truncation is {params.truncation:g}, the saved map has {truncation:g}: set it to that"
            )
        if number > params.max_blocks and not params.spill:
            raise InputError(
                f"the saved map has {number} blocks, mesh.max_blocks is {params.max_blocks}: raise it to that or "
                "more, or name a folder in mesh.spill"
            )


def _own(name: str, arrays: Arrays) -> NDArray[Any]:
    kind, shape = _ARRAYS[name]
    array = arrays.get(name)
    if array is None or not np.issubdtype(array.dtype, kind) or not array.dtype.isnative:
        raise _damaged(name)
    if array.ndim != len(shape):
        raise _damaged(name)
    if any(wanted not in (-1, got) for wanted, got in zip(shape, array.shape, strict=True)):
        raise _damaged(name)
    return array


def _damaged(name: str) -> InputError:
    return InputError(f"the saved surface is damaged ('{name}'): save the map anew")
