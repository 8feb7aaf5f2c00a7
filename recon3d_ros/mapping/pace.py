# SPDX-License-Identifier: Apache-2.0
"""How often the mesh is worth showing, by the speed of the camera: what flies past is shown when the camera slows down."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.types import Pose

_JUMP = 10**9  # nanoseconds: a stamp so far back is of another time, not of a keyframe that came late
_NEWEST = 0.2  # share of the newest speed in the smoothed one


class Speed:
    """Speed of the camera by the stamps of its images, smoothed: 0.8 of the old, 0.2 of the new."""

    def __init__(self) -> None:
        self.value = 0.0
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._known = False

    def add(self, stamp_ns: int, T_map_cam: Pose, unit: float) -> float:
        """The camera was there then. Lengths are counted in `unit` (map units; 1 for metres). Returns the smoothed speed,
        units per second; a stamp that does not rise is passed over, unless time has gone back."""
        position = T_map_cam[:3, 3].copy()
        if self._last is not None and stamp_ns > self._last[0] - _JUMP:
            if stamp_ns <= self._last[0]:
                return self.value
            seconds = (stamp_ns - self._last[0]) * 1e-9
            speed = float(np.linalg.norm(position - self._last[1])) / (unit * seconds)
            self.value = (1 - _NEWEST) * self.value + _NEWEST * speed if self._known else speed
            self._known = True
        self._last = (stamp_ns, position)
        return self.value


class Pace:
    """Seconds between two extractions: `slow` below the first speed, `medium` up to the second, beyond it none (inf). A
    change counts when `patience` speeds in a row ask for the same new level."""

    def __init__(
        self, first: float, second: float, patience: int, slow: float = 1.0, medium: float = 2.0
    ) -> None:
        self._limits = (first, second)
        self._periods = (slow, medium, math.inf)
        self._patience = patience
        self._level = self._asked = 0
        self._times = 0

    @property
    def period(self) -> float:
        """Seconds; inf: no extraction."""
        return self._periods[self._level]

    def add(self, speed: float) -> float:
        """Take the newest speed in; returns the period."""
        asked = sum(speed > limit for limit in self._limits)
        self._times = self._times + 1 if asked == self._asked else 1
        self._asked = asked
        if self._times >= self._patience:
            self._level = asked
        return self.period
