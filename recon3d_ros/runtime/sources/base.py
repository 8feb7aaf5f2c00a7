# SPDX-License-Identifier: Apache-2.0
"""The contract of a source of frames, and what several sources share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.trajectory import Trajectory, pose_between
from recon3d_ros.core.types import Distance, Frame, Pose


class Source(Protocol):
    """Frames of a recording. Nothing is read ahead; two iterations give the same frames.

    kind: what it is, in words. name: of the recording. length: number of frames, None if not known before the end.
    truth: true poses of the camera, surface: distance to the true surface, None if not known. has_depth: whether frames
    may have depth. skipped: frames (and depth images) passed over in the current iteration, by reason.
    """

    kind: str
    name: str
    length: int | None
    truth: Trajectory | None
    surface: Distance | None
    has_depth: bool
    skipped: Counter[str]

    def __iter__(self) -> Iterator[Frame]:
        """Read from the start."""
        ...

    def describe(self) -> str:
        """One line for the user: what was found and what is taken for granted."""
        ...


def pose_at(trajectory: Trajectory, stamp_ns: int, tolerance_ns: int) -> Pose | None:
    """Pose at a stamp: interpolated between its two neighbours when they are no more than twice the tolerance apart, else
    the nearest one within the tolerance, else None."""
    right = int(np.searchsorted(trajectory.stamps_ns, stamp_ns))
    before, after = (
        (int(trajectory.stamps_ns[i]), trajectory.poses[i]) if 0 <= i < len(trajectory) else None
        for i in (right - 1, right)
    )
    return pose_between(before, after, stamp_ns, tolerance_ns, 2 * tolerance_ns)


def name_of(path: Path) -> str:
    """Name of a recording: the last part of its path, also for `.`."""
    return path.resolve().name


def camera_text(camera: Camera | None) -> str:
    """A camera in a few words for `describe`."""
    if camera is None:
        return "no camera known"
    model = "" if camera.model == "pinhole" else f" {camera.model}"
    return f"focal length {camera.fx:.1f} px{model}" + (", not calibrated" if camera.estimated else "")
