# SPDX-License-Identifier: Apache-2.0
"""Mesh regions as serialised visualization_msgs/MarkerArray messages (CDR, little-endian). A kernel writes all markers of a
message in one go; message objects, some hundred times slower to build, are never made. Alignment counts from the byte
behind the four bytes of encapsulation."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit

from recon3d_ros.core.types import MeshBlock

_TRIANGLE_LIST = 11
_ADD, _DELETE, _DELETE_ALL = 0, 2, 3

#: Bytes of a point (three doubles) and of a colour (four floats).
_POINT_BYTES, _COLOUR_BYTES = 3 * 8, 4 * 4

#: uint8 colour -> share, float32 [256].
_SHARES = (np.arange(256) / 255).astype(np.float32)

_NOWHERE = MeshBlock((0, 0, 0), *(np.empty((0, 3), kind) for kind in (np.float32, np.int32, np.uint8)))

kernel = njit(cache=True, nogil=True)


class MarkerWriter:
    """Mesh regions in, messages of about `max_bytes` out. A region keeps its marker id until `clear`.

    colour_per_triangle: one colour a triangle, the mean of its corners, instead of one a corner: 88 bytes instead of 120.
    """

    def __init__(
        self, max_bytes: int = 1_000_000, namespace: str = "mesh", colour_per_triangle: bool = False
    ) -> None:
        self._max_bytes = max_bytes
        self._namespace = namespace
        self._flat = colour_per_triangle
        self.triangle_bytes = 3 * _POINT_BYTES + (1 if colour_per_triangle else 3) * _COLOUR_BYTES
        self._ids: dict[tuple[int, int, int], int] = {}
        self._buffer = np.empty(max_bytes // 8, np.float64)  # float64, so that it is aligned

    def write(self, blocks: Sequence[MeshBlock], stamp_ns: int, frame_id: str) -> Iterator[bytes]:
        """Messages that show every region as a TRIANGLE_LIST and delete those that have no triangles any more. Each is
        written when it is asked for: one that was sent and let go leaves its memory to the next."""
        start = self._start(stamp_ns, frame_id)
        shown = [block for block in blocks if len(block.triangles) or block.id in self._ids]
        for group in self._groups(shown, len(start)):
            ids = [self._ids.setdefault(block.id, len(self._ids)) for block in group]
            actions = [_ADD if len(block.triangles) else _DELETE for block in group]
            yield self._message(start, group, ids, actions)

    def clear(self, stamp_ns: int, frame_id: str) -> list[bytes]:
        """The message that deletes every marker. Ids are given anew afterwards."""
        self._ids.clear()
        return [self._message(self._start(stamp_ns, frame_id), [_NOWHERE], [0], [_DELETE_ALL])]

    @staticmethod
    def warm_up() -> None:
        """Compile the kernels, or load them from the cache."""
        MarkerWriter().clear(0, "map")

    def _start(self, stamp_ns: int, frame_id: str) -> bytes:
        """What all markers of a message begin with: header and namespace."""
        return (
            struct.pack("<iI", *divmod(stamp_ns, 1_000_000_000))
            + _string(frame_id)
            + _string(self._namespace)
        )

    def _groups(self, blocks: Sequence[MeshBlock], start: int) -> Iterator[list[MeshBlock]]:
        """The regions of each message."""
        group: list[MeshBlock] = []
        size = 4
        for block in blocks:
            triangles = self.triangle_bytes * len(block.triangles)
            if group and size + triangles > self._max_bytes:
                yield group
                group, size = [], 4
            group.append(block)
            size += triangles + start + _EMPTY_BYTES
        if group:
            yield group

    def _message(
        self, start: bytes, blocks: Sequence[MeshBlock], ids: list[int], actions: list[int]
    ) -> bytes:
        counts = np.array([(len(block.vertices), len(block.triangles)) for block in blocks])
        room = 16 + len(blocks) * (len(start) + _EMPTY_BYTES) + self.triangle_bytes * int(counts[:, 1].sum())
        if room > self._buffer.nbytes:
            self._buffer = np.empty(room // 8 + 1, np.float64)
        buffer = self._buffer.view(np.uint8)
        size = _write(
            buffer[8:],
            np.frombuffer(start, np.uint8),
            np.array([ids, actions], np.int32),
            counts,
            np.concatenate([block.vertices for block in blocks]),
            np.concatenate([block.triangles for block in blocks]),
            np.concatenate([block.colours for block in blocks]),
            (_APPEARANCE, _TAIL, _SHARES),
            self._flat,
        )
        whole = buffer[4 : 8 + size]
        whole[:4] = 0, 1, 0, 0  # CDR, little-endian
        return whole.tobytes()


def _string(text: str) -> bytes:
    """Length with the closing zero, characters, zero, and padding to 4 (what follows a string here is aligned to 4)."""
    data = text.encode() + b"\0"
    return struct.pack("<I", len(data)) + data + bytes(-len(data) % 4)


#: Pose (identity), scale (1), colour (opaque white), lifetime (for ever), frame_locked (no); padded to 4.
_APPEARANCE = np.frombuffer(
    struct.pack("<10d4f2iB3x", 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0), np.uint8
)

#: Texture, text and mesh file, all empty. The flag at the end is not padded: it may end the message.
_TAIL = np.frombuffer(
    _string("")  # texture_resource
    + struct.pack("<iI", 0, 0) + _string("") + _string("") + struct.pack("<I", 0)  # texture
    + struct.pack("<I", 0)  # uv_coordinates
    + _string("") + _string("")  # text, mesh_resource
    + _string("") + struct.pack("<I", 0)  # mesh_file
    + b"\0",  # mesh_use_embedded_materials
    np.uint8,
)  # fmt: skip

#: Most bytes of a marker without triangles, behind its start: id, type, action, both lengths, and padding.
_EMPTY_BYTES = 12 + len(_APPEARANCE) + 8 + len(_TAIL) + 4 + 8 + 4


@kernel
def _write(body, start, keys, counts, vertices, triangles, colours, fixed, flat):  # type: ignore[no-untyped-def]
    """Write the markers of a message; returns the number of bytes. body: uint8, aligned to 8, what lies behind the
    encapsulation. start, fixed: bytes that all markers share. keys [2,M]: ids and actions. counts [M,2]: vertices and
    triangles of each marker, which lie one after another in the arrays."""
    words = body[: len(body) // 4 * 4].view(np.int32)
    appearance, tail, shares = fixed
    words[0] = counts.shape[0]
    at, v, t = 4, 0, 0
    for m in range(counts.shape[0]):
        at = _copy(body, _padded(body, at, 4), start)
        words[at // 4], words[at // 4 + 1], words[at // 4 + 2] = keys[0, m], _TRIANGLE_LIST, keys[1, m]
        at = _copy(body, _padded(body, at + 12, 8), appearance)
        corners = vertices[v : v + counts[m, 0]], triangles[t : t + counts[m, 1]]
        at = _points(body, words, at, *corners)
        at = _colours(body, words, at, colours[v : v + counts[m, 0]], corners[1], shares, flat)
        at = _copy(body, at, tail)
        v, t = v + counts[m, 0], t + counts[m, 1]
    return at


@kernel
def _padded(body, at, unit):  # type: ignore[no-untyped-def]
    """The next multiple of `unit`; what is passed over becomes zero."""
    while at % unit:
        body[at] = 0
        at += 1
    return at


@kernel
def _copy(body, at, part):  # type: ignore[no-untyped-def]
    for i in range(len(part)):
        body[at + i] = part[i]
    return at + len(part)


@kernel
def _points(body, words, at, vertices, triangles):  # type: ignore[no-untyped-def]
    """Their number, and three doubles for each corner."""
    words[at // 4] = 3 * len(triangles)
    at += 4
    if len(triangles) == 0:  # no alignment for data that is absent
        return at
    at = _padded(body, at, 8)
    size = 72 * len(triangles)
    out = body[at : at + size].view(np.float64)
    for t in range(len(triangles)):
        for corner in range(3):
            vertex = np.uint32(triangles[t, corner])
            for axis in range(3):
                out[9 * t + 3 * corner + axis] = vertices[vertex, axis]
    return at + size


@kernel
def _colours(body, words, at, colours, triangles, shares, flat):  # type: ignore[no-untyped-def]
    """Their number, and four floats for each corner, or for each triangle; opaque."""
    number = len(triangles) if flat else 3 * len(triangles)
    words[at // 4] = number
    at += 4
    out = body[at : at + 16 * number].view(np.float32)
    for i in range(number):
        for channel in range(3):
            if flat:
                total = np.uint32(1)  # so that the division rounds to the nearest
                for corner in range(3):
                    total += colours[np.uint32(triangles[i, corner]), channel]
                value = total // np.uint32(3)
            else:
                value = np.uint32(colours[np.uint32(triangles[i // 3, i % 3]), channel])
            out[4 * i + channel] = shares[value]
        out[4 * i + 3] = 1.0
    return at + 16 * number
