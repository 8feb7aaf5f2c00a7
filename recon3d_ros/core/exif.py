# SPDX-License-Identifier: Apache-2.0
"""What a camera wrote into a photo (EXIF 2.3 in JPEG, PNG, WebP or TIFF): focal length, GPS and time. OpenCV turns images
the way their orientation says, so that is nothing to care for here."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geodesy import is_fix

#: Bytes at the start of a JPEG in which the block is looked for (elsewhere it may be at the end), and entries read of one
#: directory.
_HEAD, _MAX_ENTRIES = 1 << 18, 512
#: Tags: pointers to further directories; focal length; resolution of the sensor; time.
_EXIF, _GPS = 0x8769, 0x8825
_FOCAL, _FOCAL_35, _PLANE_X, _PLANE_UNIT, _PIXELS_X = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002
_TIME, _SUBSECONDS = 0x9003, 0x9291
#: Diagonal and width in mm of the film to which `focal_35` refers.
_DIAGONAL_35, _WIDTH_35 = 43.267, 36.0
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0}  # mm
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "s", 9: "i", 10: "ii", 11: "f", 12: "d"}

Value = float | bytes | tuple[float, ...]


@dataclass(frozen=True)
class Exif:
    """focal_mm, and the width of a pixel of the full image in mm; focal_35: the focal length that gives the same view on
    film; pixels_x: width of the full image. latitude, longitude in degrees, altitude in metres. taken_ns: time of day of
    the camera's own clock. 0 or None where not known."""

    focal_mm: float = 0.0
    pixel_mm: float = 0.0
    focal_35: float = 0.0
    pixels_x: int = 0
    gps: tuple[float, float, float] | None = None
    taken_ns: int | None = None

    def camera(self, width: int, height: int) -> Camera | None:
        """The camera of the image, its centre in the middle; None where the focal length is not known. The image may be a
        smaller copy of the full one."""
        longer = max(width, height)
        focal = 0.0
        if self.focal_mm and self.pixel_mm and self.pixels_x:
            focal = self.focal_mm / self.pixel_mm * longer / self.pixels_x
        elif self.focal_35:
            # The diagonal counts; images wider than film are cut from a higher sensor.
            focal = self.focal_35 * max((width**2 + height**2) ** 0.5 / _DIAGONAL_35, longer / _WIDTH_35)
        if not 0.2 * longer < focal < 20 * longer:
            return None
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, estimated=True)


def read_exif(path: str | Path) -> Exif:
    """What is known of a photo; all unknown where there is no block or a damaged one."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if head[:2] != b"\xff\xd8":
                head += file.read()
        return _parsed(_block(head))
    except (OSError, ValueError, IndexError, struct.error, ArithmeticError):
        return Exif()


def _block(head: bytes) -> bytes:
    """The TIFF structure within a file. Raises ValueError where there is none."""
    if head[:4] in (b"II*\0", b"MM\0*"):
        return head
    if head[:4] == b"RIFF" or head[:4] == b"\x89PNG":
        start = head.find(b"EXIF" if head[:4] == b"RIFF" else b"eXIf")
        found = head[start + (8 if head[:4] == b"RIFF" else 4) :] if start > 0 else b""
        return found.removeprefix(b"Exif\0\0")
    if head[:2] != b"\xff\xd8":
        raise ValueError("neither a photo nor a TIFF")
    at = 2
    while head[at] == 0xFF and head[at + 1] not in (0xDA, 0xD9):
        size = struct.unpack_from(">H", head, at + 2)[0]
        if head[at + 1] == 0xE1 and head[at + 4 : at + 10] == b"Exif\0\0":
            return head[at + 10 : at + 2 + size]
        at += 2 + size
    raise ValueError("no EXIF block")


def _parsed(block: bytes) -> Exif:
    order = {b"II": "<", b"MM": ">"}[block[:2]] if block[:2] in (b"II", b"MM") else ""
    if not order:
        raise ValueError("not a TIFF structure")
    first = _directory(block, order, struct.unpack_from(order + "I", block, 4)[0])
    own = _directory(block, order, int(_number(first, _EXIF))) if _EXIF in first else {}
    gps = _directory(block, order, int(_number(first, _GPS))) if _GPS in first else {}
    resolution = _number(own, _PLANE_X)
    return Exif(
        focal_mm=_number(own, _FOCAL),
        pixel_mm=_UNITS.get(int(_number(own, _PLANE_UNIT, 2)), 25.4) / resolution if resolution else 0.0,
        focal_35=_number(own, _FOCAL_35),
        pixels_x=int(_number(own, _PIXELS_X)),
        gps=_position(gps),
        taken_ns=_time(own),
    )


def _directory(block: bytes, order: str, at: int) -> Mapping[int, Value]:
    out: dict[int, Value] = {}
    for i in range(min(struct.unpack_from(order + "H", block, at)[0], _MAX_ENTRIES)):
        entry = at + 2 + 12 * i
        tag, kind, count = struct.unpack_from(order + "HHI", block, entry)
        if kind not in _FORMATS or count > len(block):
            continue
        code = f"{count}s" if _FORMATS[kind] == "s" else _FORMATS[kind] * count
        size = struct.calcsize(order + code)
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", block, entry + 8)[0]
        if place + size > len(block):
            continue
        values = struct.unpack_from(order + code, block, place)
        if kind in (5, 10):
            values = tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True))
        if values:
            out[tag] = values[0] if len(values) == 1 else values
    return out


def _number(directory: Mapping[int, Value], tag: int, default: float = 0.0) -> float:
    value = directory.get(tag, default)
    return float(value) if isinstance(value, (int, float)) else default


def _text(directory: Mapping[int, Value], tag: int) -> str:
    value = directory.get(tag, b"")
    return value.split(b"\0")[0].decode("ascii", "replace").strip() if isinstance(value, bytes) else ""


def _position(gps: Mapping[int, Value]) -> tuple[float, float, float] | None:
    latitude, longitude = (_degrees(gps, tag) for tag in (2, 4))
    if latitude is None or longitude is None or 6 not in gps:
        return None
    below = gps.get(5, 0) in (1, b"\1")
    latitude *= -1 if _text(gps, 1) == "S" else 1
    longitude *= -1 if _text(gps, 3) == "W" else 1
    altitude = -_number(gps, 6) if below else _number(gps, 6)
    return (latitude, longitude, altitude) if is_fix(latitude, longitude, altitude) else None


def _degrees(gps: Mapping[int, Value], tag: int) -> float | None:
    value = gps.get(tag)
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    return value[0] + value[1] / 60 + value[2] / 3600


def _time(own: Mapping[int, Value]) -> int | None:
    try:
        taken = datetime.strptime(_text(own, _TIME), "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    fraction = _text(own, _SUBSECONDS)
    nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction.isdigit() else 0
    return int(taken.timestamp()) * 10**9 + nanoseconds
