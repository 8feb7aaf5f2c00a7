# SPDX-License-Identifier: Apache-2.0
"""Keyframes in ordinary memory: handed over by reference inside the process."""

from __future__ import annotations

import numpy as np

from recon3d_ros.store.arena import SegmentHandle, Slot


class HeapArena:
    """Fresh numpy memory for every keyframe; it lives as long as somebody holds an array of it."""

    def reserve(self, size: int, generation: int) -> Slot:
        return Slot(np.empty(size, np.uint8), SegmentHandle("", size, generation))

    def statistics(self) -> dict[str, float]:
        return {}

    def clear(self) -> None:
        """Nothing to do: memory goes when its last array goes."""

    def close(self) -> None:
        """Nothing to do."""
