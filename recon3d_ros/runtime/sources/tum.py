# SPDX-License-Identifier: Apache-2.0
"""A folder in the layout of the TUM RGB-D benchmark: `rgb.txt` and `depth.txt` (`seconds file`), `groundtruth.txt` or
`poses.txt` (camera to world), and, beyond the benchmark, `calib.json` and `gps.txt` (`seconds latitude longitude altitude`,
degrees and metres)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import merge
from pathlib import Path

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import Calibration, fit_camera, load_calibration
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.geodesy import LocalFrame, is_fix
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.image import read_depth, read_image
from recon3d_ros.core.trajectory import Trajectory, read_tum, to_ns
from recon3d_ros.core.types import Distance, Floats, Frame
from recon3d_ros.runtime.sources.base import camera_text, name_of, pose_at
from recon3d_ros.runtime.sources.images import first_size
from recon3d_ros.runtime.sync import Pair, Synchroniser

#: The benchmark's own scale: 5000 is one metre.
BENCHMARK = Calibration(depth_scale=5000.0)
Entry = tuple[int, Path]


class TumSource:
    """Images of `rgb.txt`, each with the depth of `depth.txt` nearest in time within `tolerance_ns`. The truth becomes
    the frames' prior only when asked for."""

    kind = "TUM-style folder"

    def __init__(
        self, folder: Path, camera: Camera | None = None, prior: bool = False, tolerance_ns: int = 30_000_000
    ) -> None:
        self.name = name_of(folder)
        self.tolerance_ns = tolerance_ns
        self.skipped: Counter[str] = Counter()
        self.images = _entries(folder / "rgb.txt")
        self.depths = _entries(folder / "depth.txt") if (folder / "depth.txt").is_file() else []
        self.length: int | None = len(self.images)
        self.has_depth = bool(self.depths)
        if not self.images:
            raise InputError(f"{folder / 'rgb.txt'} names no images: expected lines 'seconds file'")
        self.calibration = (
            load_calibration(folder / "calib.json") if (folder / "calib.json").is_file() else BENCHMARK
        )
        self.width, self.height = first_size([file for _, file in self.images])
        camera = camera or self.calibration.camera
        self.camera = fit_camera(camera, self.width, self.height) if camera else None
        self.truth = _truth(folder)
        self.positions = _positions(folder / "gps.txt")
        self.surface: Distance | None = None
        self._prior = prior
        if prior and self.truth is None:
            raise InputError(
                f"{folder} has no poses.txt or groundtruth.txt to take as prior: run without the prior"
            )

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for pair in self._pairs():
            try:
                image = read_image(pair.image)
            except FrameError as error:
                self.skipped[error.reason] += 1
                continue
            prior = (
                pose_at(self.truth, pair.stamp_ns, self.tolerance_ns) if self._prior and self.truth else None
            )
            depth = self._depth(pair.depth)
            depth_camera = self.calibration.depth_camera if depth is not None else None
            position = self.positions.get(pair.stamp_ns)
            yield Frame(pair.stamp_ns, image, self.camera, depth, depth_camera, prior, position=position)

    def describe(self) -> str:
        parts = [f"{self.length} images of {self.width}x{self.height}", camera_text(self.camera)]
        if self.has_depth:
            registered = (
                "registered" if self.calibration.depth_camera is None else "not registered to the images"
            )
            parts.append(
                f"{len(self.depths)} depth images ({registered}, {self.calibration.depth_scale:g} per metre)"
            )
        if self.positions:
            parts.append(f"{len(self.positions)} GPS positions")
        if self.truth is not None:
            of = f" of the {self.calibration.poses_of}" if self.calibration.poses_of else ""
            parts.append(f"true poses{of}{' taken as prior' if self._prior else ''}")
        return f"{self.kind} {self.name}: {', '.join(parts)}"

    def _pairs(self) -> Iterator[Pair[Path, Path]]:
        if not self.has_depth:
            yield from (Pair(stamp, file, None) for stamp, file in self.images)
            return
        sync: Synchroniser[Path, Path] = Synchroniser(self.tolerance_ns)
        images = ((stamp, 0, file) for stamp, file in self.images)
        depths = ((stamp, 1, file) for stamp, file in self.depths)
        for stamp, is_depth, file in merge(images, depths):
            yield from sync.add_depth(stamp, file) if is_depth else sync.add_image(stamp, file)
        yield from sync.flush()

    def _depth(self, file: Path | None) -> Floats | None:
        if file is None:
            return None
        try:
            return read_depth(file, self.calibration.depth_scale)
        except FrameError as error:
            self.skipped[error.reason] += 1
            return None


def _entries(index: Path) -> list[Entry]:
    """(stamp, file) of every line `seconds file ...` of an index, in the order of stamps."""
    entries = []
    try:
        lines = index.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {index}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            entries.append((to_ns(fields[0]), index.parent / fields[1]))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{index}:{number}: expected 'seconds file', got '{line.strip()[:60]}'"
            ) from error
    return sorted(entries, key=lambda entry: entry[0])


def _positions(file: Path) -> dict[int, Array]:
    """Metres east, north, up of the first fix, by stamp; none without the file."""
    if not file.is_file():
        return {}
    out, frame = {}, LocalFrame()
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            fix = float(fields[1]), float(fields[2]), float(fields[3])
            stamp = to_ns(fields[0])
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{file}:{number}: expected 'seconds latitude longitude altitude', got '{line.strip()[:60]}'"
            ) from error
        if is_fix(*fix):
            out[stamp] = frame.position(*fix)
    return out


def _truth(folder: Path) -> Trajectory | None:
    for name in ("poses.txt", "groundtruth.txt"):
        if (folder / name).is_file():
            return read_tum(folder / name)
    return None
