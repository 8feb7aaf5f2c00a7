# SPDX-License-Identifier: Apache-2.0
"""Images of sensor_msgs Image and CompressedImage messages. Works on any object with their fields; the data may be bytes,
array.array or numpy and is viewed, not copied, until the colours are converted."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.compressed_depth import decode_compressed_depth, is_compressed_depth
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.image import decode_grey16, decode_image, depth_in_metres
from recon3d_ros.core.types import Floats, Image

#: Encoding -> (dtype, channels, OpenCV's conversion to RGB, "" where none is due).
_ENCODINGS = {
    "rgb8": (np.uint8, 3, ""),
    "bgr8": (np.uint8, 3, "COLOR_BGR2RGB"),
    "8UC3": (np.uint8, 3, "COLOR_BGR2RGB"),
    "rgba8": (np.uint8, 4, "COLOR_RGBA2RGB"),
    "bgra8": (np.uint8, 4, "COLOR_BGRA2RGB"),
    "8UC4": (np.uint8, 4, "COLOR_BGRA2RGB"),
    "mono8": (np.uint8, 1, "COLOR_GRAY2RGB"),
    "8UC1": (np.uint8, 1, "COLOR_GRAY2RGB"),
    "mono16": (np.uint16, 1, "COLOR_GRAY2RGB"),
    "yuv422": (np.uint8, 2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (np.uint8, 2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (np.uint8, 2, "COLOR_YUV2RGB_YUYV"),
    "yuyv": (np.uint8, 2, "COLOR_YUV2RGB_YUYV"),
    "bayer_rggb8": (np.uint8, 1, "COLOR_BayerRGGB2RGB"),
    "bayer_bggr8": (np.uint8, 1, "COLOR_BayerBGGR2RGB"),
    "bayer_gbrg8": (np.uint8, 1, "COLOR_BayerGBRG2RGB"),
    "bayer_grbg8": (np.uint8, 1, "COLOR_BayerGRBG2RGB"),
}
_DEPTH_ENCODINGS = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
_VIDEO = ("h264", "h265", "hevc", "av1")


def decode_image_message(message: Any) -> Image:
    """RGB image uint8 [H,W,3] of an Image or CompressedImage. Raises FrameError: "encoding" for what cannot be decoded at
    all, "damaged message" for fields that contradict each other, "unreadable image" for broken bytes."""
    if hasattr(message, "format"):
        return _decode_compressed(message)
    encoding = str(message.encoding)
    if encoding in ("nv21", "nv24"):
        return _decode_semi_planar(message, encoding)
    if encoding not in _ENCODINGS:
        raise _refused(encoding)
    dtype, channels, conversion = _ENCODINGS[encoding]
    pixels = _pixels(message, np.dtype(dtype), channels)
    if dtype is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return _converted(pixels, conversion) if conversion else np.ascontiguousarray(pixels)


def decode_depth_message(message: Any) -> Floats:
    """Depth float32 [H,W] in metres, NaN = none, of an Image (16UC1 millimetres, 32FC1 metres) or a CompressedImage
    (compressedDepth, or 16-bit PNG in millimetres). Raises FrameError as `decode_image_message`."""
    if hasattr(message, "format"):
        data = np.frombuffer(message.data, dtype=np.uint8)
        if is_compressed_depth(message.format):
            return decode_compressed_depth(str(message.format), data)
        return depth_in_metres(decode_grey16(data), 1000.0)
    encoding = str(message.encoding)
    if encoding not in _DEPTH_ENCODINGS:
        raise FrameError(
            "encoding", f"depth of encoding '{encoding}' is not known: publish 32FC1 (metres) or 16UC1 (mm)"
        )
    return depth_in_metres(_pixels(message, np.dtype(_DEPTH_ENCODINGS[encoding]), 1), 1000.0)


def is_depth_message(message: Any) -> bool:
    """True if an Image or CompressedImage holds depth by what it says of itself."""
    if hasattr(message, "format"):
        return is_compressed_depth(message.format) or str(message.format).startswith(("16UC1", "32FC1"))
    return str(message.encoding) in ("16UC1", "32FC1")


def _pixels(message: Any, dtype: np.dtype[Any], channels: int, rows: int | None = None) -> NDArray[Any]:
    """View [rows,W] or [rows,W,channels] on the data, padding at the end of rows left out, in this machine's byte order."""
    width, rows = int(message.width), rows or int(message.height)
    row = width * channels * dtype.itemsize
    step = int(message.step) or row
    data = np.frombuffer(message.data, dtype=np.uint8)
    if width < 1 or rows < 1 or step < row or len(data) < step * (rows - 1) + row:
        raise FrameError(
            "damaged message",
            f"{message.encoding} image of {width}x{message.height}, step {step}, cannot have {len(data)} bytes",
        )
    if len(data) < step * rows:  # the last row may come without its padding
        data = np.concatenate([data, np.zeros(step * rows - len(data), np.uint8)])
    view = np.ascontiguousarray(data[: step * rows].reshape(rows, step)[:, :row])
    pixels = view.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype, copy=False)
    return pixels.reshape((rows, width) if channels == 1 else (rows, width, channels))


def _decode_semi_planar(message: Any, encoding: str) -> Image:
    """nv21: a plane of Y, then V and U interleaved at half the size. nv24: a plane of Y, then U and V at full size."""
    height, width = int(message.height), int(message.width)
    if encoding == "nv21":
        return _converted(_pixels(message, np.dtype(np.uint8), 1, height * 3 // 2), "COLOR_YUV2RGB_NV21")
    planes = _pixels(message, np.dtype(np.uint8), 1, height * 3)
    chroma = planes[height:].reshape(height, width, 2)[::2, ::2].reshape(height // 2, width)
    return _converted(np.concatenate([planes[:height], chroma]), "COLOR_YUV2RGB_NV12")


def _decode_compressed(message: Any) -> Image:
    image = decode_image(np.frombuffer(message.data, dtype=np.uint8))
    # The bytes hold BGR as OpenCV writes it, unless the publisher says that it compressed RGB as it was.
    return (
        np.ascontiguousarray(image[..., ::-1])
        if re.search(r"compressed\s+rgb", str(message.format))
        else image
    )


def _converted(pixels: NDArray[np.uint8], conversion: str) -> Image:
    import cv2

    try:
        image: Image = cv2.cvtColor(pixels, getattr(cv2, conversion))
    except cv2.error as error:
        raise FrameError(
            "damaged message", f"image of shape {pixels.shape} cannot be converted by {conversion}"
        ) from error
    return image


def _refused(encoding: str) -> FrameError:
    if encoding.lower() in _VIDEO:
        return FrameError(
            "encoding",
            f"the image topic carries {encoding} video: let the driver decode it, or publish jpeg (compressed)",
        )
    if encoding in _DEPTH_ENCODINGS:
        return FrameError(
            "encoding", f"encoding '{encoding}' is depth, not colour: choose another image topic"
        )
    return FrameError(
        "encoding", f"encoding '{encoding}' is not known: publish one of {', '.join(_ENCODINGS)}, nv21, nv24"
    )
