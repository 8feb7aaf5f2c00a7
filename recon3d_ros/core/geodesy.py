# SPDX-License-Identifier: Apache-2.0
"""Geographic coordinates (WGS84) in metres east, north and up of a first one."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.geometry import Array

#: Larger half axis in metres and squared eccentricity of the ellipsoid.
_A, _E2 = 6378137.0, 6.69437999014e-3


def is_fix(latitude: float, longitude: float, altitude: float) -> bool:
    """Whether it is a place on Earth; receivers without satellites report NaN or zeros."""
    finite = bool(np.isfinite([latitude, longitude, altitude]).all())
    return finite and abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude, longitude) != (0.0, 0.0)


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


def _east_north_up(lat: float, lon: float) -> Array:
    """Rotation [3,3] from Earth-centred axes to those at a place."""
    (s, c), (sl, cl) = (np.sin(lat), np.cos(lat)), (np.sin(lon), np.cos(lon))
    return np.array([[-sl, cl, 0.0], [-s * cl, -s * sl, c], [c * cl, c * sl, s]])
