# SPDX-License-Identifier: Apache-2.0
"""A video file, decoded by OpenCV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, Frame
from recon3d_ros.runtime.sources.base import camera_text, name_of

#: Streams without a container: they have no number of frames, and the frame rate is the decoder's guess.
RAW_SUFFIXES = (".h264", ".264", ".h265", ".265", ".hevc")
SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", *RAW_SUFFIXES)
DEFAULT_FPS = 30.0


class VideoSource:
    """The frames of a video file. Stamps are the index over the frame rate, from 0."""

    kind = "video"
    has_depth = False
    truth: Trajectory | None = None
    surface: Distance | None = None

    def __init__(self, path: Path, camera: Camera | None = None) -> None:
        self.path = path
        self.name = name_of(path)
        self.skipped: Counter[str] = Counter()
        video = self._open()
        fps, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        read, image = video.read()
        video.release()
        if not read:
            raise InputError(
                f"no frame of {path} can be decoded: is the file complete? Re-encode it as mp4 (h264)"
            )
        self.height, self.width = image.shape[:2]
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else DEFAULT_FPS
        raw = path.suffix.lower() in RAW_SUFFIXES
        self.length: int | None = int(count) if count > 0 and not raw else None
        self._fps_text = f"{self.fps:.4g} Hz" + (" (assumed)" if raw or self.fps != fps else "")
        self.camera = fit_camera(camera, self.width, self.height) if camera else None

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        video = self._open()
        try:
            index = 0
            while True:
                read, image = video.read()
                if not read:
                    break
                yield Frame(
                    round(index * 1e9 / self.fps), cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.camera
                )
                index += 1
        finally:
            video.release()

    def describe(self) -> str:
        frames = "frames" if self.length is None else f"{self.length} frames"
        return f"video {self.name}: {frames} of {self.width}x{self.height} at {self._fps_text}, {camera_text(self.camera)}"

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise InputError(f"cannot open video {self.path}: re-encode it as mp4 (h264)")
        return video
