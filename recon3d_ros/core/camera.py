# SPDX-License-Identifier: Apache-2.0
"""Camera models by the names of REP-104: `pinhole` (no distortion), `plumb_bob` (k1 k2 p1 p2 k3), `rational_polynomial`
(k1 k2 p1 p2 k3 k4 k5 k6) and `equidistant` (fisheye, k1 k2 k3 k4). Pixel centres are at integer coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array

#: Number of coefficients of each distortion model.
MODELS = {"pinhole": 0, "plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image size. Immutable and hashable, so that tables made from it can be cached.

    width, height: image size in pixels. fx, fy, cx, cy: pixels. model: a key of `MODELS`; distortion: its coefficients.
    estimated: True when the focal length is a guess, not a calibration.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = "pinhole"
    distortion: tuple[float, ...] = ()
    estimated: bool = False

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"unknown distortion model '{self.model}': use one of {', '.join(MODELS)}")
        values = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(values).all():
            raise InputError(
                "camera intrinsics hold NaN or infinity: calibrate the camera or give --camera FILE"
            )
        if self.width < 1 or self.height < 1 or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"camera is not calibrated (size {self.width}x{self.height}, fx {self.fx:g}, fy {self.fy:g}): "
                "give --camera FILE or publish a calibrated camera_info"
            )
        coefficients = list(self.distortion[: MODELS[self.model]])
        coefficients += [0.0] * (MODELS[self.model] - len(coefficients))
        if len(self.distortion) > MODELS[self.model] and any(self.distortion[MODELS[self.model] :]):
            raise InputError(
                f"'{self.model}' takes {MODELS[self.model]} coefficients, got {len(self.distortion)}"
            )
        object.__setattr__(self, "distortion", tuple(float(c) for c in coefficients))
        if self.model in ("plumb_bob", "rational_polynomial") and not any(coefficients):
            object.__setattr__(self, "model", "pinhole")
            object.__setattr__(self, "distortion", ())

    @classmethod
    def guess(cls, width: int, height: int) -> Camera:
        """A camera for images that come without calibration: focal length 0.9 of the longer side, centre in the middle."""
        focal = 0.9 * max(width, height)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, estimated=True)

    @property
    def K(self) -> Array:
        """Camera matrix [3,3], float64."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), the order OpenCV takes."""
        return self.width, self.height

    def project(self, points: Array) -> Array:
        """Pixels [N,2] of points [N,3] in the camera's optical frame; NaN for points at or behind the camera."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        z = np.where(points[:, 2] > 1e-9, points[:, 2], np.nan)
        xy = self._distort(points[:, :2] / z[:, None])
        return xy * (self.fx, self.fy) + (self.cx, self.cy)

    def unproject(self, pixels: Array) -> Array:
        """Normalised coordinates [N,2] (x/z, y/z), free of distortion, of pixels [N,2]."""
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        xy = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        return xy if self.model == "pinhole" else self._undistort(xy)

    def rays(self) -> NDArray[np.float32]:
        """Normalised coordinates [H,W,2] float32 of all pixels."""
        u, v = np.meshgrid(np.arange(self.width, dtype=np.float64), np.arange(self.height, dtype=np.float64))
        xy = self.unproject(np.stack([u, v], axis=-1).reshape(-1, 2))
        return xy.reshape(self.height, self.width, 2).astype(np.float32)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resized so that the corners of the image plane stay (OpenCV's convention)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of the window of size (width, height) whose top left pixel is (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def undistorted(self) -> Camera:
        """The ideal pinhole camera with the same K and size."""
        return replace(self, model="pinhole", distortion=())

    def _distort(self, xy: Array) -> Array:
        if self.model == "pinhole":
            return xy
        if self.model == "equidistant":
            return _distort_equidistant(xy, self.distortion)
        return _distort_brown(xy, self.distortion)

    def _undistort(self, xy: Array) -> Array:
        if self.model == "equidistant":
            return _undistort_equidistant(xy, self.distortion)
        return _undistort_by_newton(xy, self._distort)


def _distort_brown(xy: Array, coefficients: tuple[float, ...]) -> Array:
    k1, k2, p1, p2, k3, *rational = coefficients
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if rational:
        k4, k5, k6 = rational
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([x * radial + dx, y * radial + dy], axis=-1)


def _undistort_by_newton(distorted: Array, distort: Callable[[Array], Array], iterations: int = 12) -> Array:
    """Invert `distort` by Newton steps with a numeric 2x2 Jacobian; NaN where it does not converge (outside the model)."""
    step = 1e-6
    ex, ey = np.array([step, 0.0]), np.array([0.0, step])
    xy = distorted.copy()
    for _ in range(iterations):
        error = distort(xy) - distorted
        jx = (distort(xy + ex) - distort(xy - ex)) / (2 * step)
        jy = (distort(xy + ey) - distort(xy - ey)) / (2 * step)
        det = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        det = np.where(np.abs(det) < 1e-9, np.nan, det)
        xy = xy - np.stack(
            [
                (jy[:, 1] * error[:, 0] - jy[:, 0] * error[:, 1]) / det,
                (jx[:, 0] * error[:, 1] - jx[:, 1] * error[:, 0]) / det,
            ],
            axis=-1,
        )
    converged = np.abs(distort(xy) - distorted).max(axis=-1, initial=0.0) < 1e-8
    return np.where(converged[:, None], xy, np.nan)


def _distort_equidistant(xy: Array, coefficients: tuple[float, ...]) -> Array:
    r = np.hypot(xy[:, 0], xy[:, 1])
    theta = np.arctan(r)
    ratio = _equidistant_angle(theta, coefficients) / np.where(r > 1e-12, r, 1.0)
    return xy * np.where(r > 1e-12, ratio, 1.0)[:, None]


def _undistort_equidistant(distorted: Array, coefficients: tuple[float, ...]) -> Array:
    k1, k2, k3, k4 = coefficients
    target = np.hypot(distorted[:, 0], distorted[:, 1])
    theta = target.copy()
    for _ in range(12):
        t2 = theta * theta
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        theta = theta - (_equidistant_angle(theta, coefficients) - target) / slope
    seen = (theta < np.pi / 2) & (np.abs(_equidistant_angle(theta, coefficients) - target) < 1e-8)
    ratio = np.where(target > 1e-12, np.tan(theta) / np.where(target > 1e-12, target, 1.0), 1.0)
    return distorted * np.where(seen, ratio, np.nan)[:, None]


def _equidistant_angle(theta: Array, coefficients: tuple[float, ...]) -> Array:
    k1, k2, k3, k4 = coefficients
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
