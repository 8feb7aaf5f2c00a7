# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: each kind of material is a function of surface coordinates u, v in metres and the footprint w of
a pixel, and gives a colour (0..1, gamma encoded). All have detail at every scale, so that a tracker finds corners."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit

from recon3d_ros.synth.noise import fbm, hash01, inside, mix, pulse, smooth, times, value_noise

Colour = tuple[float, float, float]


class Kind(IntEnum):
    """The pattern of a material."""

    PLAIN = 0
    FACADE = 1
    OFFICE = 2
    BRICK = 3
    TILES = 4
    GRASS = 5
    ASPHALT = 6
    STRIPES = 7
    PLANKS = 8
    FABRIC = 9
    PICTURE = 10
    BOOKS = 11
    FIELDS = 12


@dataclass(frozen=True)
class Material:
    """kind: the pattern. colour, accent: its two colours. cell: size in metres of what repeats (window, stone, board).
    seed: makes two faces of the same kind differ."""

    kind: Kind
    colour: Colour
    accent: Colour = (0.9, 0.9, 0.88)
    cell: tuple[float, float] = (1.0, 1.0)
    seed: int = 0

    def row(self, width: float, height: float) -> tuple[float, ...]:
        """The material of a face of that size as a row of the table that `albedo` reads."""
        return (*self.colour, *self.accent, float(self.kind), float(self.seed), *self.cell, width, height)


@njit(cache=True, nogil=True)
def albedo(table, m, u, v, w):  # type: ignore[no-untyped-def]
    """Colour of the material in row m of the table at (u, v), averaged over a footprint of w metres."""
    c = (table[m, 0], table[m, 1], table[m, 2])
    a = (table[m, 3], table[m, 4], table[m, 5])
    kind, seed, cu, cv = int(table[m, 6]), int(table[m, 7]), table[m, 8], table[m, 9]
    width, height = table[m, 10], table[m, 11]
    if kind == Kind.FACADE:
        return _facade(c, a, cu, cv, seed, u, v, w)
    if kind == Kind.OFFICE:
        return _office(c, a, cu, cv, seed, u, v, w)
    if kind == Kind.BRICK:
        return _bricks(c, a, cu, cv, seed, u, v, w)
    if kind == Kind.TILES:
        return _tiles(c, cu, cv, seed, u, v, w)
    if kind == Kind.GRASS:
        return _grass(c, a, seed, u, v, w)
    if kind == Kind.ASPHALT:
        return times(c, 1 + 0.26 * fbm(u, v, 6.0, 0.84, w, seed))
    if kind == Kind.STRIPES:
        return times(mix(c, a, pulse(u, cu, 0.5, w)), 1 + 0.2 * fbm(u, v, 2.0, 0.84, w, seed))
    if kind == Kind.PLANKS:
        return _planks(c, cu, cv, seed, u, v, w)
    if kind == Kind.FABRIC:
        return _fabric(c, a, cu, cv, seed, u, v, w)
    if kind == Kind.PICTURE:
        return _picture(c, a, seed, u / width, v / height, w / min(width, height))
    if kind == Kind.BOOKS:
        return _books(cu, height, seed, u, v, w)
    if kind == Kind.FIELDS:
        return _fields(c, a, cu, seed, u, v, w)
    return times(c, 1 + 0.22 * fbm(u, v, cu, 0.82, w, seed))


@njit(cache=True, nogil=True, inline="always")
def _per_cell(i, j, cell, seed, w):  # type: ignore[no-untyped-def]
    """Random number in [-1, 1] for a cell, fading to 0 where cells are as small as a pixel."""
    return (2 * hash01(i, j, seed) - 1) * min(max(cell / w - 1.0, 0.0), 1.0)


