# SPDX-License-Identifier: Apache-2.0
"""Depth images of the integrated keyframes, kept so that corrected poses can rebuild the volume exactly.

Taking a keyframe out of a running mean is exact neither at the weight cap nor after carving, hence the rebuild. Keyframes
that leave the bounded memory are integrated, at the pose known then, into a settled volume from which a rebuild starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.geometry import transform
from recon3d_ros.core.types import Pose
from recon3d_ros.mapping.splat import DepthImage
from recon3d_ros.mapping.tsdf import Volume


@dataclass(eq=False)
class _Record:
    """One keyframe. pose: as integrated; corrected: the newest known; far: map units."""

    image: DepthImage
    pose: Pose
    corrected: Pose
    median: float
    far: float

    def displacement(self) -> float:
        """Largest shift, map units, that the correction gives to the image corners at median depth."""
        camera = self.image.camera
        right, bottom = camera.width - 1.0, camera.height - 1.0
        pixels = np.array([(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)])
        corners = np.column_stack([camera.unproject(pixels), np.ones(4)]) * self.median
        shift = transform(self.corrected, corners) - transform(self.pose, corners)
        return float(np.linalg.norm(shift, axis=1).max())


class History:
    """At most `limit` bytes of depth images, oldest first; with a limit of 0 nothing is kept and nothing can be rebuilt.

    make_volume: an empty volume like the live one. settled: what was integrated of the keyframes no longer kept."""

    def __init__(self, limit: int, make_volume: Callable[[], Volume]) -> None:
        self.settled: Volume | None = None
        self.nbytes = 0
        self._limit = limit
        self._make_volume = make_volume
        self._records: dict[int, _Record] = {}

    def add(self, keyframe_id: int, image: DepthImage, pose: Pose, median: float, far: float) -> None:
        """Keep an integrated keyframe; the oldest ones settle when the limit is passed."""
        if self._limit == 0:
            return
        self._records[keyframe_id] = _Record(image, pose, pose, median, far)
        self.nbytes += image.nbytes
        while self.nbytes > self._limit:
            self._settle(self._records.pop(next(iter(self._records))))

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Note newer poses; those of keyframes that are not kept are passed over."""
        for keyframe_id in poses.keys() & self._records.keys():
            self._records[keyframe_id].corrected = poses[keyframe_id]

    def displacement(self) -> float:
        """Largest displacement of any keyframe since it was integrated, map units."""
        return max((record.displacement() for record in self._records.values()), default=0.0)

    def replay(self) -> Volume:
        """A fresh volume from all keyframes at their newest poses, in the order they came."""
        volume = self._make_volume() if self.settled is None else self.settled.copy()
        for record in self._records.values():
            record.pose = record.corrected
            volume.integrate(record.image, record.pose, record.far)
        return volume

    def _settle(self, record: _Record) -> None:
        self.nbytes -= record.image.nbytes
        if self.settled is None:
            self.settled = self._make_volume()
        self.settled.integrate(record.image, record.corrected, record.far)
