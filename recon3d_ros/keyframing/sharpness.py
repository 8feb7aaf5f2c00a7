# SPDX-License-Identifier: Apache-2.0
"""How sharp an image is beside those before it: the energy of its gradients, which motion blur takes away, against their
running median, because how much there is depends on the scene."""

from __future__ import annotations

from collections import deque
from statistics import median

import cv2
import numpy as np

from recon3d_ros.core.types import Image

#: Images that the median is of, and how many are needed.
_RECENT, _LEAST = 15, 5
#: Width at which gradients are taken: noise of single pixels is no sharpness.
_WIDTH = 320


class Sharpness:
    """One thread calls it, image by image."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def relative(self, grey: Image) -> float:
        """Gradient energy of an image uint8 [H,W] as a share of the median of the last ones; 1 while there are few."""
        if grey.shape[1] > _WIDTH:
            grey = cv2.resize(
                grey, (_WIDTH, round(grey.shape[0] * _WIDTH / grey.shape[1])), interpolation=cv2.INTER_AREA
            )
        energy = float(np.var(cv2.Laplacian(grey, cv2.CV_32F)))
        known = median(self._recent) if len(self._recent) >= _LEAST else 0.0
        self._recent.append(energy)
        return energy / known if known > 0 else 1.0
