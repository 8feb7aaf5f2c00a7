# SPDX-License-Identifier: Apache-2.0
"""The check of depth among keyframes that follow each other: each waits for those after it and leaves checked."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.consistency import confirmed
from recon3d_ros.backends.geometric.dense_keyframe import DenseKeyframe
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Floats, Image, Pose

#: Keyframes that check one: older ones, which are there anyway, and later ones, which it has to wait for.
_BEFORE, _AFTER = 4, 2


@dataclass(frozen=True, eq=False)
class RawDepth:
    """Unchecked depth float32 [h,w] (NaN = none) of a keyframe seen from T_map_cam, and its confidence float32 [h,w].
    plane_step: inverse depth between the planes it was found with."""

    reference: DenseKeyframe
    T_map_cam: Pose
    depth: Floats
    confidence: Floats
    plane_step: float


@dataclass(frozen=True, eq=False)
class DenseResult:
    """index, stamp_ns: of the keyframe. depth: float32 [h,w] along z in map units, NaN = none. confidence: float32 [h,w]
    in 0..1, 0 where there is no depth. colours: uint8 [h,w,3] RGB. camera: ideal pinhole of these images."""

    index: int
    stamp_ns: int
    depth: Floats
    confidence: Floats
    colours: Image
    camera: Camera


class DepthWindow:
    """The latest keyframes with depth, as many as check one another."""

    def __init__(self) -> None:
        self._raws: deque[RawDepth] = deque(maxlen=_BEFORE + 1 + _AFTER)
        self._waiting = 0

    def add(self, raw: RawDepth) -> list[DenseResult]:
        """Take the next keyframe; return those that need not wait any longer."""
        self._raws.append(raw)
        self._waiting += 1
        # The first ones have none before and wait for as many more after.
        return self._leave(_AFTER) if len(self._raws) > 2 * _AFTER else []

    def flush(self) -> list[DenseResult]:
        """Return all that wait, checked against what is there."""
        return self._leave(0)

    def _leave(self, staying: int) -> list[DenseResult]:
        leaving = range(len(self._raws) - self._waiting, len(self._raws) - staying)
        self._waiting = min(self._waiting, staying)
        return [self._checked(self._raws[position]) for position in leaving]

    def _checked(self, raw: RawDepth) -> DenseResult:
        others = [
            (other.depth, other.reference.camera, inverse(other.T_map_cam) @ raw.T_map_cam)
            for other in self._raws
            if other is not raw
        ]
        reference = raw.reference
        depth = confirmed(raw.depth, raw.plane_step, reference.camera, others)
        confidence = np.where(np.isfinite(depth), raw.confidence, np.float32(0))
        return DenseResult(
            reference.index, reference.stamp_ns, depth, confidence, reference.image, reference.camera
        )
