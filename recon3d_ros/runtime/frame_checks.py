# SPDX-License-Identifier: Apache-2.0
"""Frames as they come -> frames that a backend can use. What is wrong with a frame costs that, or the frame."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.stamps import RisingStamps
from recon3d_ros.core.types import Frame

log = logging.getLogger(__name__)


class FrameChecks:
    """Of the frames of one map, in their order. drops: what is left out of frames is counted there, by reason."""

    def __init__(self, capabilities: Capabilities, drops: Counter[str]) -> None:
        self._needs_camera = capabilities.needs_camera
        self._drops = drops
        self._guessed: Camera | None = None
        self.begin_time()

    def begin_time(self) -> None:
        """Stamps may begin anew."""
        self._rising = RisingStamps()

    def checked(self, frame: Frame) -> Frame:
        """The frame with a camera and without a broken prior. Raises FrameError when its stamp does not rise."""
        before = self._rising.newest
        refused = self._rising.refuse(frame.stamp_ns)
        if refused:
            raise FrameError(f"stamp {refused}", f"stamp {refused}: {frame.stamp_ns} after {before}")
        if before is not None and frame.stamp_ns < before:
            log.warning(
                "stamps of the images went back by %.3f s and go on from there",
                (before - frame.stamp_ns) / 1e9,
            )
        if frame.prior is not None and not is_pose(frame.prior):
            self._drops["prior invalid"] += 1
            frame = dataclasses.replace(frame, prior=None)
        if not _is_vector(frame.position):
            self._drops["position invalid"] += 1
            frame = dataclasses.replace(frame, position=None)
        if not _is_vector(frame.up):
            self._drops["up invalid"] += 1
            frame = dataclasses.replace(frame, up=None)
        if frame.camera is None and self._needs_camera:
            frame = dataclasses.replace(frame, camera=self._guess(frame))
        return frame

    def _guess(self, frame: Frame) -> Camera:
        height, width = frame.image.shape[:2]
        if self._guessed is None or self._guessed.size != (width, height):
            self._guessed = Camera.guess(width, height)
            log.warning(
                "the images have no calibration: focal length guessed as %.0f px; give --camera FILE for a true shape",
                self._guessed.fx,
            )
        return self._guessed


def _is_vector(vector: NDArray[np.float64] | None) -> bool:
    """Whether it is a vector [3], or not given."""
    return vector is None or (np.shape(vector) == (3,) and bool(np.isfinite(vector).all()))
