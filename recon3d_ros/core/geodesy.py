# SPDX-License-Identifier: Apache-2.0
"""Geographic coordinates (WGS84) in metres east, north and up of a first one."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.geometry import Array

#: Larger half axis in metres and squared eccentricity of the ellipsoid.
_A, _E2 = 6378137.0, 6.69437999014e-3
#: Metres, beyond which nothing flies that has a camera and a receiver.
_HIGHEST = 1e6
#: Longest time between fixes over which a receiver is taken to move evenly, and longest time after the last one.
_LONGEST_NS, _AHEAD_NS = 1_500_000_000, 500_000_000


def is_fix(latitude: float, longitude: float, altitude: float) -> bool:
    """Whether it is a place on Earth; receivers without satellites report NaN or zeros."""
    known = bool(np.isfinite([latitude, longitude]).all()) and abs(altitude) < _HIGHEST
    return known and abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude, longitude) != (0.0, 0.0)


class LocalFrame:
    """East, north, up about the first fix that it is asked for."""

    def __init__(self) -> None:
        self._origin: tuple[Array, Array] | None = None

    def position(self, latitude: float, longitude: float, altitude: float) -> Array:
        """Metres [3] east, north, up of the first fix. Degrees, metres above the ellipsoid (or any fixed level)."""
        lat, lon = np.radians([latitude, longitude])
        n = _A / np.sqrt(1 - _E2 * np.sin(lat) ** 2)
        across = (n + altitude) * np.cos(lat)
        point = np.array(
            [across * np.cos(lon), across * np.sin(lon), (n * (1 - _E2) + altitude) * np.sin(lat)]
        )
        if self._origin is None:
            self._origin = point, _east_north_up(float(lat), float(lon))
        start, R = self._origin
        out: Array = R @ (point - start)
        return out


def position_between(first: tuple[int, Array], second: tuple[int, Array], stamp_ns: int) -> Array | None:
    """Position [3] at a stamp (ns) from two stamped ones: on the line through them, also a little past the second,
    since fixes come late. None where they are too far apart in time, or the stamp from them."""
    (t0, a), (t1, b) = first, second
    if t1 - t0 > _LONGEST_NS or not t0 <= stamp_ns <= t1 + min(t1 - t0, _AHEAD_NS):
        return None
    out: Array = a + (stamp_ns - t0) / (t1 - t0) * (b - a)
    return out


def _east_north_up(lat: float, lon: float) -> Array:
    """Rotation [3,3] from Earth-centred axes to those at a place."""
    (s, c), (sl, cl) = (np.sin(lat), np.cos(lat)), (np.sin(lon), np.cos(lon))
    return np.array([[-sl, cl, 0.0], [-s * cl, -s * sl, c], [c * cl, c * sl, s]])
