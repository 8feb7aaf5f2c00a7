# SPDX-License-Identifier: Apache-2.0
"""Ray caster: the image and the exact depth that a camera sees of a scene.

Depth comes from one ray through each pixel's centre. Colour does too, with textures averaged over the pixel; only where
things or shadows end is it the mean of three rays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numba import njit

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats, Image, Pose
from recon3d_ros.synth.materials import albedo
from recon3d_ros.synth.noise import mix
from recon3d_ros.synth.queries import first_hit
from recon3d_ros.synth.scene import Scene

_THREADS = min(2, os.cpu_count() or 1)


def render(scene: Scene, camera: Camera, T_world_cam: Pose) -> tuple[Image, Floats]:
    """Image uint8 [H,W,3] RGB and depth float32 [H,W], metres along the optical axis, NaN where there is sky (or where the
    camera model has no ray). T_world_cam: pose of the camera, optical axes."""
    rays = _rays(camera)
    pose = np.ascontiguousarray(T_world_cam, dtype=np.float64)
    pixel = 1.0 / camera.fx
    world = (*scene.bvh[:3], scene.skin, scene.materials, scene.light.row())
    depth = np.empty(rays.shape[:2], np.float32)
    linear = np.empty((*rays.shape[:2], 3))
    label = np.empty(rays.shape[:2], np.int32)
    image = np.empty(linear.shape, np.uint8)
    with ThreadPoolExecutor(_THREADS) as pool:
        _bands(pool, len(rays), lambda a, b: _cast(*world, rays, pose, pixel, a, b, depth, linear, label))
        _bands(
            pool,
            len(rays),
            lambda a, b: _finish(*world, rays, pose, pixel, a, b, depth, linear, label, image),
        )
    return image, depth


def _bands(pool: ThreadPoolExecutor, rows: int, work: Callable[[int, int], None]) -> None:
    borders = np.linspace(0, rows, 8 * _THREADS + 1).astype(int).tolist()
    list(pool.map(work, borders[:-1], borders[1:]))


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> Array:
    return camera.rays().astype(np.float64)


@njit(cache=True, nogil=True)
def _direction(T, x, y):  # type: ignore[no-untyped-def]
    """The ray of (x, y, 1) in the world; its parameter is depth along the optical axis."""
    return (
        T[0, 0] * x + T[0, 1] * y + T[0, 2],
        T[1, 0] * x + T[1, 1] * y + T[1, 2],
        T[2, 0] * x + T[2, 1] * y + T[2, 2],
    )


@njit(cache=True, nogil=True)
def _cast(boxes, children, faces, skin, table, light, rays, T, pixel, top, bottom, depth, linear, label):  # type: ignore[no-untyped-def]
    """Depth, linear colour and label (2 * material + lit, -1 sky) of the rows top..bottom."""
    o = (T[0, 3], T[1, 3], T[2, 3])
    stack = np.empty((64, 2))
    for row in range(top, bottom):
        for col in range(rays.shape[1]):
            d = _direction(T, rays[row, col, 0], rays[row, col, 1])
            t, key, colour = _see(boxes, children, faces, skin, table, light, o, d, pixel, stack)
            depth[row, col], label[row, col] = t, key
            linear[row, col] = colour


@njit(cache=True, nogil=True)
def _see(boxes, children, faces, skin, table, light, o, d, pixel, stack):  # type: ignore[no-untyped-def]
    """(depth or NaN, label, linear colour) along a ray."""
    if not d[0] * d[0] + d[1] * d[1] + d[2] * d[2] > 0:
        return np.nan, -2, (0.0, 0.0, 0.0)
    t, i, b, c = first_hit(boxes, children, faces, o, d, stack)
    if i < 0:
        return np.nan, -1, _sky(light, d)
    m = int(skin[i, 15])
    n = _normal(skin, i, b, c, d)
    length = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    cosine = -(n[0] * d[0] + n[1] * d[1] + n[2] * d[2]) / length
    a = 1 - b - c
    u = a * skin[i, 9] + b * skin[i, 11] + c * skin[i, 13]
    v = a * skin[i, 10] + b * skin[i, 12] + c * skin[i, 14]
    paint = albedo(table, m, u, v, t * pixel / np.sqrt(max(cosine, 0.08)))
    p = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
    sun = _sunlight(boxes, children, faces, light, p, n, stack)
    power = light[5] * (0.72 + 0.28 * n[2]) + sun
    lit = (paint[0] * paint[0] * power, paint[1] * paint[1] * power, paint[2] * paint[2] * power)
    air = 1 - np.exp(-t * length / light[6])
    return t, 2 * m + (1 if sun > 0 else 0), mix(lit, _sky(light, (d[0], d[1], 0.0)), air)


@njit(cache=True, nogil=True)
def _normal(skin, i, b, c, d):  # type: ignore[no-untyped-def]
    """Shading normal of a hit, on the side of the viewer."""
    a = 1 - b - c
    x = a * skin[i, 0] + b * skin[i, 3] + c * skin[i, 6]
    y = a * skin[i, 1] + b * skin[i, 4] + c * skin[i, 7]
    z = a * skin[i, 2] + b * skin[i, 5] + c * skin[i, 8]
    scale = 1 / np.sqrt(x * x + y * y + z * z)
    if x * d[0] + y * d[1] + z * d[2] > 0:
        scale = -scale
    return x * scale, y * scale, z * scale


@njit(cache=True, nogil=True)
def _sunlight(boxes, children, faces, light, p, n, stack):  # type: ignore[no-untyped-def]
    """Light that reaches a surface point straight from the sun or the lamp."""
    to = (light[0] - light[3] * p[0], light[1] - light[3] * p[1], light[2] - light[3] * p[2])
    squared = to[0] * to[0] + to[1] * to[1] + to[2] * to[2]
    cosine = (n[0] * to[0] + n[1] * to[1] + n[2] * to[2]) / np.sqrt(squared)
    if cosine <= 0:
        return 0.0
    start = (p[0] + 1e-4 * n[0], p[1] + 1e-4 * n[1], p[2] + 1e-4 * n[2])
    if first_hit(boxes, children, faces, start, to, stack)[0] < (1.0 if light[3] > 0 else 1e9):
        return 0.0
    return light[4] * cosine / (1 + 0.08 * squared * light[3])


@njit(cache=True, nogil=True)
def _sky(light, d):  # type: ignore[no-untyped-def]
    """Linear colour of the sky: from the horizon's to the zenith's."""
    up = max(d[2], 0.0) / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    c = mix((light[7], light[8], light[9]), (light[10], light[11], light[12]), min(1.6 * up, 1.0))
    return c[0] * c[0], c[1] * c[1], c[2] * c[2]


@njit(cache=True, nogil=True)
def _is_edge(depth, label, row, col):  # type: ignore[no-untyped-def]
    """True where a neighbour belongs to another face or light, or lies clearly nearer or farther."""
    for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
        if 0 <= r < depth.shape[0] and 0 <= c < depth.shape[1]:
            if label[r, c] != label[row, col]:
                return True
            if abs(depth[r, c] - depth[row, col]) > 0.05 * depth[row, col]:
                return True
    return False


@njit(cache=True, nogil=True)
def _finish(
    boxes, children, faces, skin, table, light, rays, T, pixel, top, bottom, depth, linear, label, image
):  # type: ignore[no-untyped-def]
    """Smooth the edges and encode the colours of the rows top..bottom."""
    o = (T[0, 3], T[1, 3], T[2, 3])
    stack = np.empty((64, 2))
    for row in range(top, bottom):
        for col in range(rays.shape[1]):
            colour = (linear[row, col, 0], linear[row, col, 1], linear[row, col, 2])
            if _is_edge(depth, label, row, col):
                scene = (boxes, children, faces, skin, table, light)
                colour = _two_more(*scene, rays, T, o, pixel, row, col, colour, stack)
            for k in range(3):
                image[row, col, k] = np.uint8(255 * np.sqrt(min(colour[k], 1.0)) + 0.5)


@njit(cache=True, nogil=True)
def _two_more(boxes, children, faces, skin, table, light, rays, T, o, pixel, row, col, colour, stack):  # type: ignore[no-untyped-def]
    """Mean of a pixel's colour and those of two rays a third of a pixel to its lower left and upper right: three different
    rows and columns, so that both level and upright edges get three steps."""
    r = min(max(row, 1), rays.shape[0] - 2)
    c = min(max(col, 1), rays.shape[1] - 2)
    xu, yu = rays[r, c + 1, 0] - rays[r, c - 1, 0], rays[r, c + 1, 1] - rays[r, c - 1, 1]
    xv, yv = rays[r + 1, c, 0] - rays[r - 1, c, 0], rays[r + 1, c, 1] - rays[r - 1, c, 1]
    red, green, blue = colour
    for shift in (-1 / 6, 1 / 6):
        d = _direction(T, rays[row, col, 0] + shift * (xu - xv), rays[row, col, 1] + shift * (yu - yv))
        _, _, more = _see(boxes, children, faces, skin, table, light, o, d, pixel, stack)
        red, green, blue = red + more[0], green + more[1], blue + more[2]
    return red / 3, green / 3, blue / 3
