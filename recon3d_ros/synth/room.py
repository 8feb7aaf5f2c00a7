# SPDX-License-Identifier: Apache-2.0
"""Scene `room`: a living room with furniture, lit by a lamp; closed on all sides, so that every pixel has a depth."""

from __future__ import annotations

import numpy as np

from recon3d_ros.synth.materials import Kind, Material
from recon3d_ros.synth.scene import Light, Scene, Site
from recon3d_ros.synth.shapes import Model, Point

X, Y, Z = 3.6, 2.8, 2.7
OAK = Material(Kind.PLANKS, (0.66, 0.48, 0.30), cell=(1.4, 0.14))
WALNUT = Material(Kind.PLANKS, (0.42, 0.28, 0.18), cell=(1.2, 0.10))
WHITE = Material(Kind.PLAIN, (0.88, 0.87, 0.84), cell=(0.6, 1.0))


def room(seed: int) -> Scene:
    """The scene; the seed changes textures, pictures and books."""
    rng = np.random.default_rng(seed)
    model = Model()
    _shell(model, seed)
    _table(model, rng)
    _sofa(model)
    _shelf(model, rng)
    _sideboard(model, rng)
    _pictures(model, rng)
    site = Site(
        target=(0.0, 0.0, 0.8),
        orbit=(1.9, 1.7),
        survey=(2.2, 1.5, 2.2, 0.9),
        circuit=(2.2, 1.5, 1.6),
        hover=(-1.6, -1.2, 1.6),
        speed=0.5,
        sway=0.02,
    )
    lamp = Light((0.5, 0.3, 2.45, 1.0), strength=0.65, ambient=0.62, haze=1e6)
    return Scene.of("room", model, lamp, site)


def _shell(model: Model, seed: int) -> None:
    """Floor, ceiling, papered walls with skirting, a door and two windows, a rug."""
    corners = np.array([(-X, -Y, 0), (X, -Y, 0), (X, Y, 0), (-X, Y, 0)])
    model.polygon(corners, Material(Kind.PLANKS, (0.70, 0.52, 0.34), cell=(1.1, 0.13), seed=seed))
    model.polygon(
        corners[::-1] + (0, 0, Z), Material(Kind.PLANKS, (0.86, 0.84, 0.80), cell=(2.4, 0.3), seed=seed)
    )
    papers = ((0.70, 0.74, 0.66), (0.78, 0.70, 0.58), (0.64, 0.70, 0.76), (0.80, 0.74, 0.66))
    for k, tone in enumerate(papers):
        a, b = corners[k], corners[(k + 1) % 4]
        shade = (0.78 * tone[0], 0.80 * tone[1], 0.78 * tone[2])
        paper = Material(Kind.FABRIC, tone, shade, (0.30, 0.42), seed + k)
        model.polygon(np.array([b, a, a + (0, 0, Z), b + (0, 0, Z)]), paper)
    for s in (-1, 1):
        model.box((0, s * (Y - 0.01), 0), (2 * X, 0.02, 0.1), WHITE)
        model.box((s * (X - 0.01), 0, 0), (0.02, 2 * Y, 0.1), WHITE)
    rug = Material(Kind.FABRIC, (0.62, 0.24, 0.20), (0.86, 0.74, 0.52), (0.4, 0.4))
    model.rectangle((-1.7, -1.3), (1.7, 1.3), 0.012, rug)
    _frame(
        model, (-X, 1.5, 1.0), (0.9, 2.0), WALNUT, Material(Kind.PLANKS, (0.60, 0.40, 0.26), cell=(2.0, 0.22))
    )
    for x in (-1.6, 1.4):
        pane = Material(Kind.OFFICE, (0.88, 0.88, 0.86), (0.92, 0.92, 0.9), (0.7, 0.75), seed + 5)
        _frame(model, (x, -Y, 1.55), (1.4, 1.5), WHITE, pane)


def _frame(model: Model, centre: Point, size: tuple[float, float], frame: Material, inside: Material) -> None:
    """A framed panel on the wall that `centre` lies on: a box of 4 cm, and its inside 1 cm before it."""
    x, y, z = centre
    width, height = size
    if abs(x) >= X:
        s = np.sign(x)
        model.box((x - s * 0.02, y, z - height / 2), (0.04, width, height), frame, under=True)
        a, b = s * (width / 2 - 0.06), height / 2 - 0.06
        x -= s * 0.05
        model.polygon(
            np.array([(x, y + a, z - b), (x, y - a, z - b), (x, y - a, z + b), (x, y + a, z + b)]), inside
        )
    else:
        s = np.sign(y)
        model.box((x, y - s * 0.02, z - height / 2), (width, 0.04, height), frame, under=True)
        a, b = s * (width / 2 - 0.06), height / 2 - 0.06
        y -= s * 0.05
        model.polygon(
            np.array([(x - a, y, z - b), (x + a, y, z - b), (x + a, y, z + b), (x - a, y, z + b)]), inside
        )


def _table(model: Model, rng: np.random.Generator) -> None:
    """A table with things on it, and four chairs."""
    model.box((0, 0, 0.70), (1.5, 0.85, 0.05), OAK, under=True)
    for sx in (-1, 1):
        for sy in (-1, 1):
            model.box((sx * 0.66, sy * 0.34, 0), (0.08, 0.08, 0.70), OAK)
            _chair(model, sx * 0.4, sy * 0.75, sy)
    books, box = (0.30, 0.22, 0.06), (0.34, 0.26, 0.24)
    for x, y, z, size, yaw in (
        (-0.5, 0.1, 0.75, books, 0.3),
        (-0.48, 0.12, 0.81, books, 0.5),
        (0.45, -0.15, 0.75, box, -0.3),
    ):
        model.box((x, y, z), size, _painted(rng), yaw=yaw)
    vase = Material(Kind.STRIPES, (0.2, 0.35, 0.6), (0.9, 0.88, 0.8), (0.07, 1.0))
    model.blob((0.02, 0.08, 0.86), (0.09, 0.09, 0.12), vase, rng)
    leaves = Material(Kind.GRASS, (0.25, 0.46, 0.18), (0.75, 0.4, 0.3))
    model.blob((0.02, 0.08, 1.06), (0.15, 0.15, 0.13), leaves, rng)


