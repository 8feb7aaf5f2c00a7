# SPDX-License-Identifier: Apache-2.0
"""A folder of images, in the natural order of their names, with what the camera wrote into them (EXIF)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera, load_calibration
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.exif import Exif, read_exif
from recon3d_ros.core.geodesy import LocalFrame
from recon3d_ros.core.image import read_image
from recon3d_ros.core.trajectory import Trajectory, to_ns
from recon3d_ros.core.types import Distance, Frame
from recon3d_ros.runtime.sources.base import camera_text, name_of
from recon3d_ros.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULT_FPS = 10.0


class ImagesSource:
    """The images of a folder. Stamps: the names, when they are nanoseconds (or seconds with a fraction) of a clock; else
    EXIF times that rise from image to image; else the index over the frame rate of a `calib.json` beside them, else over
    `DEFAULT_FPS`. EXIF gives the focal length where nothing else does, and GPS positions."""

    kind = "images"
    has_depth = False
    truth: Trajectory | None = None
    surface: Distance | None = None

    def __init__(self, folder: Path, camera: Camera | None = None) -> None:
        self.name = name_of(folder)
        self.skipped: Counter[str] = Counter()
        self.files = image_files(folder)
        self.length: int | None = len(self.files)
        if not self.files:
            raise InputError(f"no images ({', '.join(SUFFIXES[:4])}...) in {folder}{_hint(folder)}")
        calibration = folder / "calib.json"
        found = load_calibration(calibration) if calibration.is_file() else None
        self.exif = _exif(self.files)
        fps = found.fps if found and found.fps else DEFAULT_FPS
        self.stamps_ns, self._clock = _stamps(self.files, self.exif, fps)
        self.width, self.height = first_size(self.files)
        camera = camera or (found.camera if found else None)
        camera = fit_camera(camera, self.width, self.height) if camera else None
        self._by_exif = camera is None
        self.camera = camera or (self.exif[0].camera(self.width, self.height) if self.exif else None)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        place = LocalFrame()
        for i, (stamp, file) in enumerate(zip(self.stamps_ns, self.files, strict=True)):
            try:
                image = read_image(file)
            except FrameError as error:
                self.skipped[error.reason] += 1
                continue
            fix = self.exif[i].gps if self.exif else None
            yield Frame(stamp, image, self.camera, position=None if fix is None else place.position(*fix))

    def describe(self) -> str:
        by = " (EXIF)" if self._by_exif and self.camera is not None else ""
        fixes = sum(exif.gps is not None for exif in self.exif)
        return (
            f"folder {self.name}: {self.length} images of {self.width}x{self.height}, {camera_text(self.camera)}{by}, "
            f"{f'{fixes} GPS positions, ' if fixes else ''}time from {self._clock}"
        )


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order: `frame2` before `frame10`."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    return sorted(files, key=lambda f: _natural(f.name))


def first_size(files: Sequence[Path]) -> tuple[int, int]:
    """(width, height) of the first image that can be read. Raises InputError when none can."""
    for file in files:
        try:
            height, width = read_image(file).shape[:2]
        except FrameError:
            continue
        return width, height
    raise InputError(
        f"none of the {len(files)} images in {files[0].parent} can be read: are the files complete?"
    )


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    # Texts and numbers alternate, so that like is compared with like; the name itself settles 1 and 01.
    parts = re.split(r"(\d+)", name)
    return [(text, int(digits)) for text, digits in zip(parts[::2], [*parts[1::2], "0"], strict=True)], name


def _exif(files: Sequence[Path]) -> list[Exif]:
    """That of every image; none at all where the first image has none, as those of a video."""
    first = read_exif(files[0])
    return [] if first == Exif() else [first, *(read_exif(file) for file in files[1:])]


def _stamps(files: Sequence[Path], exif: Sequence[Exif], fps: float) -> tuple[list[int], str]:
    for pattern, convert in ((r"\d{18,19}", int), (r"\d{9,10}\.\d+", to_ns)):
        if all(re.fullmatch(pattern, f.stem) for f in files):
            stamps = [convert(f.stem) for f in files]
            if all(a < b for a, b in pairwise(stamps)):
                return stamps, "file names"
    taken = [e.taken_ns for e in exif if e.taken_ns is not None]
    if len(taken) == len(files) and all(a < b for a, b in pairwise(taken)):
        return taken, "EXIF"
    return [round(i * 1e9 / fps) for i in range(len(files))], f"frame rate {fps:g} Hz"


def _hint(folder: Path) -> str:
    """Where images or videos are that a user may have meant."""
    inside = [
        f
        for f in sorted(folder.iterdir())
        if (f.is_dir() and image_files(f)) or f.suffix.lower() in VIDEO_SUFFIXES
    ]
    return f": give {' or '.join(str(f) for f in inside[:4])}" if inside else ""
