# SPDX-License-Identifier: Apache-2.0
"""Scene `terrain`: rolling farmland with a hamlet, for flights that look down."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter

from recon3d_ros.core.geometry import Array
from recon3d_ros.synth.materials import Kind, Material
from recon3d_ros.synth.scene import Light, Scene, Site
from recon3d_ros.synth.shapes import Model

_HALF = 300.0
_CELL = 5.0


def terrain(seed: int) -> Scene:
    """The scene; the seed changes the hills too."""
    rng = np.random.default_rng(seed)
    model = Model()
    grid = np.arange(-_HALF, _HALF + _CELL / 2, _CELL)
    z = _hills(rng, len(grid))
    model.heightfield(
        grid, grid, z, Material(Kind.FIELDS, (0.38, 0.50, 0.20), (0.74, 0.66, 0.32), (48.0, 48.0), seed)
    )
    ground = RegularGridInterpolator((grid, grid), z)
    houses = _hamlet(model, rng, ground)
    _woods(model, rng, ground, houses)
    site = Site(
        target=(0.0, 0.0, 4.0),
        orbit=(60.0, 38.0),
        survey=(110.0, 80.0, 50.0, 20.0),
        circuit=(110.0, 80.0, 38.0),
        hover=(-70.0, -40.0, 38.0),
        speed=8.0,
        sway=0.4,
    )
    return Scene.of("terrain", model, Light((0.55, 0.4, 0.7, 0.0), strength=0.9, haze=800.0), site)


def _hills(rng: np.random.Generator, n: int) -> Array:
    """Heights [n,n] in metres: smooth noise of three scales, level where the hamlet stands, rising to a rim far out."""
    z = np.zeros((n, n))
    for wavelength, height in ((90.0, 9.0), (35.0, 3.0), (15.0, 0.7)):
        bumps = gaussian_filter(rng.normal(size=(n, n)), wavelength / 3 / _CELL, mode="reflect")
        z += height * bumps / bumps.std()
    r = np.hypot(*np.meshgrid(*2 * [np.linspace(-_HALF, _HALF, n)]))
    z -= z[r < 30].mean()
    z *= 0.12 + 0.88 * np.clip((r - 20) / 60, 0, 1)
    return z + 30 * np.clip((r - 200) / 200, 0, 1) ** 2


def _hamlet(model: Model, rng: np.random.Generator, ground: RegularGridInterpolator) -> Array:
    """Houses and barns around the middle, their walls reaching into the ground; where they stand, [N,2]."""
    walls = ((0.86, 0.82, 0.72), (0.78, 0.62, 0.48), (0.70, 0.70, 0.68), (0.64, 0.40, 0.32))
    roofs = ((0.62, 0.31, 0.23), (0.50, 0.36, 0.30), (0.42, 0.42, 0.45))
    angles, radii = 6 * np.pi / 13 * np.arange(13), 6 + 3.1 * np.arange(13)
    places = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    for k, (x, y) in enumerate(places):
        seeds = rng.integers(1 << 20, size=2).tolist()
        wall = Material(Kind.FACADE, walls[k % 4], cell=(2.6, 3.1), seed=seeds[0])
        roof = Material(Kind.TILES, roofs[k % 3], cell=(0.6, 0.7), seed=seeds[1])
        size = (float(rng.uniform(9, 15)), float(rng.uniform(7, 9)), float(rng.uniform(6.5, 8.5)))
        base = (float(x), float(y), float(ground((y, x))) - 2.5)
        model.house(base, size, float(rng.uniform(2.5, 4.0)), wall, roof, yaw=float(rng.uniform(0, np.pi)))
    return places


def _woods(model: Model, rng: np.random.Generator, ground: RegularGridInterpolator, houses: Array) -> None:
    """Trees in groups, and single ones between the houses."""
    centres = rng.uniform(-180, 180, (14, 2))
    for k in range(120):
        spread = rng.normal(size=2) * 14
        x, y = centres[k % 14] + spread if k < 95 else rng.uniform(-60, 60, 2)
        if np.hypot(*(houses - (x, y)).T).min() > 13:
            model.tree((float(x), float(y), float(ground((y, x))) - 0.3), float(rng.uniform(5, 10)), rng)
