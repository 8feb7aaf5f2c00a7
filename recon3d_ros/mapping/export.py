# SPDX-License-Identifier: Apache-2.0
"""Meshes and clouds as files: binary PLY and GLB (glTF 2.0). A file is written under a temporary name and renamed when it
is complete, so that a full disk never leaves half of one in the place of an older."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Floats, Image, MeshBlock

Triangles = NDArray[np.int32]
Columns = list[NDArray[np.float32] | NDArray[np.uint8]]

_XYZ = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
_NORMAL = [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
_RGB = [("red", "u1"), ("green", "u1"), ("blue", "u1")]
_PLY_TYPES = {"<f4": "float", "u1": "uchar"}

# glTF constants.
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_GLB, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942

#: uint8 sRGB -> uint16 linear intensity, which glTF asks of vertex colours.
_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
_LINEAR_16 = np.rint(65535 * _LINEAR).astype("<u2")


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
        file.write(faces.tobytes())


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


def write_glb(path: str | Path, vertices: Floats, triangles: Triangles, colours: Image) -> None:
    """Binary glTF of a mesh; z, up in the map, is turned to y, up in glTF. Raises InputError when the file cannot be
    written."""
    opaque = np.full((len(colours), 1), 65535, "<u2")
    parts = [
        np.ascontiguousarray(vertices, "<f4"),
        np.hstack([_LINEAR_16[colours], opaque]),
        np.ascontiguousarray(triangles, "<u4"),
    ]
    sizes = [part.nbytes for part in parts]
    low, high = (vertices.min(axis=0), vertices.max(axis=0)) if len(vertices) else (np.zeros(3), np.zeros(3))
    text = json.dumps(_gltf(sizes, len(vertices), 3 * len(triangles), low.tolist(), high.tolist())).encode()
    text += b" " * (-len(text) % 4)
    with replacing(path) as file:
        file.write(struct.pack("<III", _GLB, 2, 12 + 8 + len(text) + 8 + sum(sizes)))
        file.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
        file.write(struct.pack("<II", sum(sizes), _BINARY_CHUNK))
        for part in parts:
            file.write(part.tobytes())


def remove_small_components(mesh: MeshBlock, min_triangles: int) -> MeshBlock:
    """The mesh without its connected parts of fewer than `min_triangles` triangles and without unused vertices."""
    a, b, c = mesh.triangles.T
    edges = (np.concatenate([a, b]), np.concatenate([b, c]))
    count = len(mesh.vertices)
    graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    sizes = np.bincount(label[a], minlength=1)
    triangles = mesh.triangles[sizes[label[a]] >= min_triangles]
    used = np.zeros(count, np.bool_)
    used[triangles] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    normals = None if mesh.normals is None else mesh.normals[used]
    return MeshBlock(mesh.id, mesh.vertices[used], number[triangles], mesh.colours[used], normals)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends without error, and vanishes otherwise. Raises
    InputError when the folder or the disk refuses."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
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


def _interleaved(fields: list[tuple[str, str]], columns: Columns) -> bytes:
    """The bytes of a table whose fields are the columns of the arrays [N,k] in order."""
    table = np.empty(len(columns[0]), fields)
    values = (array[:, i] for array in columns for i in range(array.shape[1]))
    for (name, _), column in zip(fields, values, strict=True):
        table[name] = column
    return table.tobytes()


def _gltf(
    sizes: list[int], vertices: int, indices: int, low: list[float], high: list[float]
) -> dict[str, object]:
    """The description of a buffer of positions, colours and indices of the given sizes in bytes."""
    starts = [0, sizes[0], sizes[0] + sizes[1]]
    targets = [_VERTEX_BUFFER, _VERTEX_BUFFER, _INDEX_BUFFER]
    half = 0.5**0.5
    return {
        "asset": {"version": "2.0", "generator": "recon3d_ros"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": [-half, 0.0, 0.0, half]}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}]}
        ],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0}, "doubleSided": True}],
        "buffers": [{"byteLength": sum(sizes)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": size, "target": target}
            for start, size, target in zip(starts, sizes, targets, strict=True)
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": vertices,
                "type": "VEC3",
                "min": low,
                "max": high,
            },
            {
                "bufferView": 1,
                "componentType": _UNSIGNED_SHORT,
                "normalized": True,
                "count": vertices,
                "type": "VEC4",
            },
            {"bufferView": 2, "componentType": _UNSIGNED_INT, "count": indices, "type": "SCALAR"},
        ],
    }
