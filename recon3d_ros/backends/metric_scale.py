# SPDX-License-Identifier: Apache-2.0
"""The scale of a map from poses that are given in metres: odometry, TF, a survey (geometric specification, section A12)."""

from __future__ import annotations

from collections import deque

import numpy as np

from recon3d_ros.core.align import umeyama
from recon3d_ros.core.types import Pose

#: Keyframes needed, and the path they must span in median depths, before the scale means anything.
KEYFRAMES, PATH = 8, 0.5
#: Keyframes whose centres are compared; rounds of leaving out what lies off, and how many deviations off is.
_NEWEST, _ROUNDS, _OFF = 200, 3, 3.0


class MetricScale:
    """Compares camera centres of the map with those given, by a similarity over the newest keyframes."""

    def __init__(self) -> None:
        self._centres: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_NEWEST)
        self._depths: deque[float] = deque(maxlen=_NEWEST)

    def add(self, T_map_cam: Pose, prior: Pose, median_depth: float) -> None:
        """A keyframe: its pose in the map, the one given in metres, and the median of its depth in units of the map."""
        self._centres.append((T_map_cam[:3, 3], prior[:3, 3]))
        self._depths.append(median_depth)

    def estimate(self) -> float | None:
        """Metres per unit of the map; None while the camera has not moved enough."""
        if len(self._centres) < KEYFRAMES:
            return None
        ours, given = (np.array(side) for side in zip(*self._centres, strict=True))
        path = np.linalg.norm(np.diff(ours, axis=0), axis=1).sum()
        if path < PATH * float(np.median(self._depths)) or np.ptp(given, axis=0).max() <= 0:
            return None
        return _robust_scale(ours, given)


def _robust_scale(ours: np.ndarray, given: np.ndarray) -> float | None:
    kept = np.ones(len(ours), dtype=bool)
    S = np.eye(4)
    for _ in range(_ROUNDS):
        try:
            S = umeyama(ours[kept], given[kept])
        except ValueError:
            return None
        error = np.linalg.norm(ours @ S[:3, :3].T + S[:3, 3] - given, axis=1)
        kept = error <= _OFF * 1.4826 * np.median(error) + 1e-9
    scale = float(np.cbrt(np.linalg.det(S[:3, :3])))
    return scale if np.isfinite(scale) and scale > 0 else None
