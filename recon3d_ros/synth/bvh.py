# SPDX-License-Identifier: Apache-2.0
"""Bounding volume hierarchy over triangles, built top down by the surface area heuristic over bins (Wald, "On fast
construction of SAH-based bounding volume hierarchies", 2007)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon3d_ros.core.geometry import Array

_LEAF = 4
_BINS = 16
_FAR = 1e30


class Bvh(NamedTuple):
    """boxes float64 [N,12]: smallest and largest corner of the left child of each inner node, then of the right child.
    children int32 [N,4]: node or first triangle that each child is, then how many triangles each has, 0 for a node.
    faces float64 [T,9]: corners of the triangles, in the order of the leaves. order int64 [T]: their numbers as given."""

    boxes: Array
    children: NDArray[np.int32]
    faces: Array
    order: NDArray[np.int64]


def build(faces: Array) -> Bvh:
    """The hierarchy of triangles float64 [T,9], T >= 2."""
    corners = faces.reshape(-1, 3, 3)
    spans = np.concatenate([corners.min(axis=1), -corners.max(axis=1)], axis=1)
    order = np.arange(len(faces))
    boxes, children = _build(spans, order)
    return Bvh(boxes, children, faces[order], order)


@njit(cache=True, nogil=True)
def _build(spans, order):  # type: ignore[no-untyped-def]
    """Nodes over boxes [T,6] (smallest corner, negative of the largest one); sorts `order` into that of the leaves."""
    boxes = np.zeros((len(order), 12))
    children = np.zeros((len(order), 4), np.int32)
    used, todo = 1, [(0, 0, len(order))]
    while len(todo) > 0:
        node, start, end = todo.pop()
        split = _partition(spans, order, start, end)
        for side in range(2):
            a, b = (start, split) if side == 0 else (split, end)
            for k in range(6):
                least = _FAR
                for i in range(a, b):
                    least = min(least, spans[order[i], k])
                boxes[node, 6 * side + k] = least if k < 3 else -least
            children[node, side], children[node, 2 + side] = a, b - a
            if b - a > _LEAF:
                children[node, side], children[node, 2 + side] = used, 0
                todo.append((used, a, b))
                used += 1
    return boxes[:used].copy(), children[:used].copy()


@njit(cache=True, nogil=True)
def _partition(spans, order, start, end):  # type: ignore[no-untyped-def]
    """Sort the triangles of a node into two halves at the cheapest border of bins; where the second half begins."""
    best_cost, best_axis, best_bin = _FAR, -1, 0
    box, number = np.empty((_BINS, 6)), np.empty(_BINS)
    for axis in range(3):
        low, scale = _bins(spans, order, start, end, axis)
        box[:], number[:] = _FAR, 0.0
        for i in range(start, end):
            slot = _bin(spans, order[i], axis, low, scale)
            number[slot] += 1
            for k in range(6):
                box[slot, k] = min(box[slot, k], spans[order[i], k])
        cost, slot = _cheapest(box, number)
        if scale > 0 and cost < best_cost:
            best_cost, best_axis, best_bin = cost, axis, slot
    if best_axis < 0:
        return (start + end) // 2
    low, scale = _bins(spans, order, start, end, best_axis)
    split = start
    for i in range(start, end):
        if _bin(spans, order[i], best_axis, low, scale) <= best_bin:
            order[i], order[split] = order[split], order[i]
            split += 1
    return split


@njit(cache=True, nogil=True)
def _bins(spans, order, start, end, axis):  # type: ignore[no-untyped-def]
    """Where the bins of an axis begin, and bins per length; 0 where all centres coincide."""
    low, high = _FAR, -_FAR
    for i in range(start, end):
        centre = spans[order[i], axis] - spans[order[i], 3 + axis]
        low, high = min(low, centre), max(high, centre)
    return low, (_BINS / (high - low) if high - low > 1e-9 else 0.0)


@njit(cache=True, nogil=True)
def _bin(spans, i, axis, low, scale):  # type: ignore[no-untyped-def]
    return min(int((spans[i, axis] - spans[i, 3 + axis] - low) * scale), _BINS - 1)


@njit(cache=True, nogil=True)
def _cheapest(box, number):  # type: ignore[no-untyped-def]
    """(cost, last bin of the first half) of the split whose halves have the least area times number of triangles."""
    costs = np.zeros(_BINS - 1)
    grown = np.empty(6)
    for backwards in range(2):
        grown[:] = _FAR
        inside = 0.0
        for step in range(_BINS - 1):
            slot = _BINS - 1 - step if backwards else step
            inside += number[slot]
            for k in range(6):
                grown[k] = min(grown[k], box[slot, k])
            x, y, z = -grown[3] - grown[0], -grown[4] - grown[1], -grown[5] - grown[2]
            costs[slot - 1 if backwards else slot] += inside * (x * y + y * z + z * x) if inside > 0 else _FAR
    return costs.min(), costs.argmin()
