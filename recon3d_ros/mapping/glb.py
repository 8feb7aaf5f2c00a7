# SPDX-License-Identifier: Apache-2.0
"""Meshes as GLB, the binary form of glTF 2.0 (Khronos, 2021): what browsers, game engines and office programs open."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Image, MeshBlock
from recon3d_ros.mapping.export import replacing

_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_GLB, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_COMPONENTS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}

#: z, up in the map, is turned to y, up in glTF: a quarter turn back about x, as quaternion x y z w.
_Z_UP_TO_Y_UP = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]

#: uint8 sRGB -> uint16 linear intensity, which glTF asks of vertex colours.
_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
_LINEAR_16 = np.rint(65535 * _LINEAR).astype("<u2")

#: Accessor: component type, type, target of its buffer, values.
_Part = tuple[int, str, int, NDArray[Any]]


def write_glb(path: str | Path, mesh: MeshBlock) -> None:
    """Binary glTF of a mesh with vertex colours and, where there are, normals. Raises InputError when it has no triangles
    or is larger than the format can hold, or when the file cannot be written."""
    if not len(mesh.triangles):
        raise InputError(f"cannot write {path}: there is no surface")
    parts = _parts(mesh)
    sizes = [values.nbytes for *_, values in parts.values()]
    text = json.dumps(_scene(parts, sizes)).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + sum(sizes)
    if total >= 2**32:
        raise InputError(
            f"cannot write {path}: more than the 4 GB that a GLB holds; simplify the mesh, or take PLY"
        )
    with replacing(path) as file:
        file.write(struct.pack("<III", _GLB, 2, total))
        file.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
        file.write(struct.pack("<II", sum(sizes), _BINARY_CHUNK))
        for *_, values in parts.values():
            file.write(values.data)


def _parts(mesh: MeshBlock) -> dict[str, _Part]:
    """The arrays of the file by the name of their attribute; all have multiples of four bytes."""
    vertices = np.ascontiguousarray(mesh.vertices, "<f4")
    parts: dict[str, _Part] = {"POSITION": (_FLOAT, "VEC3", _VERTEX_BUFFER, vertices)}
    if mesh.normals is not None:
        parts["NORMAL"] = (_FLOAT, "VEC3", _VERTEX_BUFFER, np.ascontiguousarray(mesh.normals, "<f4"))
    parts["COLOR_0"] = (_UNSIGNED_SHORT, "VEC4", _VERTEX_BUFFER, _linear(mesh.colours))
    indices = np.ascontiguousarray(mesh.triangles, "<u4").reshape(-1)
    parts["indices"] = (_UNSIGNED_INT, "SCALAR", _INDEX_BUFFER, indices)
    return parts


def _linear(colours: Image) -> NDArray[np.uint16]:
    out = np.full((len(colours), 4), 65535, "<u2")
    out[:, :3] = _LINEAR_16[colours]
    return out


def _scene(parts: dict[str, _Part], sizes: list[int]) -> dict[str, Any]:
    """The JSON that tells what lies where."""
    starts = np.cumsum([0, *sizes]).tolist()
    numbers = {name: number for number, name in enumerate(parts)}
    indices = numbers.pop("indices")
    return {
        "asset": {"version": "2.0", "generator": "recon3d_ros"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _Z_UP_TO_Y_UP}],
        "meshes": [{"primitives": [{"attributes": numbers, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0}, "doubleSided": True}],
        "buffers": [{"byteLength": sum(sizes)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": size, "target": target}
            for start, size, (_, _, target, _) in zip(starts, sizes, parts.values(), strict=False)
        ],
        "accessors": [_accessor(number, *part) for number, part in enumerate(parts.values())],
    }


def _accessor(number: int, component: int, kind: str, target: int, values: NDArray[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "bufferView": number,
        "componentType": component,
        "count": values.size // _COMPONENTS[kind],
        "type": kind,
    }
    if component == _UNSIGNED_SHORT:
        out["normalized"] = True
    if number == 0:  # of positions the format asks the bounds
        out["min"], out["max"] = values.min(axis=0).tolist(), values.max(axis=0).tolist()
    return out
