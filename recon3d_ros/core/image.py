# SPDX-License-Identifier: Apache-2.0
"""Images from files and bytes, and the helpers that several parts share. Images are uint8 [H,W,3] RGB."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.types import Floats, Image

#: Start of a file -> marker without which it is cut short. OpenCV fills what is missing with grey and says nothing.
_END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}


def decode_image(data: NDArray[np.uint8]) -> Image:
    """RGB image of the bytes uint8 [N] of a JPEG, PNG, TIFF... file. Raises FrameError for damaged ones."""
    import cv2

    image = cv2.imdecode(_complete(data), cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise FrameError("unreadable image", "the image is damaged or of an unknown format")
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def decode_grey16(data: NDArray[np.uint8]) -> NDArray[np.generic]:
    """One-channel image [H,W] with the file's own depth (uint8, uint16 or float32). Raises FrameError for damaged ones."""
    import cv2

    image = cv2.imdecode(_complete(data), cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None or image.ndim != 2:
        raise FrameError("unreadable depth", "the depth image is damaged or has more than one channel")
    values: NDArray[np.generic] = image
    return values


def read_image(path: str | Path) -> Image:
    """RGB image of a file. Raises FrameError when it cannot be read."""
    return decode_image(_bytes(path, "unreadable image"))


def read_depth(path: str | Path, scale: float) -> Floats:
    """Depth float32 [H,W] in metres, NaN = none, of a one-channel file: whole numbers are divided by `scale` and 0 is no
    measurement; floats are metres. Raises FrameError when it cannot be read."""
    return depth_in_metres(decode_grey16(_bytes(path, "unreadable depth")), scale)


def depth_in_metres(values: NDArray[np.generic], scale: float) -> Floats:
    """Metres float32 [H,W] of depth values: whole numbers are divided by `scale`; what is not above zero becomes NaN."""
    depth = np.array(values, dtype=np.float32)
    if values.dtype.kind != "f":
        depth /= np.float32(scale)
    depth[~(depth > 0)] = np.nan
    return depth


def to_grey(image: Image) -> NDArray[np.uint8]:
    """Luminance uint8 [H,W] of an RGB image."""
    import cv2

    grey: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey


@lru_cache(maxsize=8)
def resampling_map(target: Camera, source: Camera) -> Floats:
    """Where the rays of `target`'s pixels fall in the image of `source`, both at the same place with the same axes:
    pixels (u, v) float32 [H,W,2], NaN where the source's model does not reach. For `cv2.remap`; read-only."""
    rays = target.rays().reshape(-1, 2).astype(np.float64)
    pixels = source.project(np.column_stack([rays, np.ones(len(rays))]))
    table = pixels.reshape(target.height, target.width, 2).astype(np.float32)
    table.setflags(write=False)
    return table


def resampled(image: Image, target: Camera, source: Camera) -> Image:
    """The image of `source` as `target` would have taken it from the same place; black where `source` saw nothing."""
    import cv2

    if target == source:
        return image
    table = resampling_map(target, source)
    out: Image = cv2.remap(image, table, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out


def _bytes(path: str | Path, reason: str) -> NDArray[np.uint8]:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise FrameError(reason, f"cannot read {path}: {error.strerror}") from error


def _complete(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    head = data[:4].tobytes()
    for start, end in _END_MARKERS.items():
        if head.startswith(start) and end not in data[len(data) // 2 :].tobytes():
            raise FrameError("unreadable image", "the image is cut short")
    return data
