# SPDX-License-Identifier: Apache-2.0
"""A folder of images, in the natural order of their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera, load_calibration
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image import read_image
from recon3d_ros.core.trajectory import Trajectory, to_ns
from recon3d_ros.core.types import Distance, Frame
from recon3d_ros.runtime.sources.base import camera_text, name_of
from recon3d_ros.runtime.sources.video import SUFFIXES as VIDEO_SUFFIXES

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULT_FPS = 10.0


class ImagesSource:
    """The images of a folder. Stamps: the names, when they are nanoseconds (or seconds with a fraction) of a clock; else
    the index over the frame rate of a `calib.json` beside them, else over `DEFAULT_FPS`."""

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
        self.stamps_ns, self._clock = _stamps(self.files, found.fps if found and found.fps else DEFAULT_FPS)
        self.width, self.height = first_size(self.files)
        camera = camera or (found.camera if found else None)
        self.camera = fit_camera(camera, self.width, self.height) if camera else None

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for stamp, file in zip(self.stamps_ns, self.files, strict=True):
            try:
                image = read_image(file)
            except FrameError as error:
                self.skipped[error.reason] += 1
                continue
            yield Frame(stamp, image, self.camera)

    def describe(self) -> str:
        return (
            f"folder {self.name}: {self.length} images of {self.width}x{self.height}, {camera_text(self.camera)}, "
            f"time from {self._clock}"
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


def _stamps(files: Sequence[Path], fps: float) -> tuple[list[int], str]:
    for pattern, convert in ((r"\d{18,19}", int), (r"\d{9,10}\.\d+", to_ns)):
        if all(re.fullmatch(pattern, f.stem) for f in files):
            stamps = [convert(f.stem) for f in files]
            if all(a < b for a, b in pairwise(stamps)):
                return stamps, "file names"
    return [round(i * 1e9 / fps) for i in range(len(files))], f"frame rate {fps:g} Hz"


def _hint(folder: Path) -> str:
    """Where images or videos are that a user may have meant."""
    inside = [
        f
        for f in sorted(folder.iterdir())
        if (f.is_dir() and image_files(f)) or f.suffix.lower() in VIDEO_SUFFIXES
    ]
    return f": give {' or '.join(str(f) for f in inside[:4])}" if inside else ""
