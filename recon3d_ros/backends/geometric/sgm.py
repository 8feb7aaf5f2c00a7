# SPDX-License-Identifier: Apache-2.0
"""Semi-global matching (Hirschmueller 2008) over a cost volume: costs are summed along four paths that prefer smooth
inverse depth, then the cheapest plane wins. The planes of a pixel are contiguous: a step is a few vector instructions."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.types import Floats, Image

f32, u16 = np.float32, np.uint16

#: Penalty for a change by one plane, and for a larger one; the latter shrinks by half at a grey edge of `_EDGE` levels.
_SMALL, _LARGE, _EDGE = 8, 100, 10.0
#: Raw matching cost up to which the winner is trusted fully, and from which it is not trusted at all (see plane_sweep).
_GOOD_COST, _BAD_COST = f32(90), f32(190)
_HUGE = u16(20_000)
_P1 = u16(_SMALL)


def aggregate(cost: NDArray[np.uint8], grey: Image) -> NDArray[np.uint16]:
    """Sum uint16 [h,w,D] of the path costs from left, right, above and below. grey: uint8 [h,w], at whose edges jumps
    of depth cost less."""
    sums = np.empty(cost.shape, u16)
    _horizontal(sums, cost, _jump_penalty(grey, axis=1))
    _vertical(sums, cost, _jump_penalty(grey, axis=0))
    return sums


def winner(sums: NDArray[np.uint16], cost: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Cheapest plane float32 [h,w], with fraction, NaN where it is the first or the last one; and confidence float32 [h,w]:
    how far the second best stays behind, lowered where the winner itself fits badly, in 0..1."""
    plane, confidence = np.empty(sums.shape[:2], f32), np.empty(sums.shape[:2], f32)
    _winner(plane, confidence, sums, cost)
    return plane, confidence


def _jump_penalty(grey: Image, axis: int) -> NDArray[np.uint16]:
    """Penalty uint16 [h,w] of a large change between each pixel and the one before it along `axis`."""
    step = np.abs(np.diff(grey.astype(f32), axis=axis, prepend=0))
    return np.ascontiguousarray(np.maximum(_SMALL, _LARGE / (1 + step / _EDGE)).astype(u16))


@njit(cache=True, nogil=True)
def _horizontal(sums, cost, large):  # type: ignore[no-untyped-def]
    height, width, planes = cost.shape
    path = np.full((2, planes + 2), _HUGE, u16)
    last = width - 1
    for y in range(height):
        low = _begin(path[0], cost[y, 0])
        _put(sums[y, 0], path[0])
        for x in range(1, width):
            low = _step(path[x & 1], path[(x - 1) & 1], cost[y, x], low, large[y, x])
            _put(sums[y, x], path[x & 1])
        low = _begin(path[last & 1], cost[y, last])
        _add(sums[y, last], path[last & 1])
        for x in range(last - 1, -1, -1):
            low = _step(path[x & 1], path[(x + 1) & 1], cost[y, x], low, large[y, x + 1])
            _add(sums[y, x], path[x & 1])


@njit(cache=True, nogil=True)
def _vertical(sums, cost, large):  # type: ignore[no-untyped-def]
    height, width, planes = cost.shape
    path = np.full((2, width, planes + 2), _HUGE, u16)
    low = np.zeros(width, u16)
    for upwards in range(2):
        for i in range(height):
            y = height - 1 - i if upwards else i
            for x in range(width):
                new = path[i & 1, x]
                if i == 0:
                    low[x] = _begin(new, cost[y, x])
                else:
                    low[x] = _step(new, path[(i - 1) & 1, x], cost[y, x], low[x], large[y + upwards, x])
                _add(sums[y, x], new)


@njit(cache=True, nogil=True)
def _begin(new, cost):  # type: ignore[no-untyped-def]
    """The first pixel of a path; returns its smallest value."""
    smallest = _HUGE
    for d in range(cost.size):
        new[d + 1] = u16(cost[d])
    for d in range(cost.size):
        smallest = min(smallest, new[d + 1])
    return smallest


@njit(cache=True, nogil=True)
def _step(new, before, cost, low, large):  # type: ignore[no-untyped-def]
    """One pixel along a path: new[1:-1] from before[1:-1], whose smallest value is `low`; returns the smallest new one.
    Both have one huge value at either end. The casts keep the loop in 16 bit."""
    jump = u16(low + large)
    for d in range(cost.size):
        neighbour = u16(min(before[d], before[d + 2]) + _P1)
        cheapest = min(min(before[d + 1], neighbour), jump)
        new[d + 1] = u16(u16(cheapest - low) + u16(cost[d]))
    smallest = _HUGE
    for d in range(cost.size):
        smallest = min(smallest, new[d + 1])
    return smallest


@njit(cache=True, nogil=True)
def _put(sums, path):  # type: ignore[no-untyped-def]
    for d in range(sums.size):
        sums[d] = path[d + 1]


@njit(cache=True, nogil=True)
def _add(sums, path):  # type: ignore[no-untyped-def]
    for d in range(sums.size):
        sums[d] = u16(sums[d] + path[d + 1])


@njit(cache=True, nogil=True, error_model="numpy")
def _winner(plane, confidence, sums, cost):  # type: ignore[no-untyped-def]
    height, width, planes = sums.shape
    for y in range(height):
        for x in range(width):
            s = sums[y, x]
            low = _smallest(s, 0, planes)
            i = 0
            while s[i] != low:
                i += 1
            if i == 0 or i == planes - 1:
                plane[y, x], confidence[y, x] = np.nan, 0
                continue
            plane[y, x] = f32(i) + _fraction(f32(s[i - 1]), f32(low), f32(s[i + 1]))
            second = f32(min(_smallest(s, 0, i - 1), _smallest(s, i + 2, planes)))
            margin = (second - f32(low)) / max(second, f32(1))
            fit = (_BAD_COST - f32(cost[y, x, i])) / (_BAD_COST - _GOOD_COST)
            confidence[y, x] = margin * min(max(fit, f32(0)), f32(1))


@njit(cache=True, nogil=True)
def _smallest(values, start, stop):  # type: ignore[no-untyped-def]
    low = u16(65535)
    for d in range(start, stop):
        low = min(low, values[d])
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _fraction(before, low, after):  # type: ignore[no-untyped-def]
    """Minimum between planes by fitting two lines of opposite slope: correlation falls off like a roof, and a parabola
    would pull the result towards whole planes."""
    slope = max(before, after) - low
    return f32(0.5) * (before - after) / slope if slope > f32(0) else f32(0)
