# SPDX-License-Identifier: Apache-2.0
"""Depth images of the integrated keyframes, kept so that corrected poses can rebuild the volume exactly.

Taking a keyframe out of a running mean is exact neither at the weight cap nor after carving, hence the rebuild. The images
are bounded in bytes. When they are half of that, a checkpoint of the volume is taken; when they pass it, the keyframes up
to the checkpoint are let go at once: a rebuild starts from there, where they stand at the poses they had by then. So half
to all of the memory's keyframes can be corrected, and letting go costs no second integration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import Pose
from recon3d_ros.mapping.field import Field, Moment
from recon3d_ros.mapping.splat import DepthImage

log = logging.getLogger(__name__)

#: Depth images that the memory must hold to be of use.
_FEWEST = 4

#: Corrections kept for keyframes that have not come yet.
_EARLY = 64


@dataclass(eq=False)
class Record:
    """One keyframe. pose: as integrated; corrected: the newest known; rebuilt: as integrated by the rebuild under way. far:
    map units; spread: see `Volume.integrate`. corners: of the image at median depth, homogeneous, camera frame [4,4]."""

    id: int
    image: DepthImage
    pose: Pose
    corrected: Pose
    rebuilt: Pose
    far: float
    spread: float
    corners: NDArray[np.float64]
    displacement: float = 0.0

    def measure(self) -> None:
        """Set the displacement: the largest shift of a corner from `pose` to `corrected`, map units."""
        shift = (self.corrected - self.pose) @ self.corners
        self.displacement = float(np.linalg.norm(shift, axis=0).max())


class History:
    """At most `limit` bytes of depth images, oldest first; with a limit of 0 nothing is kept and nothing can be rebuilt.

    records: those kept. base: content of the volume before the first of them; None: it was empty. checkpoint: of the volume
    right after the keyframe `checkpoint_id`. generation: how often keyframes were let go. newest: largest id that came."""

    def __init__(self, limit: int) -> None:
        self.records: list[Record] = []
        self.base: Moment | None = None
        self.checkpoint: Moment | None = None
        self.checkpoint_id = -1
        self.generation = 0
        self.nbytes = 0
        self._limit = limit
        self._by_id: dict[int, Record] = {}
        self._early: dict[int, Pose] = {}
        self.newest = -1

    def resume(self, volume: Field, newest: int) -> None:
        """Begin with what is in the volume, of which no depth is kept: it stays as it is, whatever is corrected later."""
        self.newest = newest
        if self._limit:
            self.base = volume.checkpoint()

    def newest_pose(self, keyframe_id: int, pose: Pose) -> Pose:
        """The pose of a keyframe that comes now: corrected already, or as given."""
        self.newest = max(self.newest, keyframe_id)
        return self._early.pop(keyframe_id, pose)

    def add(self, volume: Field, record: Record) -> None:
        """Keep a keyframe that `volume` has just integrated."""
        if self._limit and record.image.nbytes * _FEWEST > self._limit:
            self._give_up(volume)
        if not self._limit:
            return
        if self.nbytes + record.image.nbytes > self._limit:
            self._let_go(volume)
        self.records.append(record)
        self._by_id[record.id] = record
        self.nbytes += record.image.nbytes
        if self.checkpoint is None and 2 * self.nbytes >= self._limit:
            self.checkpoint, self.checkpoint_id = volume.checkpoint(), record.id

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Note newer poses; of keyframes let go they are passed over, of those not here yet they are kept for a while."""
        for keyframe_id, pose in poses.items():
            record = self._by_id.get(keyframe_id)
            if record is not None:
                record.corrected = pose
                record.measure()
            elif keyframe_id > self.newest:
                self._early[keyframe_id] = pose
        while len(self._early) > _EARLY:
            del self._early[min(self._early)]

    def moved(self, distance: float) -> bool:
        """True if a keyframe is displaced by more than `distance` (map units) since it was integrated."""
        return any(record.displacement > distance for record in self.records)

    def rebuilt(self, base: Moment | None, checkpoint: Moment | None) -> None:
        """The volume was replaced by one with all keyframes at their `rebuilt` poses, and these are its checkpoints."""
        self.base, self.checkpoint = base, checkpoint
        for record in self.records:
            record.pose = record.rebuilt
            record.measure()

    def _let_go(self, volume: Field) -> None:
        """Drop the keyframes up to the checkpoint, which becomes the base."""
        if self.base is not None:
            volume.forget(self.base)
        last = next(i for i, record in enumerate(self.records) if record.id == self.checkpoint_id)
        for record in self.records[: last + 1]:
            del self._by_id[record.id]
            self.nbytes -= record.image.nbytes
        self.records = self.records[last + 1 :]
        self.base, self.checkpoint = self.checkpoint, None
        self.generation += 1

    def _give_up(self, volume: Field) -> None:
        """An image is too large for the memory: what is in the volume stays as it is."""
        for checkpoint in (self.base, self.checkpoint):
            if checkpoint is not None:
                volume.forget(checkpoint)
        log.warning(
            "the mesh does not follow corrected poses: mesh.depth_memory holds no %d depth images", _FEWEST
        )
        self.base = self.checkpoint = None
        self.records, self._by_id, self.nbytes, self._limit = [], {}, 0, 0
        self.generation += 1
