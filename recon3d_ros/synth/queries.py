# SPDX-License-Identifier: Apache-2.0
"""Questions to a bounding volume hierarchy: the first triangle that a ray hits (by Moeller and Trumbore; both sides of a
triangle are alike), and the distance to the nearest one."""

from __future__ import annotations

import numpy as np
from numba import njit

_FAR = 1e30
#: Liberties of the compiler that the search for hits can bear: nothing in it is NaN or infinite.
_FINITE = {"nnan", "ninf", "nsz", "contract"}


@njit(cache=True, nogil=True, fastmath=_FINITE)
def _enters(boxes, node, column, shift, inv, t_max):  # type: ignore[no-untyped-def]
    """Ray parameter at which a ray enters the box in columns column..column+6, `_FAR` if it misses it before t_max."""
    x0, x1 = boxes[node, column] * inv[0] - shift[0], boxes[node, column + 3] * inv[0] - shift[0]
    y0, y1 = boxes[node, column + 1] * inv[1] - shift[1], boxes[node, column + 4] * inv[1] - shift[1]
    z0, z1 = boxes[node, column + 2] * inv[2] - shift[2], boxes[node, column + 5] * inv[2] - shift[2]
    near = max(max(min(x0, x1), min(y0, y1)), max(min(z0, z1), 0.0))
    far = min(min(max(x0, x1), max(y0, y1)), min(max(z0, z1), t_max))
    return near if near <= far + 1e-9 else _FAR


@njit(cache=True, nogil=True, fastmath=_FINITE)
def _triangle_hit(f, i, o, d):  # type: ignore[no-untyped-def]
    """(ray parameter or -1, barycentric weights of corners 1 and 2)."""
    e1x, e1y, e1z = f[i, 3] - f[i, 0], f[i, 4] - f[i, 1], f[i, 5] - f[i, 2]
    e2x, e2y, e2z = f[i, 6] - f[i, 0], f[i, 7] - f[i, 1], f[i, 8] - f[i, 2]
    px, py, pz = d[1] * e2z - d[2] * e2y, d[2] * e2x - d[0] * e2z, d[0] * e2y - d[1] * e2x
    det = e1x * px + e1y * py + e1z * pz
    if abs(det) < 1e-15:
        return -1.0, 0.0, 0.0
    inv = 1.0 / det
    sx, sy, sz = o[0] - f[i, 0], o[1] - f[i, 1], o[2] - f[i, 2]
    u = (sx * px + sy * py + sz * pz) * inv
    if u < -1e-9 or u > 1 + 1e-9:
        return -1.0, 0.0, 0.0
    qx, qy, qz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
    v = (d[0] * qx + d[1] * qy + d[2] * qz) * inv
    if v < -1e-9 or u + v > 1 + 1e-9:
        return -1.0, 0.0, 0.0
    return (e2x * qx + e2y * qy + e2z * qz) * inv, u, v


@njit(cache=True, nogil=True)
def _safe_inverse(x):  # type: ignore[no-untyped-def]
    return 1.0 / x if abs(x) > 1e-12 else (1e12 if x >= 0 else -1e12)


@njit(cache=True, nogil=True, fastmath=_FINITE)
def _leaf_hit(faces, start, count, o, d, best):  # type: ignore[no-untyped-def]
    """The nearer one of the hit `best` and those among the triangles of a leaf."""
    for i in range(start, start + count):
        t, u, v = _triangle_hit(faces, np.uint64(i), o, d)
        if 1e-6 < t < best[0]:
            best = (t, i, u, v)
    return best


