# SPDX-License-Identifier: Apache-2.0
"""A small software rasteriser with a depth buffer: shaded triangles, points as squares, lines of a given width.

Everything is given in the optical frame of the drawing camera (x right, y down, z forward). What does not lie wholly in
front of `NEAR` is left out. Draw at twice the size and call `Canvas.picture` for smooth edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats, Image

#: Nearest depth that is drawn.
NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Canvas:
    """What is drawn on. camera: ideal pinhole. colour: uint8 [H,W,3]. depth: float32 [H,W], infinity where nothing is."""

    camera: Camera
    colour: Image
    depth: Floats

    @classmethod
    def empty(cls, camera: Camera, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Canvas:
        """A canvas with a background that runs from the colour `top` to the colour `bottom`."""
        share = np.linspace(0, 1, camera.height)[:, None, None]
        rows = np.array(top) * (1 - share) + np.array(bottom) * share
        colour = np.ascontiguousarray(
            np.broadcast_to(rows + 0.5, (camera.height, camera.width, 3)).astype(np.uint8)
        )
        return cls(camera, colour, np.full(colour.shape[:2], np.inf, np.float32))

    def triangles(self, vertices: Array, triangles: NDArray[np.int32], colours: Image) -> None:
        """Draw triangles [T,3] over vertices [V,3] with colours uint8 [V,3], lit from behind the viewer's left shoulder;
        only those that run counter-clockwise as seen from the camera."""
        _triangles(
            *self._projected(vertices),
            np.ascontiguousarray(triangles, np.int32),
            colours,
            self.colour,
            self.depth,
        )

    def points(self, points: Array, colours: Image, size: float) -> None:
        """Draw points [N,3] with colours uint8 [N,3] as squares `size` map units wide, but 2 to 16 pixels in any case."""
        _points(*self._projected(points)[:2], colours, size * self.camera.fx, self.colour, self.depth)

    def lines(self, starts: Array, ends: Array, colours: Image, width: float) -> None:
        """Draw lines from starts [N,3] to ends [N,3] in colours uint8 [N,3], `width` pixels wide."""
        (a, za, _), (b, zb, _) = self._projected(starts), self._projected(ends)
        _lines(a, za, b, zb, colours, width, self.colour, self.depth)

    def picture(self) -> Image:
        """The drawing at half its size, uint8 [H/2,W/2,3]: each pixel is the mean of four."""
        blocks = self.colour.reshape(self.camera.height // 2, 2, self.camera.width // 2, 2, 3)
        return ((blocks.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)

    def _projected(self, points: Array) -> tuple[Array, Array, Array]:
        """(pixels [N,2], depth [N], points [N,3]), all float64."""
        points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
        z = np.maximum(points[:, 2], NEAR)
        c = self.camera
        return points[:, :2] / z[:, None] * (c.fx, c.fy) + (c.cx, c.cy), points[:, 2].copy(), points


@njit(cache=True, nogil=True)
def _triangles(pixels, z, points, triangles, colours, image, depth):  # type: ignore[no-untyped-def]
    for k in range(len(triangles)):
        i, j, m = triangles[k, 0], triangles[k, 1], triangles[k, 2]
        if z[i] < NEAR or z[j] < NEAR or z[m] < NEAR:
            continue
        e, f = pixels[j] - pixels[i], pixels[m] - pixels[i]
        area = e[0] * f[1] - e[1] * f[0]
        if not area < 0:  # y points down: counter-clockwise turns negative
            continue
        light = _light(points, i, j, m)
        left, right = _span(pixels[i, 0], pixels[j, 0], pixels[m, 0], image.shape[1])
        top, bottom = _span(pixels[i, 1], pixels[j, 1], pixels[m, 1], image.shape[0])
        for y in range(top, bottom):
            for x in range(left, right):
                dx, dy = x - pixels[i, 0], y - pixels[i, 1]
                v, w = (dx * f[1] - dy * f[0]) / area, (e[0] * dy - e[1] * dx) / area
                if v < 0 or w < 0 or v + w > 1:
                    continue
                u, v, w = (
                    (1 - v - w) / z[i],
                    v / z[j],
                    w / z[m],
                )  # perspective: linear in space, not in the image
                here = 1 / (u + v + w)
                if here < depth[y, x]:
                    depth[y, x] = here
                    for c in range(3):
                        mean = (u * colours[i, c] + v * colours[j, c] + w * colours[m, c]) * here
                        image[y, x, c] = np.uint8(min(mean * light + 0.5, 255.0))


@njit(cache=True, nogil=True)
def _span(a, b, c, size):  # type: ignore[no-untyped-def]
    """Range of the pixels between the least and the greatest of three coordinates, inside an image."""
    return int(max(np.ceil(min(a, b, c)), 0.0)), int(min(np.floor(max(a, b, c)), size - 1.0)) + 1


@njit(cache=True, nogil=True)
def _light(points, i, j, m):  # type: ignore[no-untyped-def]
    """Brightness of a face, 0.68 to 1.1."""
    e, f = points[j] - points[i], points[m] - points[i]
    nx, ny, nz = e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0]
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    return 0.68 + 0.42 * max((-0.4 * nx - 0.55 * ny - 0.73 * nz) / max(length, 1e-300), 0.0)


@njit(cache=True, nogil=True)
def _points(pixels, z, colours, size, image, depth):  # type: ignore[no-untyped-def]
    for k in range(len(z)):
        if not z[k] > NEAR or not abs(pixels[k, 0]) < 1e6 or not abs(pixels[k, 1]) < 1e6:
            continue
        wide = int(min(max(size / z[k], 2.0), 16.0) + 0.5)
        left, top = int(np.ceil(pixels[k, 0] - 0.5 * wide)), int(np.ceil(pixels[k, 1] - 0.5 * wide))
        for y in range(max(top, 0), min(top + wide, image.shape[0])):
            for x in range(max(left, 0), min(left + wide, image.shape[1])):
                if z[k] < depth[y, x]:
                    depth[y, x] = z[k]
                    for c in range(3):
                        image[y, x, c] = colours[k, c]


@njit(cache=True, nogil=True)
def _lines(a, za, b, zb, colours, width, image, depth):  # type: ignore[no-untyped-def]
    r = 0.5 * width
    for k in range(len(a)):
        if za[k] < NEAR or zb[k] < NEAR:
            continue
        dx, dy = b[k, 0] - a[k, 0], b[k, 1] - a[k, 1]
        squared = max(dx * dx + dy * dy, 1e-12)
        top, bottom = min(a[k, 1], b[k, 1]) - r, max(a[k, 1], b[k, 1]) + r
        left, right = min(a[k, 0], b[k, 0]) - r, max(a[k, 0], b[k, 0]) + r
        for y in range(int(max(top, 0.0)), int(min(bottom, image.shape[0] - 1.0)) + 1):
            for x in range(int(max(left, 0.0)), int(min(right, image.shape[1] - 1.0)) + 1):
                s = min(max(((x - a[k, 0]) * dx + (y - a[k, 1]) * dy) / squared, 0.0), 1.0)
                ex, ey = x - a[k, 0] - s * dx, y - a[k, 1] - s * dy
                here = 1 / ((1 - s) / za[k] + s / zb[k])
                if ex * ex + ey * ey <= r * r and here < depth[y, x]:
                    depth[y, x] = here
                    for c in range(3):
                        image[y, x, c] = colours[k, c]
