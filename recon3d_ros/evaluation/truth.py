# SPDX-License-Identifier: Apache-2.0
"""What an estimate is compared with: a trajectory file, a TUM-style folder, a surface file, a synthetic flight, or another
output folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image import read_depth
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, Floats
from recon3d_ros.evaluation.depth import seen_by
from recon3d_ros.evaluation.estimate import open_estimate
from recon3d_ros.evaluation.views import View
from recon3d_ros.runtime.sources.base import pose_at
from recon3d_ros.runtime.sources.synthetic import PREFIX, SyntheticSource
from recon3d_ros.runtime.sources.tum import TumSource
from recon3d_ros.synth.render import render

log = logging.getLogger(__name__)

#: Depth images that become a surface, spread evenly over the recording: of a sensor, and rendered.
_MAX_VIEWS, _MAX_RENDERED = 100, 40


class Views(Protocol):
    """True depth images."""

    def at(self, stamp_ns: int, camera: Camera, tolerance_ns: int) -> Floats | None:
        """Depth float32 [H,W], metres, NaN = none, at the pixels of a camera at the time of a stamp; None if there is no
        image within the tolerance."""
        ...

    def __iter__(self) -> Iterator[View]:
        """Images spread evenly over the recording, a hundred at most."""
        ...


@dataclass(frozen=True, eq=False)
class Truth:
    """frames_ns: stamps of the recording. surface: a PLY file. distance: to the true surface, exact. None: not known."""

    name: str
    trajectory: Trajectory | None = None
    frames_ns: NDArray[np.int64] | None = None
    views: Views | None = None
    surface: Path | None = None
    distance: Distance | None = None


def open_truth(name: str) -> Truth:
    """The truth at a path, or of `synthetic:SCENE/PATH?option=value`. Raises InputError, one line with the mend, for what
    is none."""
    if name.startswith(PREFIX):
        return _synthetic(name)
    path = Path(name).expanduser()
    if (path / "rgb.txt").is_file():
        return _recording(name, path)
    if path.is_dir() and not (path / "trajectory.txt").is_file():
        raise InputError(
            f"{path} holds no truth: give a folder with rgb.txt and poses.txt, a TUM file or a PLY file"
        )
    known = open_estimate(name)
    return Truth(name, known.trajectory, surface=known.surface)


def _synthetic(name: str) -> Truth:
    source = SyntheticSource(name)
    flight = source.flight
    stamps = flight.truth.stamps_ns[flight.delivered]
    return Truth(name, flight.truth, stamps, RenderedViews(source), distance=flight.scene.distance)


def _recording(name: str, path: Path) -> Truth:
    source = TumSource(path)
    stamps = np.array([stamp for stamp, _ in source.images], dtype=np.int64)
    calibrated = source.camera is not None or source.calibration.depth_camera is not None
    views = SensorViews(source) if source.has_depth and calibrated else None
    return Truth(name, source.truth, stamps, views)


class SensorViews:
    """The depth images of a TUM-style folder, each with a camera of its own: they need not be registered to the images,
    but are taken to come from the same place."""

    def __init__(self, source: TumSource) -> None:
        self._source = source
        self._stamps = np.array([stamp for stamp, _ in source.depths], dtype=np.int64)

    def at(self, stamp_ns: int, camera: Camera, tolerance_ns: int) -> Floats | None:
        """The image nearest in time, resampled."""
        i = int(np.argmin(np.abs(self._stamps - stamp_ns)))
        image = self._read(i) if abs(int(self._stamps[i]) - stamp_ns) <= tolerance_ns else None
        return None if image is None else seen_by(camera, *image)

    def __iter__(self) -> Iterator[View]:
        truth = self._source.truth
        for i in range(0, len(self._stamps), -(-len(self._stamps) // _MAX_VIEWS)):
            T = pose_at(truth, int(self._stamps[i]), self._source.tolerance_ns) if truth is not None else None
            image = self._read(i) if T is not None else None
            if T is not None and image is not None:
                yield View(*image, T)

    def _read(self, index: int) -> tuple[Floats, Camera] | None:
        calibration = self._source.calibration
        try:
            depth = read_depth(self._source.depths[index][1], calibration.depth_scale)
        except FrameError as error:
            log.warning("true depth passed over: %s", error)
            return None
        camera = calibration.depth_camera or self._source.camera
        assert camera is not None
        height, width = depth.shape
        return depth, camera if camera.size == (width, height) else camera.resized(width, height)


class RenderedViews:
    """The exact depth of a synthetic flight."""

    def __init__(self, source: SyntheticSource) -> None:
        self._flight = source.flight

    def at(self, stamp_ns: int, camera: Camera, tolerance_ns: int) -> Floats | None:
        """Rendered for the camera itself."""
        T = self._flight.truth.at(stamp_ns, tolerance_ns)
        return None if T is None else render(self._flight.scene, camera, T)[1]

    def __iter__(self) -> Iterator[View]:
        camera, poses = self._flight.options.camera, self._flight.truth.poses
        for T in poses[:: -(-len(poses) // _MAX_RENDERED)]:
            yield View(render(self._flight.scene, camera, T)[1], camera, T)