@njit(cache=True, nogil=True)
def _wall(c, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Weathered plaster in courses."""
    return times(c, 1 + 0.2 * fbm(u, v, 3.0, 0.84, w, seed) - 0.12 * pulse(v, 0.4, 0.15, w))


@njit(cache=True, nogil=True)
def _glass(seed, i, j, x, y, w):  # type: ignore[no-untyped-def]
    """A window pane (x, y in 0..1): reflected sky, sometimes a blind or a curtain behind it."""
    h = hash01(i, j, seed + 7)
    pane = mix((0.10, 0.13, 0.17), (0.45, 0.58, 0.70), 0.25 * h + 0.5 * y * y)
    if h > 0.6:
        blind = mix((0.85, 0.82, 0.74), (0.62, 0.50, 0.40), hash01(i, j, seed + 9))
        pane = mix(pane, blind, 0.85 * inside(y, 1.0 - hash01(j, i, seed + 8), 1.1, w))
    return times(pane, 1 + 0.12 * value_noise(9 * x, 9 * y, seed + i))


@njit(cache=True, nogil=True)
def _facade(c, a, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """A wall with one window per cell, frames, sills, a belt course at each floor and shop windows at the ground."""
    i, j = np.floor(u / cu), np.floor(v / cv)
    x, y = u / cu - i, v / cv - j
    wx, wy = w / cu, w / cv
    left, right, low, high = (0.27, 0.73, 0.28, 0.82) if j > 0 else (0.14, 0.86, 0.06, 0.74)
    wall = mix(_wall(c, seed, u, v, w), times(a, 0.85), inside(y, 0.93, 1.0, wy))
    frame = inside(x, left - 0.05, right + 0.05, wx) * inside(y, low - 0.06, high + 0.04, wy)
    glass = inside(x, left, right, wx) * inside(y, low, high, wy)
    bars = inside(x, 0.485, 0.515, wx) + inside(y, low + 0.6 * (high - low), low + 0.66 * (high - low), wy)
    pane = _glass(seed, i, j, (x - left) / (right - left), (y - low) / (high - low), wy)
    return mix(mix(wall, a, frame), pane, glass * (1 - 0.9 * min(bars, 1.0)))


@njit(cache=True, nogil=True)
def _office(c, a, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Ribbon windows between concrete bands."""
    i, j = np.floor(u / cu), np.floor(v / cv)
    x, y = u / cu - i, v / cv - j
    band = times(c, 1 + 0.2 * fbm(u, v, 3.0, 0.84, w, seed))
    glass = inside(y, 0.36, 0.92, w / cv) * inside(x, 0.05, 0.95, w / cu)
    return mix(
        mix(band, a, inside(y, 0.3, 0.96, w / cv)), _glass(seed, i, j, x, (y - 0.36) / 0.56, w / cv), glass
    )


@njit(cache=True, nogil=True)
def _bricks(c, a, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Stones in staggered courses with joints of the accent colour."""
    j = np.floor(v / cv)
    u = u + 0.5 * cu * (j % 2)
    i = np.floor(u / cu)
    joint = max(pulse(u, cu, 0.08, w), pulse(v, cv, 0.08 * cu / cv, w))
    stone = times(c, 1 + 0.22 * _per_cell(i, j, min(cu, cv), seed, w) + 0.18 * fbm(u, v, 3.0, 0.84, w, seed))
    return mix(stone, a, joint)


@njit(cache=True, nogil=True)
def _tiles(c, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Roof tiles: each row darkens towards its upper end, under the row above."""
    j = np.floor(v / cv)
    u = u + 0.5 * cu * (j % 2)
    tone = 0.15 * _per_cell(np.floor(u / cu), j, min(cu, cv), seed, w) + 0.18 * fbm(u, v, 4.0, 0.84, w, seed)
    return times(c, (1 + tone) * (1 - 0.3 * pulse(v, cv, 0.25, w)) * (1 - 0.15 * pulse(u, cu, 0.15, w)))


@njit(cache=True, nogil=True)
def _grass(c, a, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Patches of two colours; the second is that of dry or bare places."""
    bare = smooth(0.5 + 0.9 * fbm(u, v, 14.0, 0.6, w, seed))
    return times(mix(c, a, 0.5 * bare), 1 + 0.28 * fbm(u, v, 3.0, 0.87, w, seed + 50))


@njit(cache=True, nogil=True)
def _planks(c, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Boards of length cu and width cv with grain along them."""
    j = np.floor(v / cv)
    u = u + cu * hash01(j, 3, seed)
    i = np.floor(u / cu)
    grain = 0.18 * fbm(0.25 * u, v, 0.4, 0.82, w, seed + 17 * (i + 31 * j))
    board = times(c, 1 + 0.18 * _per_cell(i, j, cv, seed, w) + grain)
    return times(board, 1 - 0.55 * max(pulse(v, cv, 0.05, w), pulse(u, cu, 0.05 * cv / cu, w)))


@njit(cache=True, nogil=True)
def _fabric(c, a, cu, cv, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Woven lozenges of two colours."""
    p, q = u / cu + v / cv, u / cu - v / cv
    woven = pulse(p, 1.0, 0.5, w / cu) * pulse(q, 1.0, 0.5, w / cv)
    return times(mix(c, a, woven), 1 + 0.14 * fbm(u, v, 0.5 * cu, 0.86, w, seed))


@njit(cache=True, nogil=True)
def _picture(c, a, seed, x, y, w):  # type: ignore[no-untyped-def]
    """An abstract painting in a white mount, x and y in 0..1."""
    paint = times(mix(c, a, y), 1 + 0.35 * fbm(x, y, 0.5, 0.7, w, seed))
    for k in range(6):
        dx, dy = x - hash01(k, 0, seed), y - hash01(k, 1, seed)
        radius = 0.08 + 0.2 * hash01(k, 2, seed)
        spot = (hash01(k, 3, seed), hash01(k, 4, seed), hash01(k, 5, seed))
        edge = (radius - max(abs(dx), abs(dy))) if k % 2 else (radius - np.sqrt(dx * dx + dy * dy))
        paint = mix(paint, spot, min(max(0.5 + edge / w, 0.0), 1.0))
    return mix((0.93, 0.92, 0.88), paint, inside(x, 0.09, 0.91, w) * inside(y, 0.09, 0.91, w))


@njit(cache=True, nogil=True)
def _books(cu, height, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Spines of books of differing height and colour, a title on some, in the dark of a shelf."""
    i = np.floor(u / cu)
    spine = (0.2 + 0.7 * hash01(i, 0, seed), 0.2 + 0.5 * hash01(i, 1, seed), 0.2 + 0.5 * hash01(i, 2, seed))
    title = 0.6 + 0.2 * hash01(i, 4, seed)
    spine = mix(spine, (0.92, 0.88, 0.7), 0.9 * inside(v / height, title - 0.1, title - 0.03, w / height))
    top = 0.7 + 0.25 * hash01(i, 3, seed)
    here = inside(v / height, 0.0, top, w / height) * (1 - pulse(u, cu, 0.12, w))
    return times(mix((0.12, 0.09, 0.07), spine, here), 1 + 0.15 * fbm(u, v, 0.1, 0.7, w, seed))


@njit(cache=True, nogil=True)
def _nearest_plot(u, v, cell, seed):  # type: ignore[no-untyped-def]
    """Voronoi cell of (u, v): number of its seed point, and how much farther the second nearest one is."""
    i0, j0 = np.int64(np.floor(u / cell)), np.int64(np.floor(v / cell))
    best, second, plot = 1e30, 1e30, 0.0
    for i in range(i0 - 1, i0 + 2):
        for j in range(j0 - 1, j0 + 2):
            du = u - (i + 0.15 + 0.7 * hash01(i, j, seed)) * cell
            dv = v - (j + 0.15 + 0.7 * hash01(i, j, seed + 1)) * cell
            d = np.sqrt(du * du + dv * dv)
            if d < best:
                best, second, plot = d, best, hash01(i, j, seed + 2)
            elif d < second:
                second = d
    return plot, second - best


@njit(cache=True, nogil=True)
def _fields(c, a, cell, seed, u, v, w):  # type: ignore[no-untyped-def]
    """Fields of differing crops sown in rows, with hedges between them."""
    plot, gap = _nearest_plot(u + 6 * value_noise(u / 30, v / 30, seed), v, cell, seed)
    crop = mix(c, a, plot) if plot < 0.75 else mix((0.47, 0.36, 0.25), (0.62, 0.52, 0.36), 4 * plot - 3)
    angle = np.floor(plot * 8) * np.pi / 8
    across = u * np.cos(angle) + v * np.sin(angle)
    rows = (0.1 + 0.2 * plot) * (pulse(across, 1.5 + 2 * plot, 0.5, w) - 0.5)
    hedge = (0.19, 0.30, 0.13)
    crop = mix(crop, hedge, smooth(2.2 - gap))
    return times(crop, 1 + rows + 0.26 * fbm(u, v, 12.0, 0.86, w, seed))
