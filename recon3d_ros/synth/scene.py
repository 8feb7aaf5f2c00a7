# SPDX-License-Identifier: Apache-2.0
"""A scene: textured triangles, their light, and the places from which a drone looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recon3d_ros.core.geometry import Array
from recon3d_ros.synth.bvh import Bvh, build
from recon3d_ros.synth.materials import Colour
from recon3d_ros.synth.queries import distances
from recon3d_ros.synth.shapes import Model


@dataclass(frozen=True)
class Light:
    """source: direction to the sun (w = 0) or place of a lamp in metres (w = 1), as (x, y, z, w). strength: of it; ambient:
    light from above and from the ground everywhere. haze: distance in metres over which the air takes the colour of the
    horizon. horizon, zenith: colours of the sky."""

    source: tuple[float, float, float, float]
    strength: float = 0.75
    ambient: float = 0.5
    haze: float = 900.0
    horizon: Colour = (0.80, 0.87, 0.93)
    zenith: Colour = (0.33, 0.54, 0.82)

    def row(self) -> Array:
        """All of it in one array, as the renderer reads it."""
        return np.array([*self.source, self.strength, self.ambient, self.haze, *self.horizon, *self.zenith])


@dataclass(frozen=True)
class Site:
    """Where drones fly; lengths in metres, speed in metres a second.

    target: what an orbit looks at. orbit: its radius and height. survey: half length and half width of the area that a
    lawnmower pattern covers, its height and the distance of its lines. circuit: half length, half width and height of the
    rounded rectangle that a forward flight follows. hover: the place of a hovering drone; it looks at the target. sway: how
    far a drone strays from its path.
    """

    target: tuple[float, float, float]
    orbit: tuple[float, float]
    survey: tuple[float, float, float, float]
    circuit: tuple[float, float, float]
    hover: tuple[float, float, float]
    speed: float
    sway: float = 0.15


@dataclass(frozen=True, eq=False)
class Scene:
    """World: z up, metres. faces, materials: as `Model` gives them."""

    name: str
    faces: Array
    materials: Array
    light: Light
    site: Site

    @classmethod
    def of(cls, name: str, model: Model, light: Light, site: Site) -> Scene:
        """The scene of everything in a model."""
        return cls(name, model.faces(), model.materials(), light, site)

    @cached_property
    def bvh(self) -> Bvh:
        """Search structure over the triangles."""
        return build(self.faces[:, :9])

    @cached_property
    def skin(self) -> Array:
        """Normals, surface coordinates and material (float64 [T,16]) of the triangles in the order of `bvh`."""
        return self.faces[self.bvh.order, 9:]

    def distance(self, points: Array) -> Array:
        """Exact distance float64 [N] of points [N,3] to the nearest triangle, metres. Parts of the surface that no camera
        can see (a chimney below its roof) count too; the undersides of things that stand on others do not exist."""
        return distances(*self.bvh[:3], np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3))
