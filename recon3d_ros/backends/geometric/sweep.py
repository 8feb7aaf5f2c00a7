# SPDX-License-Identifier: Apache-2.0
"""Plane sweep (Collins 1996): the neighbours are warped onto planes parallel to the reference image and compared with it by
zero-mean normalised cross-correlation over 5x5 pixels. Works row by row, so that everything but the result stays in the
processor's first cache, and in loops over one row that the compiler turns into vector instructions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.types import Floats, Image, Pose

f32, u8, u32 = np.float32, np.uint8, np.uint32

#: Cost of a perfect match is 0, of an uncorrelated one 254; this one stands where nothing can be said.
UNKNOWN = u8(204)
_UNSEEN = u8(255)
_MIDDLE = f32(128)
_AREA = 25
#: Windows of less contrast than this standard deviation (grey levels) carry noise, not texture.
_MIN_VARIANCE = f32(_AREA * 1.0**2)


def plane_sweep(
    grey: Image, camera: Camera, neighbours: Sequence[tuple[Image, Camera, Pose]], inverse_depths: Floats
) -> NDArray[np.uint8]:
    """Matching cost uint8 [h,w,D] of each pixel of `grey` (uint8 [h,w], ideal pinhole `camera`) at each inverse depth [D].

    neighbours: grey image, ideal pinhole camera and T_neighbour_reference of each. The cost of a pixel is the mean over the
    two neighbours that fit best, so that one that is occluded or looks past it does no harm.
    """
    mean, scale = _window_statistics(grey)
    packed, sizes = _packed([image for image, _, _ in neighbours])
    K_inverse = np.linalg.inv(camera.K)
    turns = np.stack([other.K @ T[:3, :3] @ K_inverse for _, other, T in neighbours]).astype(f32)
    shifts = np.stack([other.K @ T[:3, 3] for _, other, T in neighbours]).astype(f32)
    values, planes = grey.astype(f32) - _MIDDLE, inverse_depths.astype(f32)
    cost = np.empty((len(planes), *grey.shape), u8)
    _sweep(cost, values, mean, scale, packed, sizes, turns, shifts, planes)
    out = np.empty((*grey.shape, len(planes)), u8)
    _planes_last(out, cost)
    return out


def _window_statistics(grey: Image) -> tuple[Floats, Floats]:
    """Mean and 1/sqrt(sum of squared differences from it) of each 5x5 window; the latter is 0 without texture."""
    values = grey.astype(np.float64) - float(_MIDDLE)
    total = cv2.boxFilter(values, -1, (5, 5), normalize=False)
    variance = cv2.boxFilter(values * values, -1, (5, 5), normalize=False) - total * total / _AREA
    scale = np.where(variance > _MIN_VARIANCE, 1 / np.sqrt(np.maximum(variance, _MIN_VARIANCE)), 0)
    scale[:2] = scale[-2:] = scale[:, :2] = scale[:, -2:] = 0
    return (total / _AREA).astype(f32), scale.astype(f32)


def _packed(images: Sequence[Image]) -> tuple[NDArray[np.uint32], Floats]:
    """Each pixel with its right, lower and lower right neighbour in one number, so that one load serves a bilinear sample.
    Images of different sizes are laid into the largest; sizes float32 [N,2] are (width, height)."""
    rows, columns = (max(image.shape[axis] for image in images) for axis in (0, 1))
    packed = np.zeros((len(images), rows, columns), u32)
    for out, image in zip(packed, images, strict=True):
        p = np.pad(image, ((0, 1), (0, 1)), mode="edge").astype(u32)
        out[: image.shape[0], : image.shape[1]] = (
            p[:-1, :-1] | p[:-1, 1:] << u32(8) | p[1:, :-1] << u32(16) | p[1:, 1:] << u32(24)
        )
    return packed, np.array([image.shape[::-1] for image in images], f32)


@njit(cache=True, nogil=True, error_model="numpy")
def _sweep(cost, grey, mean, scale, packed, sizes, turns, shifts, inverse_depths):  # type: ignore[no-untyped-def]
    best = np.empty(grey.shape, u8)
    second = np.empty(grey.shape, u8)
    for d in range(len(inverse_depths)):
        best[:] = _UNSEEN
        second[:] = _UNSEEN
        for n in range(len(packed)):
            shift = shifts[n] * inverse_depths[d]
            _correlate(best, second, grey, mean, scale, packed[n], sizes[n], turns[n], shift)
        for y in range(len(grey)):
            _mean_of_two(cost[d, y], best[y], second[y], scale[y])


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate(best, second, grey, mean, scale, packed, size, turn, shift):  # type: ignore[no-untyped-def]
    """Compare one warped neighbour with the reference; windows are sums over columns, moved down by one row each time."""
    height, width = grey.shape
    flat, stride = packed.ravel(), packed.shape[1]
    index, quad = np.empty(width, u32), np.empty(width, u32)
    right, down = np.empty(width, f32), np.empty(width, f32)
    ring, empty = np.empty((6, width), f32), np.zeros(width, f32)
    columns, sums = np.zeros((3, width), f32), np.zeros((3, width), f32)
    outside, score = np.empty(width, u8), np.empty(width, u8)
    for y in range(height):
        _coordinates(index, right, down, _row_start(turn, shift, y), turn, size, stride)
        _gather(quad, flat, index)
        new = ring[y % 6]
        _interpolate(new, quad, right, down)
        old, grey_old = (ring[(y - 5) % 6], grey[y - 5]) if y >= 5 else (empty, empty)
        _move_sum(columns[0], new, old)
        _move_products(columns[1], new, old, new, old)
        _move_products(columns[2], new, old, grey[y], grey_old)
        if y < 4:
            continue
        c = y - 2
        for k in range(3):
            _sum_of_five(sums[k], columns[k])
        _cost(score, sums[0], sums[1], sums[2], mean[c], scale[c])
        _outside(outside, _row_start(turn, shift, c), turn, size)
        _keep_two(best[c], second[c], score, outside)


@njit(cache=True, nogil=True, error_model="numpy")
def _row_start(turn, shift, y):  # type: ignore[no-untyped-def]
    """Homogeneous pixel in the neighbour of the first pixel of a row; the next one is turn[:, 0] further."""
    v = f32(y)
    return (
        turn[0, 1] * v + turn[0, 2] + shift[0],
        turn[1, 1] * v + turn[1, 2] + shift[1],
        turn[2, 1] * v + turn[2, 2] + shift[2],
    )


# The loops below run over one row. Each writes few arrays: with many, the compiler gives up proving that they are distinct.


@njit(cache=True, nogil=True, error_model="numpy")
def _coordinates(index, right, down, start, turn, size, stride):  # type: ignore[no-untyped-def]
    """Where each pixel of a row lies in the neighbour: index of the pixel and the fractions to its right and down.
    Comparisons are written so that NaN (a plane through the camera) ends inside the image too."""
    (x0, y0, z0), dx, dy, dz = start, turn[0, 0], turn[1, 0], turn[2, 0]
    last_u, last_v = size[0] - f32(1.001), size[1] - f32(1.001)
    for x in range(index.size):
        scale = f32(1) / (z0 + dz * f32(x))
        u, v = (x0 + dx * f32(x)) * scale, (y0 + dy * f32(x)) * scale
        u = u if u > f32(0) else f32(0)
        v = v if v > f32(0) else f32(0)
        u = u if u < last_u else last_u
        v = v if v < last_v else last_v
        iu, iv = np.int32(u), np.int32(v)
        right[x] = u - f32(iu)
        down[x] = v - f32(iv)
        index[x] = u32(iv * stride + iu)


@njit(cache=True, nogil=True, error_model="numpy")
def _outside(out, start, turn, size):  # type: ignore[no-untyped-def]
    """`_UNSEEN` for pixels of a row whose window reaches out of the neighbour or behind it, else 0."""
    (x0, y0, z0), dx, dy, dz = start, turn[0, 0], turn[1, 0], turn[2, 0]
    last_u, last_v = size[0] - f32(3), size[1] - f32(3)
    for x in range(out.size):
        scale = f32(1) / (z0 + dz * f32(x))
        u, v = (x0 + dx * f32(x)) * scale, (y0 + dy * f32(x)) * scale
        inside = (u >= f32(2)) & (v >= f32(2)) & (u <= last_u) & (v <= last_v) & (scale > f32(0))
        out[x] = u8(0) if inside else _UNSEEN


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(quad, flat, index):  # type: ignore[no-untyped-def]
    for x in range(index.size):
        quad[x] = flat[np.uintp(index[x])]


@njit(cache=True, nogil=True, error_model="numpy")
def _interpolate(out, quad, right, down):  # type: ignore[no-untyped-def]
    byte = u32(255)
    for x in range(out.size):
        a, b = f32(np.int32(quad[x] & byte)), f32(np.int32((quad[x] >> u32(8)) & byte))
        c, d = f32(np.int32((quad[x] >> u32(16)) & byte)), f32(np.int32(quad[x] >> u32(24)))
        above, below = a + (b - a) * right[x], c + (d - c) * right[x]
        out[x] = above + (below - above) * down[x] - _MIDDLE


@njit(cache=True, nogil=True, error_model="numpy")
def _move_sum(columns, new, old):  # type: ignore[no-untyped-def]
    for x in range(columns.size):
        columns[x] += new[x] - old[x]


@njit(cache=True, nogil=True, error_model="numpy")
def _move_products(columns, new, old, new_factor, old_factor):  # type: ignore[no-untyped-def]
    for x in range(columns.size):
        columns[x] += new[x] * new_factor[x] - old[x] * old_factor[x]


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_of_five(out, columns):  # type: ignore[no-untyped-def]
    for x in range(columns.size - 4):
        out[x + 2] = (columns[x] + columns[x + 1]) + (columns[x + 2] + columns[x + 3]) + columns[x + 4]


@njit(cache=True, nogil=True, error_model="numpy")
def _cost(out, total, squares, products, mean, scale):  # type: ignore[no-untyped-def]
    """254 (1 - correlation), negative correlation counting as none."""
    for x in range(out.size):
        variance = squares[x] - total[x] * total[x] * f32(1 / _AREA)
        z = (products[x] - total[x] * mean[x]) * scale[x] / np.sqrt(max(variance, _MIN_VARIANCE))
        z = min(max(z, f32(0)), f32(1))
        value = np.int32(f32(254.5) - f32(254) * z)
        out[x] = u8(value) if variance > _MIN_VARIANCE else UNKNOWN


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_two(best, second, score, outside):  # type: ignore[no-untyped-def]
    for x in range(score.size):
        value, first = u8(score[x] | outside[x]), best[x]
        best[x] = min(first, value)
        second[x] = min(second[x], max(first, value))


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_of_two(out, best, second, scale):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        a, b = best[x], second[x]
        value = u8((np.int32(a) + np.int32(b) + np.int32(1)) >> np.int32(1))
        value = a if b == _UNSEEN else value
        value = UNKNOWN if a == _UNSEEN else value
        out[x] = UNKNOWN if scale[x] == f32(0) else value


@njit(cache=True, nogil=True, error_model="numpy")
def _planes_last(out, cost):  # type: ignore[no-untyped-def]
    """[D,h,w] to [h,w,D], in pieces that fit the first cache."""
    planes, height, width = cost.shape
    for y in range(height):
        for left in range(0, width, 16):
            for d in range(planes):
                for x in range(left, min(left + 16, width)):
                    out[y, x, d] = cost[d, y, x]
