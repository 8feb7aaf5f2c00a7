# SPDX-License-Identifier: Apache-2.0
"""Reads the binary PLY files that `mapping.export` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Floats, Image

_TYPES = {"float": "<f4", "uchar": "u1"}
_FACE = np.dtype([("length", "u1"), ("corners", "<i4", 3)])
_END = b"end_header\n"


def read_ply(path: str | Path) -> tuple[Floats, Image, NDArray[np.int32]]:
    """Points float32 [N,3], colours uint8 [N,3] RGB and triangles int32 [T,3], none for a cloud. Raises InputError for a
    file that cannot be read, or was not written by this package."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    header, found, body = data.partition(_END)
    lines = [line.split() for line in header.decode(errors="replace").splitlines()]
    if not found or ["format", "binary_little_endian", "1.0"] not in lines:
        raise InputError(f"{path} is not a binary PLY file")
    counts = {words[1]: int(words[2]) for words in lines if words[:1] == ["element"]}
    columns = [(words[2], _TYPES[words[1]]) for words in lines if len(words) == 3 and words[0] == "property"]
    table = np.dtype(columns)
    n, faces = counts.get("vertex", 0), counts.get("face", 0)
    if len(body) != n * table.itemsize + faces * _FACE.itemsize:
        raise InputError(f"{path} is cut short, or not a file of this package")
    vertices = np.frombuffer(body, table, n)
    triangles = np.frombuffer(body, _FACE, faces, n * table.itemsize)["corners"]
    points = np.stack([vertices[axis] for axis in "xyz"], axis=-1)
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=-1)
    return points, colours, np.ascontiguousarray(triangles, np.int32)