@njit(cache=True, nogil=True, fastmath=_FINITE)
def first_hit(boxes, children, faces, o, d, stack):  # type: ignore[no-untyped-def]
    """First hit of the ray o + t d, t > 0: (t, row of faces or -1, weights of corners 1 and 2).
    o, d: tuples of three floats; stack: float64 [64,2], scratch. Unsigned indices spare the test for negative ones."""
    inv = (_safe_inverse(d[0]), _safe_inverse(d[1]), _safe_inverse(d[2]))
    shift = (o[0] * inv[0], o[1] * inv[1], o[2] * inv[2])
    best = (_FAR, np.int64(-1), 0.0, 0.0)
    stack[0, 0], stack[0, 1], top = 0.0, 0.0, np.uint64(1)
    while top > 0:
        top -= np.uint64(1)
        if stack[top, 1] >= best[0]:
            continue
        node, descend = np.uint64(stack[top, 0]), True
        while descend:
            descend = False
            a, b, size_a, size_b = children[node, 0], children[node, 1], children[node, 2], children[node, 3]
            t_a = _enters(boxes, node, 0, shift, inv, best[0])
            t_b = _enters(boxes, node, 6, shift, inv, best[0])
            if t_b < t_a:
                a, b, size_a, size_b, t_a, t_b = b, a, size_b, size_a, t_b, t_a
            if t_a < best[0] and size_a > 0:
                best = _leaf_hit(faces, a, size_a, o, d, best)
            elif t_a < best[0]:
                node, descend = np.uint64(a), True
            if t_b < best[0] and size_b > 0:
                best = _leaf_hit(faces, b, size_b, o, d, best)
            elif t_b < best[0] and descend:
                stack[top, 0], stack[top, 1] = b, t_b
                top += np.uint64(1)
            elif t_b < best[0]:
                node, descend = np.uint64(b), True
    return best


@njit(cache=True, nogil=True)
def distances(boxes, children, faces, points):  # type: ignore[no-untyped-def]
    """Distance [N] of points [N,3] to the nearest triangle."""
    out = np.empty(len(points))
    stack = np.empty((64, 2))
    for k in range(len(points)):
        out[k] = np.sqrt(
            _nearest_squared(boxes, children, faces, (points[k, 0], points[k, 1], points[k, 2]), stack)
        )
    return out


@njit(cache=True, nogil=True)
def _nearest_squared(boxes, children, faces, p, stack):  # type: ignore[no-untyped-def]
    best = _FAR
    stack[0, 0], stack[0, 1], top = 0, 0.0, 1
    while top > 0:
        top -= 1
        if stack[top, 1] >= best:
            continue
        node = int(stack[top, 0])
        gaps = (_box_squared(boxes, node, 0, p), _box_squared(boxes, node, 6, p))
        near = 0 if gaps[0] <= gaps[1] else 1
        for side in (1 - near, near):
            child, count = children[node, side], children[node, 2 + side]
            if count == 0:
                stack[top, 0], stack[top, 1] = child, gaps[side]
                top += 1
            elif gaps[side] < best:
                for i in range(child, child + count):
                    best = min(best, _triangle_squared(faces, i, p))
    return best


@njit(cache=True, nogil=True)
def _box_squared(boxes, node, column, p):  # type: ignore[no-untyped-def]
    """Squared distance of a point and the box in columns column..column+6."""
    total = 0.0
    for k in range(3):
        gap = max(max(boxes[node, column + k] - p[k], p[k] - boxes[node, column + 3 + k]), 0.0)
        total += gap * gap
    return total


@njit(cache=True, nogil=True)
def _dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True)
def _triangle_squared(f, i, p):  # type: ignore[no-untyped-def]
    """Squared distance of point and triangle by the region the point projects to (Ericson, Real-Time Collision
    Detection, 5.1.5)."""
    ab = (f[i, 3] - f[i, 0], f[i, 4] - f[i, 1], f[i, 5] - f[i, 2])
    ac = (f[i, 6] - f[i, 0], f[i, 7] - f[i, 1], f[i, 8] - f[i, 2])
    ap = (p[0] - f[i, 0], p[1] - f[i, 1], p[2] - f[i, 2])
    bp = (p[0] - f[i, 3], p[1] - f[i, 4], p[2] - f[i, 5])
    cp = (p[0] - f[i, 6], p[1] - f[i, 7], p[2] - f[i, 8])
    d1, d2, d3, d4, d5, d6 = (
        _dot(ab, ap),
        _dot(ac, ap),
        _dot(ab, bp),
        _dot(ac, bp),
        _dot(ab, cp),
        _dot(ac, cp),
    )
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0 and d2 <= 0:
        v, w = 0.0, 0.0
    elif d3 >= 0 and d4 <= d3:
        v, w = 1.0, 0.0
    elif d6 >= 0 and d5 <= d6:
        v, w = 0.0, 1.0
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        v, w = d1 / (d1 - d3), 0.0
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        v, w = 0.0, d2 / (d2 - d6)
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        w = (d4 - d3) / (d4 - d3 + d5 - d6)
        v = 1 - w
    else:
        v, w = vb / (va + vb + vc), vc / (va + vb + vc)
    r = (ap[0] - v * ab[0] - w * ac[0], ap[1] - v * ab[1] - w * ac[1], ap[2] - v * ab[2] - w * ac[2])
    return _dot(r, r)
