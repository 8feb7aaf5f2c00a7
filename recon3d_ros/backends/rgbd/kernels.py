# SPDX-License-Identifier: Apache-2.0
"""Loops over the pixels of depth images: float32 [H,W] in metres along z, NaN = none. A camera is fx, fy, cx, cy."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Share of the depth by which neighbours on one surface may differ.
JUMP = 0.03


@njit(cache=True, nogil=True)
def shrink(depth, factor, jump):  # type: ignore[no-untyped-def]
    """Depth at 1/factor of the size: the mean of the measurements of each factor x factor block that lie within the share
    `jump` of the nearest one, so that foreground and background are not mixed."""
    height, width = depth.shape[0] // factor, depth.shape[1] // factor
    out = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            nearest = np.inf
            for i in range(factor):
                for j in range(factor):
                    z = depth[y * factor + i, x * factor + j]
                    if z < nearest:
                        nearest = z
            total, count = 0.0, 0
            for i in range(factor):
                for j in range(factor):
                    z = depth[y * factor + i, x * factor + j]
                    if z <= nearest * (1 + jump):
                        total += z
                        count += 1
            out[y, x] = total / count if count else np.nan
    return out


@njit(cache=True, nogil=True)
def fit_planes(depth, fx, fy, cx, cy, radius, jump):  # type: ignore[no-untyped-def]
    """Smoothed depth float32 [H,W] and normals float32 [H,W,3] towards the camera, by a plane through each pixel's window.

    A plane is linear in inverse depth over the image, so each fit is one of three unknowns on a regular grid. Pixels of
    the window whose depth differs by more than the share `jump` are left out; fits on too few of them, or seen at a
    grazing angle, are NaN.
    """
    height, width = depth.shape
    smooth = np.full((height, width), np.nan, np.float32)
    normals = np.full((height, width, 3), np.nan, np.float32)
    enough = (2 * radius + 1) * (radius + 1)
    for v in range(radius, height - radius):
        for u in range(radius, width - radius):
            z0 = depth[v, u]
            if not z0 > 0:
                continue
            n = sx = sy = sxx = sxy = syy = sw = sxw = syw = 0.0
            for j in range(-radius, radius + 1):
                for i in range(-radius, radius + 1):
                    z = depth[v + j, u + i]
                    if abs(z - z0) <= jump * z0:
                        w = z0 / z - 1.0
                        n += 1
                        sx += i
                        sy += j
                        sxx += i * i
                        sxy += i * j
                        syy += j * j
                        sw += w
                        sxw += i * w
                        syw += j * w
            if n < enough:
                continue
            xx, xy, yy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
            xw, yw = sxw - sx * sw / n, syw - sy * sw / n
            det = xx * yy - xy * xy
            if det < 1e-3 * n * n:
                continue
            a, b = (yy * xw - xy * yw) / det, (xx * yw - xy * xw) / det
            c = 1.0 + (sw - a * sx - b * sy) / n
            # Gradient of inverse depth by the normalised coordinates is the plane's normal over its distance.
            nx, ny = a * fx, b * fy
            x, y = (u - cx) / fx, (v - cy) / fy
            nz = c - x * nx - y * ny
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            # c is the cosine between normal and ray, times their lengths.
            if c < 0.15 * length * np.sqrt(x * x + y * y + 1.0):
                continue
            smooth[v, u] = z0 / c
            normals[v, u, 0] = -nx / length
            normals[v, u, 1] = -ny / length
            normals[v, u, 2] = -nz / length
    return smooth, normals


@njit(cache=True, nogil=True)
def points_of(depth, fx, fy, cx, cy, stride):  # type: ignore[no-untyped-def]
    """Points float32 [N,3] in the camera's frame of every stride-th row and column that has depth."""
    height, width = depth.shape
    out = np.empty((((height - 1) // stride + 1) * ((width - 1) // stride + 1), 3), np.float32)
    n = 0
    for v in range(0, height, stride):
        for u in range(0, width, stride):
            z = depth[v, u]
            if z > 0:
                out[n, 0] = (u - cx) / fx * z
                out[n, 1] = (v - cy) / fy * z
                out[n, 2] = z
                n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def point_to_plane(points, T, depth, normals, fx, fy, cx, cy, reach, H, g):  # type: ignore[no-untyped-def]
    """Add the normal equations of points [N,3] against the surface of a reference view, both of them in sensor noise units.

    T: reference <- points' camera. A point is matched with the pixel it falls on, if no farther from its plane than
    `reach` times the noise of the depth (that of structured light: Khoshelham and Elberink, Sensors 2012). H [6,6] and
    g [6] take the sums for a twist (translation, rotation) applied in the points' camera. Returns the numbers of points in
    view and of matched ones.
    """
    height, width = depth.shape
    seen, matched = 0, 0
    J = np.empty(6)
    for i in range(len(points)):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        x = T[0, 0] * px + T[0, 1] * py + T[0, 2] * pz + T[0, 3]
        y = T[1, 0] * px + T[1, 1] * py + T[1, 2] * pz + T[1, 3]
        z = T[2, 0] * px + T[2, 1] * py + T[2, 2] * pz + T[2, 3]
        if z < 0.05:
            continue
        u, v = int(np.floor(fx * x / z + cx + 0.5)), int(np.floor(fy * y / z + cy + 0.5))
        if u < 0 or v < 0 or u >= width or v >= height:
            continue
        z0 = depth[v, u]
        if not z0 > 0:
            continue
        seen += 1
        nx, ny, nz = normals[v, u, 0], normals[v, u, 1], normals[v, u, 2]
        dx, dy, dz = (u - cx) / fx * z0 - x, (v - cy) / fy * z0 - y, z0 - z
        noise = 0.001 + 0.0014 * z * z
        r = (nx * dx + ny * dy + nz * dz) / noise
        if abs(r) > reach or dx * dx + dy * dy + dz * dz > (4 * reach * noise) ** 2:
            continue
        # Tukey's weight: what does not fit at all has no say.
        share = 1.0 - (r / reach) ** 2
        weight = share * share
        matched += 1
        mx = (T[0, 0] * nx + T[1, 0] * ny + T[2, 0] * nz) / noise
        my = (T[0, 1] * nx + T[1, 1] * ny + T[2, 1] * nz) / noise
        mz = (T[0, 2] * nx + T[1, 2] * ny + T[2, 2] * nz) / noise
        J[0], J[1], J[2] = mx, my, mz
        J[3], J[4], J[5] = py * mz - pz * my, pz * mx - px * mz, px * my - py * mx
        for a in range(6):
            g[a] += weight * J[a] * r
            for b in range(a, 6):
                H[a, b] += weight * J[a] * J[b]
    return seen, matched


@njit(cache=True, nogil=True)
def reprojection(points, observed, T, sigma, H, g):  # type: ignore[no-untyped-def]
    """Add the normal equations of map points [N,3] seen at normalised coordinates `observed` [N,2].

    T: camera <- map. sigma: noise of the observations, normalised units. H [6,6], g [6] as in `point_to_plane`. Weights
    are Tukey's. Returns the number of points within 3 sigma.
    """
    near = 0
    J = np.empty((2, 6))
    for i in range(len(points)):
        X, Y, Z = points[i, 0], points[i, 1], points[i, 2]
        x = T[0, 0] * X + T[0, 1] * Y + T[0, 2] * Z + T[0, 3]
        y = T[1, 0] * X + T[1, 1] * Y + T[1, 2] * Z + T[1, 3]
        z = T[2, 0] * X + T[2, 1] * Y + T[2, 2] * Z + T[2, 3]
        if z < 0.05:
            continue
        a, b = x / z, y / z
        rx, ry = (observed[i, 0] - a) / sigma, (observed[i, 1] - b) / sigma
        square = rx * rx + ry * ry
        if square < 9.0:
            near += 1
        if square > 36.0:
            continue
        weight = (1.0 - square / 36.0) ** 2
        # The twist moves the camera, hence the point the other way.
        J[0, 0], J[0, 1], J[0, 2] = -1.0 / z, 0.0, a / z
        J[1, 0], J[1, 1], J[1, 2] = 0.0, -1.0 / z, b / z
        J[0, 3], J[0, 4], J[0, 5] = a * b, -(1.0 + a * a), b
        J[1, 3], J[1, 4], J[1, 5] = 1.0 + b * b, -a * b, -a
        for c in range(6):
            g[c] += weight * (J[0, c] * rx + J[1, c] * ry) / sigma
            for d in range(c, 6):
                H[c, d] += weight * (J[0, c] * J[0, d] + J[1, c] * J[1, d]) / (sigma * sigma)
    return near
