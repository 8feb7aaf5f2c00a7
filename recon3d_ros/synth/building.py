# SPDX-License-Identifier: Apache-2.0
"""Scene `building`: a corner house of three parts on a street block, with what stands around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon3d_ros.synth.materials import Colour, Kind, Material
from recon3d_ros.synth.scene import Light, Scene, Site
from recon3d_ros.synth.shapes import Model, footprint

ASPHALT = Material(Kind.ASPHALT, (0.36, 0.37, 0.39))
PAVING = Material(Kind.BRICK, (0.66, 0.64, 0.60), (0.48, 0.46, 0.43), (1.0, 1.0))
LAWN = Material(Kind.GRASS, (0.33, 0.47, 0.19), (0.58, 0.53, 0.31))
GRAVEL = Material(Kind.BRICK, (0.52, 0.51, 0.50), (0.36, 0.35, 0.35), (2.4, 1.2))
CONCRETE = Material(Kind.PLAIN, (0.68, 0.67, 0.64), cell=(2.0, 1.0))
METAL = Material(Kind.PLANKS, (0.60, 0.63, 0.66), cell=(3.0, 0.25))
PAINT = Material(Kind.STRIPES, (0.87, 0.87, 0.84), (0.87, 0.87, 0.84))
WALLS: tuple[Colour, ...] = (
    (0.80, 0.72, 0.55),
    (0.72, 0.47, 0.38),
    (0.84, 0.82, 0.76),
    (0.60, 0.66, 0.68),
    (0.78, 0.58, 0.42),
)
CARS: tuple[Colour, ...] = ((0.70, 0.16, 0.14), (0.20, 0.30, 0.55), (0.85, 0.85, 0.86), (0.25, 0.26, 0.28))
ROOFS: tuple[Colour, ...] = ((0.62, 0.32, 0.24), (0.45, 0.33, 0.30), (0.40, 0.41, 0.45))


def building(seed: int) -> Scene:
    """The scene; the seed changes textures, cars, trees and the neighbourhood, not the house."""
    rng = np.random.default_rng(seed)
    model = Model()
    _streets(model, rng)
    _corner_house(model, seed)
    _yard(model, rng)
    _neighbours(model, rng)
    site = Site(
        target=(-0.5, 0.0, 3.0),
        orbit=(25.0, 17.0),
        survey=(34.0, 26.0, 34.0, 9.0),
        circuit=(70.0, 20.0, 13.0),
        hover=(-21.0, -17.0, 15.0),
        speed=8.7,
    )
    return Scene.of("building", model, Light((0.55, -0.42, 0.72, 0.0)), site)


def _streets(model: Model, rng: np.random.Generator) -> None:
    """Ground, the four streets around the block with their markings, and the pavements."""
    model.rectangle((-420, -420), (420, 420), -0.02, LAWN)
    for x in (-24.0, 24.0):
        model.rectangle((x - 3.5, -150), (x + 3.5, 150), 0.0, ASPHALT)
    for y in (-20.0, 20.0):
        for x0, x1 in ((-150.0, -27.5), (-20.5, 20.5), (27.5, 150.0)):
            model.rectangle((x0, y - 3.5), (x1, y + 3.5), 0.0, ASPHALT)
    _markings(model)
    model.box((0, 0, 0), (40, 32, 0.15), CONCRETE, PAVING)
    for sx in (-1, 1):
        model.box((sx * 59, 0, 0), (62, 32, 0.12), CONCRETE, LAWN)
        for sy in (-1, 1):
            model.box((sx * 59, sy * 54, 0), (62, 60, 0.12), CONCRETE, LAWN)
    for sy in (-1, 1):
        model.box((0, sy * 54, 0), (40, 60, 0.12), CONCRETE, LAWN)
    for _ in range(16):
        _parked_car(model, rng)


def _markings(model: Model) -> None:
    """Dashes along the middle of the streets and a crossing at each corner of the block."""
    for x in (-24.0, 24.0):
        for y in np.arange(-140.0, 141.0, 5.0):
            if abs(abs(y) - 20) > 5:
                model.rectangle((x - 0.1, y - 1.2), (x + 0.1, y + 1.2), 0.01, PAINT)
        for y in (-14.8, 14.8):
            _crossing(model, x, y, along_x=True)
    for y in (-20.0, 20.0):
        for x in np.arange(-140.0, 141.0, 5.0):
            if abs(abs(x) - 24) > 5:
                model.rectangle((x - 1.2, y - 0.1), (x + 1.2, y + 0.1), 0.01, PAINT)
        for x in (-18.8, 18.8):
            _crossing(model, x, y, along_x=False)


def _crossing(model: Model, x: float, y: float, along_x: bool) -> None:
    for k in np.arange(-3.0, 3.1, 1.0):
        if along_x:
            model.rectangle((x + k - 0.27, y - 1.3), (x + k + 0.27, y + 1.3), 0.01, PAINT)
        else:
            model.rectangle((x - 1.3, y + k - 0.27), (x + 1.3, y + k + 0.27), 0.01, PAINT)


def _parked_car(model: Model, rng: np.random.Generator) -> None:
    """A car at the kerb of one of the four streets."""
    at, side = rng.uniform(-12.5, 12.5), rng.choice((-1.0, 1.0))
    lane = rng.choice((-2.5, 2.5))
    along_x = rng.random() < 0.5
    x, y = (at * 1.3, side * 20 + lane) if along_x else (side * 24 + lane, at)
    car(model, x, y, 0.0 if along_x else np.pi / 2, rng)


def car(model: Model, x: float, y: float, yaw: float, rng: np.random.Generator) -> None:
    """A car as two boxes, with dark windows around the upper one."""
    body = Material(
        Kind.PLAIN, CARS[rng.integers(len(CARS))], cell=(0.8, 1.0), seed=int(rng.integers(1 << 20))
    )
    glass = Material(Kind.OFFICE, body.colour, (0.1, 0.1, 0.1), (1.1, 0.75))
    model.box((x, y, 0.25), (4.2, 1.75, 0.65), body, yaw=yaw, under=True)
    model.box((x, y, 0.9), (2.4, 1.55, 0.6), glass, body, yaw=yaw)


def _corner_house(model: Model, seed: int) -> None:
    """A brick hall with a flat roof, a plastered wing with a gable, and an office tower."""
    brick = Material(Kind.FACADE, (0.66, 0.36, 0.28), (0.88, 0.85, 0.78), (2.6, 2.8), seed)
    plaster = Material(Kind.FACADE, (0.87, 0.76, 0.52), (0.95, 0.93, 0.88), (2.4, 2.8), seed + 1)
    office = Material(Kind.OFFICE, (0.70, 0.71, 0.72), (0.30, 0.31, 0.33), (1.6, 2.8), seed + 2)
    tiles = Material(Kind.TILES, (0.66, 0.34, 0.25), cell=(0.5, 0.6), seed=seed)
    model.box((-3.5, -3, 0.15), (13, 8, 8.4), brick, GRAVEL)
    _parapet(model, (-3.5, -3, 8.55), (13, 8))
    model.house((-6.5, 5, 0.15), (7, 10, 5.6), 3.2, plaster, tiles, yaw=0.0)
    model.box((6.3, 2, 0.15), (7, 8, 11.2), office, GRAVEL)
    _parapet(model, (6.3, 2, 11.35), (7, 8))
    chimney = Material(Kind.BRICK, (0.58, 0.32, 0.26), (0.7, 0.66, 0.6), (0.6, 0.3), seed)
    model.box((-8.5, 7, 5.6), (1.1, 1.1, 4.4), chimney, CONCRETE)
    model.box((-8.5, -5.3, 8.55), (1.2, 1.2, 3.0), chimney, CONCRETE)
    model.box((-3.5, -1.2, 8.55), (3.2, 2.4, 2.4), replace(plaster, cell=(1.6, 2.4)), GRAVEL)
    for x, y, z in (
        (-5.5, -5, 8.55),
        (-0.5, -4.6, 8.55),
        (1.2, -1.8, 8.55),
        (4.8, 0.2, 11.35),
        (7.8, 4.4, 11.35),
    ):
        model.box((x, y, z), (1.7, 1.2, 1.0), METAL)
    model.box((6.6, 2.2, 11.35), (2.4, 2.2, 2.4), CONCRETE, GRAVEL)


def _parapet(model: Model, base: tuple[float, float, float], size: tuple[float, float]) -> None:
    """A low wall around a flat roof, standing out a little from the wall below."""
    (x, y, z), (width, depth) = base, size
    for s in (-1, 1):
        model.box((x, y + s * (depth / 2 - 0.1), z - 0.3), (width + 0.4, 0.5, 0.95), CONCRETE, under=True)
        model.box((x + s * (width / 2 - 0.1), y, z - 0.3), (0.5, depth - 0.7, 0.95), CONCRETE, under=True)


def _yard(model: Model, rng: np.random.Generator) -> None:
    """Trees, crates and a shed on the block itself."""
    model.box((0.5, 10.2, 0.15), (7.5, 9.0, 0.12), CONCRETE, LAWN)
    trees = (
        (-1.5, 8, 4.5),
        (2.6, 12.5, 5.5),
        (17, -8, 5.0),
        (17.2, 2, 4.4),
        (17, 12, 5.2),
        (-17.5, -13, 4.6),
    )
    for x, y, height in (*trees, (-17.6, 2, 5.4)):
        model.tree((x, y, 0.15), height, rng)
    for _ in range(14):
        crate = Material(Kind.PLANKS, (0.62, 0.45, 0.27), cell=(1.2, 0.22), seed=int(rng.integers(1 << 20)))
        edge = float(rng.uniform(0.7, 1.4))
        place = (float(rng.uniform(6, 15)), float(rng.uniform(-12.5, -5)), 0.15)
        model.box(place, (edge, edge, edge), crate, yaw=float(rng.uniform(0, 1.5)))
    blue = Material(Kind.PLANKS, (0.22, 0.40, 0.58), cell=(6.0, 0.35))
    model.box((-14, -12.5, 0.15), (6.0, 2.4, 2.6), blue, yaw=0.1)
    model.box((-6, -13, 0.15), (6.0, 2.4, 2.6), replace(blue, colour=(0.72, 0.36, 0.18)), yaw=-0.05)


def _neighbours(model: Model, rng: np.random.Generator) -> None:
    """Houses and trees on the blocks across the streets."""
    plots = np.array(_plots()) + rng.uniform(-2, 2, (len(_plots()), 2))
    for x, y in plots.tolist():
        (_house if rng.random() < 0.8 else _flats)(model, rng, x, y)
    for x, y in rng.uniform(-88, 88, (110, 2)).tolist():
        in_street = abs(abs(x) - 24) < 5.5 or abs(abs(y) - 20) < 5.5
        outside = abs(x) > 29 or abs(y) > 25
        if outside and not in_street and np.hypot(*(plots - (x, y)).T).min() > 9:
            model.tree((x, y, 0.1), float(rng.uniform(3.5, 7.0)), rng)


def _plots() -> list[tuple[float, float]]:
    xs, ys = (-80.0, -60.0, -40.0, -9.0, 9.0, 40.0, 60.0, 80.0), (-70.0, -50.0, -33.0, 33.0, 50.0, 70.0)
    far = [(x, y) for x in xs for y in ys]
    return far + [(x, y) for x in (-80.0, -60.0, -40.0, 40.0, 60.0, 80.0) for y in (-8.0, 9.0)]


def _house(model: Model, rng: np.random.Generator, x: float, y: float) -> None:
    wall = Material(
        Kind.FACADE, WALLS[rng.integers(len(WALLS))], cell=(2.4, 2.9), seed=int(rng.integers(1 << 20))
    )
    roof = Material(
        Kind.TILES, ROOFS[rng.integers(len(ROOFS))], cell=(0.5, 0.6), seed=int(rng.integers(1 << 20))
    )
    size = (float(rng.uniform(9, 12)), float(rng.uniform(7, 9)), 3.0 * float(rng.integers(1, 3)))
    yaw = float(rng.choice((0.0, np.pi / 2)) + rng.uniform(-0.06, 0.06))
    model.house((x, y, 0.12), size, float(rng.uniform(2.2, 3.4)), wall, roof, yaw=yaw)
    stack = Material(Kind.BRICK, (0.55, 0.33, 0.27), (0.65, 0.6, 0.55), (0.6, 0.3))
    corner = footprint((x, y, 0), size[0] / 2, size[1] / 3, yaw)[0]
    model.box((corner[0], corner[1], size[2]), (0.8, 0.8, 3.4), stack)


def _flats(model: Model, rng: np.random.Generator, x: float, y: float) -> None:
    wall = Material(
        Kind.FACADE, WALLS[rng.integers(len(WALLS))], cell=(2.6, 3.0), seed=int(rng.integers(1 << 20))
    )
    size = (float(rng.uniform(10, 13)), float(rng.uniform(9, 11)), 9.0)
    model.box((x, y, 0.12), size, wall, GRAVEL)
    _parapet(model, (x, y, 9.12), (size[0], size[1]))
