# SPDX-License-Identifier: Apache-2.0
"""Meshes and clouds as binary PLY. A file is written under a temporary name and renamed when it is complete, so that a full
disk never leaves half of one in the place of an older."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Floats, Image

Triangles = NDArray[np.int32]
Columns = list[NDArray[np.float32] | NDArray[np.uint8]]

_XYZ = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
_NORMAL = [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
_RGB = [("red", "u1"), ("green", "u1"), ("blue", "u1")]
_PLY_TYPES = {"<f4": "float", "u1": "uchar"}


def write_ply_mesh(
    path: str | Path, vertices: Floats, triangles: Triangles, colours: Image, normals: Floats | None = None
) -> None:
    """Binary PLY of vertices float32 [V,3], triangles int32 [T,3], colours uint8 [V,3] and normals float32 [V,3].
    Raises InputError when the file cannot be written."""
    fields = _XYZ + _RGB
    columns: Columns = [vertices, colours]
    if normals is not None:
        fields, columns = _XYZ + _NORMAL + _RGB, [vertices, normals, colours]
    faces = np.empty(len(triangles), [("length", "u1"), ("corners", "<i4", 3)])
    faces["length"], faces["corners"] = 3, triangles
    with replacing(path) as file:
        file.write(_ply_header(fields, len(vertices), len(triangles)))
        file.write(_interleaved(fields, columns))
        file.write(faces.view(np.uint8).data)


def write_ply_points(
    path: str | Path, points: Floats, colours: Image, confidence: Floats | None = None
) -> None:
    """Binary PLY of points float32 [N,3], colours uint8 [N,3] and confidence float32 [N]. Raises InputError when the
    file cannot be written."""
    fields = _XYZ + _RGB
    columns: Columns = [points, colours]
    if confidence is not None:
        fields, columns = [*fields, ("confidence", "<f4")], [*columns, confidence[:, None]]
    with replacing(path) as file:
        file.write(_ply_header(fields, len(points)))
        file.write(_interleaved(fields, columns))


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends without error, and vanishes otherwise. Raises
    InputError when the folder or the disk refuses."""
    path = Path(path)
    # A save that was asked for may be under way while another one is due.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        try:
            with open(temporary, "wb") as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}): give another folder or make room"
        ) from error


def _ply_header(fields: list[tuple[str, str]], vertices: int, faces: int | None = None) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", "comment recon3d_ros", f"element vertex {vertices}"]
    lines += [f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields]
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header", ""]).encode()


def _interleaved(fields: list[tuple[str, str]], columns: Columns) -> memoryview:
    """The bytes of a table whose fields are the columns of the arrays [N,k] in order."""
    table = np.empty(len(columns[0]), fields)
    values = (array[:, i] for array in columns for i in range(array.shape[1]))
    for (name, _), column in zip(fields, values, strict=True):
        table[name] = column
    return table.view(np.uint8).data
