# SPDX-License-Identifier: Apache-2.0
"""The compressedDepth transport of image_transport: a header of 12 bytes (int32 format, float32 A and B), then PNG or RVL
(Wilson, "Fast lossless depth image compression", ISS 2017). 32FC1 is stored as inverse depth: z = A / (value - B)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.image import decode_grey16, depth_in_metres
from recon3d_ros.core.types import Floats

_HEADER = np.dtype([("format", "<i4"), ("A", "<f4"), ("B", "<f4")])


def is_compressed_depth(format: str) -> bool:
    """True if a CompressedImage of this format holds depth of the compressedDepth transport."""
    return "compressedDepth" in str(format)


def decode_compressed_depth(format: str, data: NDArray[np.uint8]) -> Floats:
    """Depth float32 [H,W] in metres, NaN = none, of the bytes uint8 [N]. Raises FrameError for damaged ones."""
    if len(data) <= _HEADER.itemsize:
        raise FrameError("unreadable depth", "the compressed depth is cut short")
    header = data[: _HEADER.itemsize].view(_HEADER)[0]
    body = data[_HEADER.itemsize :]
    values = _decode_rvl(body) if "rvl" in format.lower() else decode_grey16(body)
    if not format.strip().startswith("32FC1"):
        return depth_in_metres(values, 1000.0)
    inverse = np.where(values == 0, np.nan, values.astype(np.float32) - header["B"])
    return depth_in_metres(header["A"] / inverse, 1.0)


def _decode_rvl(data: NDArray[np.uint8]) -> NDArray[np.uint16]:
    from recon3d_ros.core.rvl import unpack_rvl

    width, height = (int(v) for v in data[:8].view("<u4")) if len(data) >= 8 else (0, 0)
    words = data[8 : 8 + (len(data) - 8) // 4 * 4].copy().view("<u4")
    if not 0 < width * height <= 1 << 26:
        raise FrameError("unreadable depth", f"RVL depth of {width}x{height}")
    values = np.zeros(width * height, np.uint16)
    if not unpack_rvl(words, values):
        raise FrameError("unreadable depth", "the RVL depth is damaged")
    return values.reshape(height, width)
