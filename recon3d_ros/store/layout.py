# SPDX-License-Identifier: Apache-2.0
"""Byte layout of a keyframe segment: a header of 192 bytes (version 3, little-endian), then points float32 [N,3], colours
uint8 [N,channels] and confidence float32 [N], each block at a multiple of 64 bytes. The state is written last, so a reader
never takes a segment that is still being filled. Versions 1 and 2 (no magic, transposed pose) are read, never written."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Floats, Image, Pose

MAGIC = b"R3KF"
VERSION = 3
ALIGNMENT = 64
HAS_CONFIDENCE = 1

Bytes = NDArray[np.uint8]

# magic, version, header size, state, flags | id, stamp, count, channels | pose, box | colours, confidence, size | CRC, 0
_HEADER = struct.Struct("<4sHHII QqII 12d6f QQQ II")
_CRC_OFFSET = 184
_STATE = slice(8, 12)
# stamp, count, channels (version 2: has confidence) | pose 4x4 column by column, box
_RECORDED = {1: struct.Struct("<QII16f6f"), 2: struct.Struct("<QIII16f6f")}

HEADER_SIZE = _HEADER.size


class State(IntEnum):
    """Whether the arrays of a segment may be read."""

    WRITING = 0
    COMPLETE = 1
    WITHDRAWN = 2


@dataclass(frozen=True)
class Blocks:
    """Where the arrays of a segment lie: offsets in bytes from its start. confidence: 0 = none. size: of the whole."""

    count: int
    channels: int
    points: int
    colours: int
    confidence: int
    size: int

    @classmethod
    def aligned(cls, count: int, channels: int = 3, has_confidence: bool = False) -> Blocks:
        """The blocks of a version 3 segment of `count` points."""
        colours = _align(HEADER_SIZE + 12 * count)
        end = _align(colours + channels * count)
        confidence = end if has_confidence else 0
        return cls(
            count,
            channels,
            HEADER_SIZE,
            colours,
            confidence,
            end + (_align(4 * count) if has_confidence else 0),
        )

    @classmethod
    def packed(cls, header: int, count: int, channels: int, has_confidence: bool) -> Blocks:
        """The blocks of a version 1 or 2 segment: one after the other without gaps."""
        colours = header + 12 * count
        end = colours + channels * count
        return cls(
            count, channels, header, colours, end if has_confidence else 0, end + 4 * count * has_confidence
        )


@dataclass(frozen=True, eq=False)
class Header:
    """What a segment says about its keyframe.

    id: of the keyframe. stamp_ns: of the image. T_map_cam: float64 4x4. bounds: float32 [6], smallest then largest x, y, z
    of the points in the map.
    """

    id: int
    stamp_ns: int
    T_map_cam: Pose
    bounds: Floats
    blocks: Blocks


def pack(header: Header, state: State = State.COMPLETE) -> bytes:
    """The 192 bytes of a version 3 header."""
    blocks = header.blocks
    fields = (
        *(MAGIC, VERSION, HEADER_SIZE, state, HAS_CONFIDENCE if blocks.confidence else 0),
        *(header.id, header.stamp_ns, blocks.count, blocks.channels),
        *header.T_map_cam[:3].ravel(),
        *header.bounds,
        *(blocks.colours, blocks.confidence, blocks.size),
    )
    return _HEADER.pack(*fields, _crc(_HEADER.pack(*fields, 0, 0)), 0)


def unpack(memory: Bytes, version: int = VERSION) -> Header:
    """The header of a segment. Raises StoreError with reason `incomplete`, `withdrawn` or `damaged` unless its arrays may
    be read. `version` is what the caller expects; it is never guessed."""
    if version == VERSION:
        return _unpack_current(memory)
    if version in _RECORDED:
        return _unpack_recorded(memory, version)
    raise ValueError(f"there is no segment version {version}: use 1, 2 or {VERSION}")


def arrays(memory: Bytes, blocks: Blocks) -> tuple[Floats, Image, Floats | None]:
    """Views on a segment: points float32 [N,3], colours uint8 [N,channels], confidence float32 [N] or None."""
    n = blocks.count
    points = _view(memory, np.float32, 3 * n, blocks.points).reshape(n, 3)
    colours = _view(memory, np.uint8, blocks.channels * n, blocks.colours).reshape(n, blocks.channels)
    return points, colours, _view(memory, np.float32, n, blocks.confidence) if blocks.confidence else None


def set_state(memory: Bytes, state: State) -> None:
    """Write the state alone."""
    memory[_STATE].view("<u4")[0] = state


def seal(memory: Bytes, header: Header) -> None:
    """Write the header of a segment whose arrays are complete; the state comes last."""
    memory[:HEADER_SIZE] = np.frombuffer(pack(header, State.WRITING), np.uint8)
    set_state(memory, State.COMPLETE)


def _unpack_current(memory: Bytes) -> Header:
    _check_size(memory, HEADER_SIZE)
    raw = memory[:HEADER_SIZE].tobytes()
    magic, version, header_size, state, flags, *rest = _HEADER.unpack(raw)
    if (magic, version, header_size) != (MAGIC, VERSION, HEADER_SIZE):
        raise StoreError(
            "damaged", f"not a keyframe segment of version {VERSION}: it begins with {raw[:8].hex()}"
        )
    if state == State.WRITING:
        raise StoreError("incomplete", "keyframe segment is still being written")
    if state == State.WITHDRAWN:
        raise StoreError("withdrawn", "keyframe segment was withdrawn by its writer")
    identity, stamp_ns, count, channels, *numbers = rest
    *offsets, crc, _ = numbers[18:]
    blocks = Blocks.aligned(count, channels, bool(flags & HAS_CONFIDENCE))
    if crc != _crc(raw) or state != State.COMPLETE or flags & ~HAS_CONFIDENCE or channels not in (3, 4):
        raise StoreError("damaged", "keyframe segment has a damaged header")
    _check_size(memory, blocks.size)
    if offsets != [blocks.colours, blocks.confidence, blocks.size]:
        raise StoreError("damaged", "keyframe segment has its arrays in other places")
    T_map_cam = np.vstack([np.reshape(numbers[:12], (3, 4)), (0.0, 0.0, 0.0, 1.0)])
    return Header(identity, stamp_ns, T_map_cam, np.array(numbers[12:18], np.float32), blocks)


def _unpack_recorded(memory: Bytes, version: int) -> Header:
    layout = _RECORDED[version]
    _check_size(memory, layout.size)
    stamp_ns, count, channels, *numbers = layout.unpack(memory[: layout.size].tobytes())
    has_confidence = bool(numbers.pop(0)) if version == 2 else False
    blocks = Blocks.packed(layout.size, count, channels, has_confidence)
    if channels not in (3, 4):
        raise StoreError(
            "damaged", f"keyframe segment has {channels} colour channels: is it of version {version}?"
        )
    _check_size(memory, blocks.size)
    T_map_cam = np.reshape(numbers[:16], (4, 4)).T.astype(np.float64)
    return Header(0, stamp_ns, T_map_cam, np.array(numbers[16:], np.float32), blocks)


def _check_size(memory: Bytes, size: int) -> None:
    if len(memory) < size:
        raise StoreError("damaged", f"keyframe segment is cut off: {len(memory)} of {size} bytes")


def _crc(header: bytes) -> int:
    return zlib.crc32(header[_STATE.stop : _CRC_OFFSET], zlib.crc32(header[: _STATE.start]))


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _view(memory: Bytes, dtype: type, count: int, offset: int) -> NDArray:  # type: ignore[type-arg]
    size = count * np.dtype(dtype).itemsize
    return memory[offset : offset + size].view(dtype)
