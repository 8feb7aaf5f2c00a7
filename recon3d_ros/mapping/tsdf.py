# SPDX-License-Identifier: Apache-2.0
"""Truncated signed distance field on sparse blocks, updated projectively from depth images (Curless and Levoy 1996;
Newcombe et al. 2011). Voxel centres lie at integer multiples of the voxel size. Serial kernels that release the GIL: beside
a busy reconstructor the fork and join of parallel ones costs more than it wins."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import MeshBlock, Pose
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping import marching
from recon3d_ros.mapping.band import Lengths, list_carved, list_touched, touch_stride
from recon3d_ros.mapping.blocks import SIDE
from recon3d_ros.mapping.checkpoint import Checkpoint
from recon3d_ros.mapping.compare import absent, differing
from recon3d_ros.mapping.fusion import update
from recon3d_ros.mapping.regions import blocks_of, regions_of
from recon3d_ros.mapping.saved import SavedBlocks
from recon3d_ros.mapping.seen import seen_share
from recon3d_ros.mapping.spill import Spill
from recon3d_ros.mapping.splat import DepthImage, Intrinsics, intrinsics

_COMPARED = 500  # blocks compared in one step
_AHEAD = 1500  # blocks that memory is there for beforehand
_COMMITTED = 250  # blocks that it is got for in one step
_READ = 500  # regions extracted at once where blocks have to be read from the disk


class Volume:
    """A signed distance field that depth images are integrated into.

    voxel_size: map units. truncation, widest: map units; half width of the band around a measured depth, and what noise may
    widen it to. min_weight: observations below which a voxel does not count as known (kept here because crossing it changes
    the surface). capacity: blocks held at most; when they are used up the least recently seen ones are dropped. carve:
    whether blocks in front of a measured depth are emptied too. spill: keeps dropped blocks on disk; None: they are gone.
    refused, evicted: blocks for which there was no room, blocks dropped to make room. updates: blocks updated so far.
    stamp: depth images integrated so far.
    """

    def __init__(
        self,
        voxel_size: float,
        truncation: float,
        min_weight: float,
        capacity: int,
        carve: bool = True,
        widest: float = 0.0,
        spill: Spill | None = None,
    ) -> None:
        self.voxel_size = voxel_size
        self.truncation = truncation
        self.widest = widest
        self.min_weight = pool.weight_of(min_weight)
        self.carve = carve
        self.blocks = pool.allocate(capacity)
        self.spill = spill
        self.refused = 0
        self.evicted = 0
        self.updates = 0
        self.stamp = 0
        self._committed = 0
        self._evicted: list[NDArray[np.int32]] = []
        self._checkpoints: list[Checkpoint] = []

    @property
    def count(self) -> int:
        """Blocks held."""
        return pool.count(self.blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks held, and of those put aside for checkpoints."""
        return pool.memory(self.blocks) + sum(checkpoint.nbytes for checkpoint in self._checkpoints)

    def integrate(self, image: DepthImage, T_map_cam: Pose, far: float, spread: float = 0.0) -> None:
        """Take in a depth image seen from a pose; depth and voxels beyond `far` (map units along z) are left alone. The
        band around a depth d is at least min(spread d^2, widest) wide on each side (spread: 1 / map units)."""
        self.stamp += 1
        # One memory layout, for which the kernels are compiled once.
        T_map_cam = np.array(T_map_cam, np.float64)
        view, T_cam_map = intrinsics(image.camera), inverse(T_map_cam)
        lengths = Lengths(self.voxel_size, self.truncation, far, spread, self.widest)
        listed = np.empty(len(self.blocks.alive), np.int32)
        number = self._list_touched(listed, image, view, T_map_cam, lengths)
        self._recall(listed[:number])
        if self.carve:
            scene = (image.depth, view, T_cam_map, lengths)
            number = list_carved(self.blocks, listed, number, self.stamp, *scene)
        self._put_aside(listed[:number])
        images = (image.depth, image.colours, image.weights)
        update(self.blocks, listed[:number], images, view, T_cam_map, lengths, self.min_weight)
        self.updates += number

    def prepare(self) -> bool:
        """A step of what can be done before the next keyframe comes: a new block costs some times as much where the
        operating system must give the memory first. True while more is to be done."""
        used = int(self.blocks.counts[pool.HIGH])
        start, end = max(used, self._committed), min(used + _AHEAD, len(self.blocks.alive))
        self._committed = min(start + _COMMITTED, end)
        pool.commit(self.blocks, start, self._committed)
        return self._committed < end

    def take_changed(self) -> NDArray[np.int32]:
        """Coordinates [n,3] of the blocks whose surface may differ since the last call, those dropped among them."""
        changed = self.blocks.coords[self.blocks.dirty]
        self.blocks.dirty[:] = False
        out = np.concatenate([changed, *self._evicted])
        self._evicted = []
        return out

    def coordinates(self) -> NDArray[np.int32]:
        """Coordinates [n,3] of all blocks held."""
        return pool.coordinates(self.blocks)

    def extract(self, regions: NDArray[np.int32]) -> list[MeshBlock]:
        """The triangles of regions [n,3] of 2x2x2 blocks."""
        return marching.extract(self.blocks, regions, self.voxel_size, self.min_weight)

    def extract_all(self) -> list[MeshBlock]:
        """All regions that have triangles, the blocks on disk among them."""
        if self.spill is None or not len(self.spill):
            out = self.extract(regions_of(self.coordinates()))
        else:
            out = self._extract_with_disk(self.spill)
        return [block for block in out if len(block.triangles)]

    def _extract_with_disk(self, spill: Spill) -> list[MeshBlock]:
        """A bounded number of regions is in memory at a time."""
        regions = regions_of(np.concatenate([self.coordinates(), spill.coordinates]))
        out: list[MeshBlock] = []
        for start in range(0, len(regions), _READ):
            some = regions[start : start + _READ]
            part, needed = pool.allocate(27 * _READ), blocks_of(some)
            pool.insert_copies(self.blocks, part, needed)
            spill.peek(part, needed)
            out += marching.extract(part, some, self.voxel_size, self.min_weight)
        return out

    def seen_share(self, image: DepthImage, T_map_cam: Pose, far: float, observations: float) -> float:
        """Share of the voxels that a depth image occupies, up to `far` (map units), with at least so many observations."""
        view, pose = intrinsics(image.camera), np.array(T_map_cam, np.float64)
        weight = pool.weight_of(observations)
        return seen_share(self.blocks, image.depth, view, pose, self.voxel_size, far, weight)

    def compare(self, other: Volume) -> Iterator[NDArray[np.int32]]:
        """Coordinates [n,3] of the blocks of either volume whose surface the other does not have, some slots at a time."""
        a, b = self.blocks, other.blocks
        used = int(max(a.counts[pool.HIGH], b.counts[pool.HIGH]))
        for start in range(0, used, _COMPARED):
            stop = min(start + _COMPARED, len(a.alive))
            mine = differing(a, b, start, stop, self.min_weight)
            lacking = absent(b, a, start, stop)
            yield np.concatenate([a.coords[start:stop][mine], b.coords[start:stop][lacking]])

    def twin(self) -> Volume:
        """An empty volume with the same parameters and counts, and the same blocks on disk."""
        other = copy.copy(self)
        other.blocks = pool.allocate(len(self.blocks.alive))
        other.spill = None if self.spill is None else self.spill.copy()
        other._evicted, other._checkpoints, other._committed = [], [], 0
        return other

    def resume(self, saved: SavedBlocks) -> None:
        """Take in what a checkpoint of another volume saved, while this one is empty."""
        disk = self.spill is not None
        rows, slots, free = saved.placed(len(self.blocks.alive), disk)
        saved.fill(self.blocks, rows, slots, free)
        pool.rehash(self.blocks)
        if self.spill is not None:
            others = np.ones(len(saved.coords), np.bool_)
            others[rows] = False
            self.spill.store(saved, np.flatnonzero(others))
        self.stamp = int(saved.stamp)

    def checkpoint(self) -> Checkpoint:
        """The present content, to be had again later with `Checkpoint.restored`."""
        checkpoint = Checkpoint(self)
        self._checkpoints.append(checkpoint)
        return checkpoint

    def forget(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is not needed any more."""
        if checkpoint in self._checkpoints:
            self._checkpoints.remove(checkpoint)
        checkpoint.release()

    def release(self) -> None:
        """Give back what is held on disk, here and by the checkpoints."""
        for checkpoint in self._checkpoints:
            checkpoint.release()
        if self.spill is not None:
            self.spill.clear()

    def _list_touched(
        self,
        listed: NDArray[np.int32],
        image: DepthImage,
        view: Intrinsics,
        T_map_cam: Pose,
        lengths: Lengths,
    ) -> int:
        """List (and make) the blocks in the band around the measured surface; makes room when the pool is full."""
        stride = touch_stride(image.camera, SIDE * self.voxel_size, lengths.far)
        number, final = 0, False
        while True:
            number, refused = list_touched(
                self.blocks, listed, number, self.stamp, image.depth, view, T_map_cam, lengths, stride, final
            )
            if not refused or final:
                self.refused += refused
                return number
            final = not self._make_room()

    def _make_room(self) -> bool:
        """Drop the least recently seen blocks; False if there is none that was not seen now."""
        slots = pool.oldest(self.blocks, self.stamp)
        self._put_aside(slots)
        if self.spill is not None:
            self.spill.store(self.blocks, slots)
        self._evicted.append(pool.drop(self.blocks, slots))
        pool.rehash(self.blocks)
        self.evicted += len(slots)
        return len(slots) > 0

    def _recall(self, slots: NDArray[np.int32]) -> None:
        """Read blocks that were made again just now from the disk."""
        if self.spill is not None:
            self.spill.recall(self.blocks, slots)

    def _put_aside(self, slots: NDArray[np.int32] | NDArray[np.int64]) -> None:
        for checkpoint in self._checkpoints:
            checkpoint.put_aside(slots)
