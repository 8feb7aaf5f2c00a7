# SPDX-License-Identifier: Apache-2.0
"""Keyframes that show nothing new. That most of what they see is known does not make them so, for every further view makes
the surface better: the camera must hardly have moved as well, and even then some are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import MeshParams
from recon3d_ros.mapping.field import Field
from recon3d_ros.mapping.view import View


class Duplicates:
    """Tells them, by the parameters `duplicate_*`."""

    def __init__(self, params: MeshParams) -> None:
        self._params = params
        self._place: NDArray[np.float64] | None = None
        self._alike = 0

    @property
    def place(self) -> NDArray[np.float64]:
        """Where the last keyframe was integrated [1,3]; none, [0,3], before the first."""
        return np.empty((0, 3)) if self._place is None else self._place[None]

    @property
    def alike(self) -> int:
        """How many could have been left out."""
        return self._alike

    def resume(self, place: NDArray[np.float64], alike: int) -> None:
        """Go on from what these properties were."""
        self._place = place[0] if len(place) else None
        self._alike = alike

    def integrated(self, view: View) -> None:
        """A keyframe was integrated."""
        self._place = view.pose[:3, 3].copy()

    def has(self, volume: Field, view: View) -> bool:
        """Whether a keyframe is to be left out; of those that could be, every n-th is not."""
        p = self._params
        if not p.duplicate_share or self._place is None:
            return False
        way = float(np.linalg.norm(view.pose[:3, 3] - self._place))
        if way >= p.duplicate_motion * view.median:
            return False
        if volume.seen_share(view.image, view.pose, view.far, p.duplicate_weight) < p.duplicate_share:
            return False
        self._alike += 1
        return self._alike % p.duplicate_every != 0