def _painted(rng: np.random.Generator) -> Material:
    """A picture in random colours."""
    a, b = rng.uniform(0.15, 0.9, (2, 3)).tolist()
    return Material(Kind.PICTURE, (a[0], a[1], a[2]), (b[0], b[1], b[2]), seed=int(rng.integers(1 << 20)))


def _chair(model: Model, x: float, y: float, side: int) -> None:
    seat = Material(Kind.FABRIC, (0.24, 0.36, 0.44), (0.66, 0.62, 0.5), (0.09, 0.09))
    model.box((x, y, 0.44), (0.42, 0.42, 0.05), WALNUT, seat, under=True)
    model.box((x, y + side * 0.19, 0.49), (0.42, 0.04, 0.46), WALNUT)
    for sx in (-1, 1):
        for sy in (-1, 1):
            model.box((x + sx * 0.18, y + sy * 0.18, 0), (0.04, 0.04, 0.44), WALNUT)


def _sofa(model: Model) -> None:
    """A sofa with cushions at the wall with the windows, and a low table before it."""
    cloth = Material(Kind.FABRIC, (0.30, 0.40, 0.30), (0.46, 0.54, 0.42), (0.12, 0.16))
    model.box((0, -2.3, 0), (2.1, 0.85, 0.42), cloth)
    model.box((0, -2.62, 0.42), (2.1, 0.22, 0.42), cloth)
    for s in (-1, 1):
        model.box((s * 1.15, -2.3, 0), (0.22, 0.85, 0.6), cloth)
        cushion = Material(Kind.FABRIC, (0.74, 0.42, 0.20), (0.88, 0.80, 0.6), (0.11, 0.11), seed=s + 1)
        model.box((s * 0.75, -2.42, 0.42), (0.42, 0.16, 0.38), cushion, yaw=0.2 * s)


def _shelf(model: Model, rng: np.random.Generator) -> None:
    """A bookcase: boards, and rows of books a little behind their edges."""
    x = X - 0.16
    model.box((X - 0.01, -0.4, 0), (0.02, 2.4, 2.1), WALNUT)
    for s in (-1, 1):
        model.box((x, -0.4 + s * 1.2, 0), (0.32, 0.04, 2.1), WALNUT)
    for k in range(6):
        z = 0.05 + 0.4 * k
        model.box((x, -0.4, z), (0.32, 2.36, 0.03), WALNUT, under=True)
        if k < 5:
            books = Material(Kind.BOOKS, (0.5, 0.4, 0.3), cell=(0.045, 1.0), seed=int(rng.integers(1 << 20)))
            length = float(rng.uniform(1.3, 2.2))
            y = -0.4 + (2.3 - length) / 2 * rng.choice((-1, 1))
            model.box((x + 0.04, y, z + 0.03), (0.22, length, 0.3), books, WALNUT)


def _sideboard(model: Model, rng: np.random.Generator) -> None:
    """A sideboard with a screen on it, a plant, boxes in a corner."""
    doors = Material(Kind.PLANKS, (0.58, 0.42, 0.28), cell=(0.5, 0.29))
    model.box((0.2, 2.55, 0.1), (2.0, 0.45, 0.6), doors, OAK, under=True)
    screen = Material(Kind.PICTURE, (0.12, 0.2, 0.35), (0.5, 0.35, 0.3), seed=77)
    model.box((0.2, 2.55, 0.74), (1.25, 0.06, 0.72), screen)
    pot = Material(Kind.BRICK, (0.66, 0.38, 0.26), (0.5, 0.3, 0.2), (0.12, 0.06))
    model.box((-3.1, -2.3, 0), (0.4, 0.4, 0.42), pot)
    leaves = Material(Kind.GRASS, (0.22, 0.44, 0.17), (0.4, 0.5, 0.2))
    for x, y, z in ((-3.1, -2.3, 0.75), (-2.95, -2.2, 1.1), (-3.2, -2.35, 1.3)):
        model.blob((x, y, z), (0.28, 0.28, 0.3), leaves, rng)
    card = Material(Kind.PLANKS, (0.68, 0.52, 0.34), cell=(0.5, 0.25))
    for x, y, z, edge in ((3.1, 2.2, 0, 0.6), (3.0, 2.25, 0.6, 0.42), (2.5, 2.4, 0, 0.45)):
        model.box((x, y, z), (edge, edge, edge), card, yaw=0.2 * edge)


def _pictures(model: Model, rng: np.random.Generator) -> None:
    """Framed pictures on the walls that have no furniture up to there."""
    west = ((-X, -1.4, 1.6, 0.9, 0.7), (-X, 0.1, 1.65, 0.7, 0.9))
    north = (
        (-2.2, Y, 1.55, 1.0, 0.8),
        (-1.1, Y, 1.9, 0.5, 0.6),
        (1.7, Y, 1.6, 0.8, 1.0),
        (2.9, Y, 1.7, 0.6, 0.6),
    )
    for x, y, z, width, height in (*west, *north, (X, 1.7, 1.7, 1.0, 0.8), (-0.1, -Y, 1.7, 0.7, 0.9)):
        _frame(model, (x, y, z), (width, height), WALNUT, _painted(rng))
