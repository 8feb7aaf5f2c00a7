# SPDX-License-Identifier: Apache-2.0
"""Reads PLY files, binary or text: points, colours, faces. Of faces with more than three corners a fan of triangles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Floats, Image

Triangles = NDArray[np.int32]

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_END = b"end_header"
_AXES, _COLOURS = ("x", "y", "z"), ("red", "green", "blue")


@dataclass
class _Element:
    """columns: name -> numpy type. lists: name -> types of its length and of its items, in the order of the file."""

    name: str
    count: int
    columns: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Ply:
    """vertices float64 [N,3]; colours uint8 [N,3] RGB, None where the file has none; triangles int32 [T,3], none for a
    cloud."""

    vertices: NDArray[np.float64]
    colours: Image | None
    triangles: Triangles


def read_ply(path: str | Path) -> tuple[Floats, Image, Triangles]:
    """Points float32 [N,3], colours uint8 [N,3] RGB (grey where the file has none) and triangles int32 [T,3]. Raises
    InputError like `load_ply`."""
    ply = load_ply(path)
    colours = np.full(ply.vertices.shape, 128, np.uint8) if ply.colours is None else ply.colours
    return ply.vertices.astype(np.float32), colours, ply.triangles


def load_ply(path: str | Path) -> Ply:
    """The geometry of a PLY file of any program. Raises InputError for one that cannot be read, is cut short, or has no
    vertices with x, y, z."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        return _parse(data)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is no complete PLY file: {error}") from error


def _parse(data: bytes) -> Ply:
    if data[:3] != b"ply" or _END not in data:
        raise ValueError("not a PLY file")
    header, _, rest = data.partition(_END)
    order, elements = _header(header.decode(errors="replace").splitlines())
    body = rest.partition(b"\n")[2]
    if order == "":
        tables = _text_tables(body.decode(errors="replace").split(), elements)
    else:
        tables = _binary_tables(body, elements, order)
    vertices = tables.get("vertex", {})
    if not all(axis in vertices for axis in _AXES):
        raise ValueError("no vertices with x, y, z")
    points = np.stack([vertices[axis] for axis in _AXES], axis=-1).astype(np.float64)
    coloured = all(name in vertices and vertices[name].dtype == np.uint8 for name in _COLOURS)
    colours = np.stack([vertices[name] for name in _COLOURS], axis=-1) if coloured else None
    faces = tables.get("face", {})
    lists = [faces[name] for name in ("vertex_indices", "vertex_index") if name in faces]
    triangles = _fans(lists[0]) if lists else np.empty((0, 3), np.int32)
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(points)):
        raise ValueError("a face names a vertex that does not exist")
    return Ply(points, colours, triangles)


def _header(lines: list[str]) -> tuple[str, list[_Element]]:
    """Byte order ("" for text) and elements."""
    order: str | None = None
    elements: list[_Element] = []
    for words in (line.split() for line in lines):
        if words[:1] == ["format"]:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            elements[-1].lists[words[4]] = (_TYPES[words[2]], _TYPES[words[3]])
        elif words[:1] == ["property"]:
            if elements[-1].lists:
                raise ValueError("values after a list are not supported")
            elements[-1].columns[words[2]] = _TYPES[words[1]]
    if order is None:
        raise ValueError("no format is named")
    return order, elements


def _binary_tables(body: bytes, elements: list[_Element], order: str) -> dict[str, dict[str, NDArray]]:
    tables: dict[str, dict[str, NDArray]] = {}
    offset = 0
    for element in elements:
        columns = [(name, order + kind) for name, kind in element.columns.items()]
        lists = [(name, order + a, order + b) for name, (a, b) in element.lists.items()]
        row = columns + _first_lengths(body, offset, element, lists, order)
        table = np.dtype(row)
        size = element.count * table.itemsize
        if len(body) < offset + size:
            raise ValueError("it is cut short")
        rows = np.frombuffer(body, table, element.count, offset)
        offset += size
        for name, *_ in lists:
            if element.count and not (rows[f"{name} length"] == rows[name].shape[1]).all():
                raise ValueError("its faces have different numbers of corners: save it as triangles")
        tables[element.name] = {name: rows[name] for name in (*element.columns, *element.lists)}
    if offset != len(body):
        raise ValueError("it is longer than its header says")
    return tables


def _first_lengths(
    body: bytes, offset: int, element: _Element, lists: list[tuple[str, str, str]], order: str
) -> list[tuple]:
    """Fields of the lists of an element, each as long as in its first row."""
    fields: list[tuple] = []
    offset += np.dtype([(name, order + kind) for name, kind in element.columns.items()]).itemsize
    for name, length, item in lists:
        known = element.count and len(body) >= offset + np.dtype(length).itemsize
        items = int(np.frombuffer(body, length, 1, offset)[0]) if known else 3
        fields += [(f"{name} length", length), (name, item, (items,))]
        offset += np.dtype(length).itemsize + items * np.dtype(item).itemsize
    return fields


def _text_tables(words: list[str], elements: list[_Element]) -> dict[str, dict[str, NDArray]]:
    tables: dict[str, dict[str, NDArray]] = {}
    at = 0
    for element in elements:
        if len(element.lists) > 1:
            raise ValueError("elements with two lists are not supported")
        width = len(element.columns)
        items = 0
        if element.lists and element.count:
            items = int(words[at + width]) + 1
        size = element.count * (width + items)
        if len(words) < at + size:
            raise ValueError("it is cut short, or its faces have different numbers of corners")
        rows = np.array(words[at : at + size], np.float64).reshape(element.count, -1)
        at += size
        columns = zip(element.columns.items(), rows.T, strict=False)
        tables[element.name] = {name: column.astype(kind) for (name, kind), column in columns}
        for name, (_, kind) in element.lists.items():
            if element.count and not (rows[:, width] == items - 1).all():
                raise ValueError("its faces have different numbers of corners: save it as triangles")
            tables[element.name][name] = rows[:, width + 1 :].astype(kind)
    return tables


def _fans(faces: NDArray) -> Triangles:
    """Triangles [T,3] of faces [F,N]."""
    if faces.ndim != 2 or faces.shape[1] < 3:
        return np.empty((0, 3), np.int32)
    parts = [faces[:, [0, i, i + 1]] for i in range(1, faces.shape[1] - 1)]
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.int32)
