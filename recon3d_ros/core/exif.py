# SPDX-License-Identifier: Apache-2.0
"""What a camera wrote into a photo (EXIF 2.3 in JPEG, PNG, WebP or TIFF): focal length, GPS and time. OpenCV turns images
the way their orientation says, so that is nothing to care for here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite, nan
from pathlib import Path
from typing import Any, SupportsFloat

from PIL import Image

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geodesy import is_fix

#: Tags: directories; focal length; resolution of the sensor; time; place.
_EXIF, _GPS = 0x8769, 0x8825
_FOCAL, _FOCAL_35, _PLANE_X, _PLANE_UNIT, _PIXELS_X = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002
_TIME, _SUBSECONDS = 0x9003, 0x9291
_SOUTH, _LATITUDE, _WEST, _LONGITUDE, _BELOW, _ALTITUDE = range(1, 7)
#: Diagonal and width in mm of the film to which `focal_35` refers.
_DIAGONAL_35, _WIDTH_35 = 43.267, 36.0
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0}  # mm


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as photo:
                block = photo.getexif()
                return _parsed(block.get_ifd(_EXIF), block.get_ifd(_GPS))
    except Exception:  # Pillow raises many types, all of them about the file
        return Exif()


def _parsed(own: Mapping[int, Any], gps: Mapping[int, Any]) -> Exif:
    resolution = _number(own, _PLANE_X)
    unit = _UNITS.get(int(_number(own, _PLANE_UNIT, 2)), 25.4)
    return Exif(
        focal_mm=_number(own, _FOCAL),
        pixel_mm=unit / resolution if resolution else 0.0,
        focal_35=_number(own, _FOCAL_35),
        pixels_x=int(_number(own, _PIXELS_X)),
        gps=_position(gps),
        taken_ns=_time(own),
    )


def _number(tags: Mapping[int, Any], tag: int, default: float = 0.0) -> float:
    value = tags.get(tag, default)
    return float(value) if isinstance(value, SupportsFloat) and isfinite(value) else default


def _text(tags: Mapping[int, Any], tag: int) -> str:
    value = tags.get(tag, "")
    return value.split("\0")[0].strip() if isinstance(value, str) else ""


def _position(gps: Mapping[int, Any]) -> tuple[float, float, float] | None:
    if not {_LATITUDE, _LONGITUDE, _ALTITUDE} <= set(gps):
        return None
    latitude = _degrees(gps[_LATITUDE]) * (-1 if _text(gps, _SOUTH) == "S" else 1)
    longitude = _degrees(gps[_LONGITUDE]) * (-1 if _text(gps, _WEST) == "W" else 1)
    below = gps.get(_BELOW, 0) in (1, b"\1")
    altitude = _number(gps, _ALTITUDE, nan) * (-1 if below else 1)
    return (latitude, longitude, altitude) if is_fix(latitude, longitude, altitude) else None


def _degrees(value: Any) -> float:
    """NaN where it is not what it should be."""
    if not isinstance(value, tuple) or len(value) != 3:
        return nan
    return float(value[0]) + float(value[1]) / 60 + float(value[2]) / 3600


def _time(own: Mapping[int, Any]) -> int | None:
    try:
        taken = datetime.strptime(_text(own, _TIME), "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    fraction = _text(own, _SUBSECONDS)
    nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction.isdigit() else 0
    return int(taken.timestamp()) * 10**9 + nanoseconds
