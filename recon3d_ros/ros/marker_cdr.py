# SPDX-License-Identifier: Apache-2.0
"""Mesh regions as serialised visualization_msgs/MarkerArray messages (CDR, little-endian). The points and colours are
written by kernels; message objects, some hundred times slower to build, are never made. Alignment counts from the byte
behind the four bytes of encapsulation."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numba import njit

from recon3d_ros.core.types import MeshBlock

_TRIANGLE_LIST = 11
_ADD, _DELETE, _DELETE_ALL = 0, 2, 3

#: Bytes of a triangle: three points of three doubles, three colours of four floats.
_TRIANGLE_BYTES = 3 * (3 * 8 + 4 * 4)

#: uint8 colour -> share, float32 [256].
_SHARES = (np.arange(256) / 255).astype(np.float32)

kernel = njit(cache=True, nogil=True)


class MarkerWriter:
    """Mesh regions in, messages of about `max_bytes` out. A region keeps its marker id until `clear`."""

    def __init__(self, max_bytes: int = 1_000_000, namespace: str = "mesh") -> None:
        self._max_bytes = max_bytes
        self._namespace = namespace
        self._ids: dict[tuple[int, int, int], int] = {}

    def write(self, blocks: Sequence[MeshBlock], stamp_ns: int, frame_id: str) -> list[bytes]:
        """Messages that show every region as a TRIANGLE_LIST and delete those that have no triangles any more."""
        messages: list[bytes] = []
        message = _Message(stamp_ns, frame_id, self._namespace)
        for block in blocks:
            if not len(block.triangles) and block.id not in self._ids:
                continue
            if message.markers and message.size + _TRIANGLE_BYTES * len(block.triangles) > self._max_bytes:
                messages.append(message.serialised())
                message = _Message(stamp_ns, frame_id, self._namespace)
            message.add(self._ids.setdefault(block.id, len(self._ids)), block)
        return messages + ([message.serialised()] if message.markers else [])

    def clear(self, stamp_ns: int, frame_id: str) -> list[bytes]:
        """The message that deletes every marker. Ids are given anew afterwards."""
        self._ids.clear()
        message = _Message(stamp_ns, frame_id, self._namespace)
        message.add_action(0, _DELETE_ALL)
        return [message.serialised()]

    @staticmethod
    def warm_up() -> None:
        """Compile the kernels, or load them from the cache."""
        triangle = MeshBlock(
            (0, 0, 0), np.zeros((1, 3), np.float32), np.zeros((1, 3), np.int32), np.zeros((1, 3), np.uint8)
        )
        MarkerWriter().write([triangle], 0, "map")


class _Message:
    """A MarkerArray in parts. size: bytes so far, behind the encapsulation; markers: their number."""

    def __init__(self, stamp_ns: int, frame_id: str, namespace: str) -> None:
        self.size = 4
        self.markers = 0
        self._parts: list[bytes | memoryview] = []
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        self._start = struct.pack("<iI", seconds, nanoseconds) + _string(frame_id) + _string(namespace)

    def add(self, number: int, block: MeshBlock) -> None:
        """The marker of a region; a region without triangles is deleted."""
        if not len(block.triangles):
            self.add_action(number, _DELETE)
            return
        self._begin(number, _ADD)
        length = struct.pack("<I", 3 * len(block.triangles))
        self._append(length)
        self._append(bytes(-self.size % 8))
        self._append(_points(block.vertices, block.triangles).data)
        self._append(length)
        self._append(_colours(block.colours, block.triangles, _SHARES).data)
        self._append(_TAIL)

    def add_action(self, number: int, action: int) -> None:
        """A marker without points."""
        self._begin(number, action)
        self._append(struct.pack("<II", 0, 0))
        self._append(_TAIL)

    def serialised(self) -> bytes:
        """The message as it goes over the wire."""
        return b"".join([b"\0\1\0\0", struct.pack("<I", self.markers), *self._parts])

    def _begin(self, number: int, action: int) -> None:
        """Everything of a marker before its points."""
        self.markers += 1
        self._append(bytes(-self.size % 4))
        self._append(self._start + struct.pack("<iii", number, _TRIANGLE_LIST, action))
        self._append(bytes(-self.size % 8))
        self._append(_APPEARANCE)

    def _append(self, part: bytes | memoryview) -> None:
        self._parts.append(part)
        self.size += memoryview(part).nbytes


def _string(text: str) -> bytes:
    """Length with the closing zero, characters, zero, and padding to 4 (what follows a string here is aligned to 4)."""
    data = text.encode() + b"\0"
    return struct.pack("<I", len(data)) + data + bytes(-len(data) % 4)


#: Pose (identity), scale (1), colour (opaque white), lifetime (for ever), frame_locked (no); padded to 4.
_APPEARANCE = struct.pack("<10d4f2iB3x", 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0)

#: Texture, text and mesh file, all empty. The flag at the end is not padded: it may end the message.
_TAIL = (
    _string("")  # texture_resource
    + struct.pack("<iI", 0, 0) + _string("") + _string("") + struct.pack("<I", 0)  # texture
    + struct.pack("<I", 0)  # uv_coordinates
    + _string("") + _string("")  # text, mesh_resource
    + _string("") + struct.pack("<I", 0)  # mesh_file
    + b"\0"  # mesh_use_embedded_materials
)  # fmt: skip


@kernel
def _points(vertices, triangles):
    """float64 [3 T,3]: the corners of the triangles one after another."""
    out = np.empty((3 * len(triangles), 3), np.float64)
    for t in range(len(triangles)):
        for corner in range(3):
            vertex = np.uint32(triangles[t, corner])
            for axis in range(3):
                out[3 * t + corner, axis] = vertices[vertex, axis]
    return out


@kernel
def _colours(colours, triangles, shares):
    """float32 [3 T,4]: the colours of the corners, opaque."""
    out = np.empty((3 * len(triangles), 4), np.float32)
    for t in range(len(triangles)):
        for corner in range(3):
            vertex = np.uint32(triangles[t, corner])
            for channel in range(3):
                out[3 * t + corner, channel] = shares[colours[vertex, channel]]
            out[3 * t + corner, 3] = 1.0
    return out
