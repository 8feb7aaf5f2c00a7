# SPDX-License-Identifier: Apache-2.0
"""A `Model` collects textured triangles; its methods add the shapes that scenes are made of. World: x, y level, z up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.geometry import Array
from recon3d_ros.synth.materials import Kind, Material

Point = tuple[float, float, float]


class Model:
    """Grows by one shape a call. Every flat face has a material row of its own, which also tells faces apart."""

    def __init__(self) -> None:
        self._faces: list[Array] = []
        self._rows: list[tuple[float, ...]] = []

    def faces(self) -> Array:
        """All triangles, float64 [T,25]: corners (9 columns, metres), a normal for each corner (9), surface coordinates of
        each corner (6, metres), row of the material (1)."""
        return np.concatenate(self._faces)

    def materials(self) -> Array:
        """The table of materials, float64 [M,12], as `materials.albedo` reads it."""
        return np.array(self._rows)

    def surface(
        self,
        corners: Array,
        normals: Array,
        uv: Array,
        material: Material,
        width: float = 1.0,
        height: float = 1.0,
    ) -> None:
        """Add triangles [T,3,3] with corner normals [T,3,3] and surface coordinates [T,3,2] of one material."""
        parts = (corners, normals, uv, np.full(len(corners), len(self._rows)))
        self._faces.append(np.concatenate([p.reshape(len(corners), -1) for p in parts], axis=1))
        self._rows.append(material.row(width, height))

    def polygon(self, corners: Array, material: Material) -> None:
        """A flat convex face, corners [N,3] counter-clockwise from outside; u runs along its first edge, v up from there.
        The cells of facades are stretched so that a whole number of them fits."""
        corners = np.asarray(corners, np.float64)
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        normal /= np.linalg.norm(normal)
        along = (corners[1] - corners[0]) / np.linalg.norm(corners[1] - corners[0])
        uv = (corners - corners[0]) @ np.stack([along, np.cross(normal, along)], axis=1)
        width, height = np.ptp(uv, axis=0)
        if material.kind in (Kind.FACADE, Kind.OFFICE):
            cu, cv = material.cell
            material = replace(
                material, cell=(width / max(round(width / cu), 1), height / max(round(height / cv), 1))
            )
        fan = np.array([(0, k, k + 1) for k in range(1, len(corners) - 1)])
        normals = np.broadcast_to(normal, (len(fan), 3, 3))
        self.surface(corners[fan], normals, uv[fan], material, float(width), float(height))

    def rectangle(
        self, low: tuple[float, float], high: tuple[float, float], z: float, material: Material
    ) -> None:
        """A level rectangle facing up."""
        (x0, y0), (x1, y1) = low, high
        self.polygon(np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]), material)

    def box(
        self,
        base: Point,
        size: Point,
        side: Material,
        top: Material | None = None,
        *,
        yaw: float = 0.0,
        under: bool = False,
    ) -> None:
        """A box on the middle of its lower face, turned by yaw (radians) about z; `under` adds the lower face."""
        foot = footprint(base, size[0], size[1], yaw)
        roof = foot + (0, 0, size[2])
        self._walls(foot, roof, side)
        self.polygon(roof, top or side)
        if under:
            self.polygon(foot[::-1], top or side)

    def house(
        self, base: Point, size: Point, ridge: float, side: Material, roof: Material, *, yaw: float = 0.0
    ) -> None:
        """A house of walls `size` high with a gable roof that rises `ridge` above them and hangs over by 0.4 m."""
        foot = footprint(base, size[0], size[1], yaw)
        self._walls(foot, foot + (0, 0, size[2]), side)
        eaves = footprint((base[0], base[1], base[2] + size[2]), size[0] + 0.8, size[1] + 0.8, yaw)
        self.polygon(eaves[::-1], roof)
        ends = [(eaves[3] + eaves[0]) / 2 + (0, 0, ridge), (eaves[1] + eaves[2]) / 2 + (0, 0, ridge)]
        self.polygon(np.array([eaves[0], eaves[1], ends[1], ends[0]]), roof)
        self.polygon(np.array([eaves[2], eaves[3], ends[0], ends[1]]), roof)
        self.polygon(
            np.array([eaves[1], eaves[2], ends[1]]), replace(side, kind=Kind.PLANKS, cell=(2.0, 0.3))
        )
        self.polygon(
            np.array([eaves[3], eaves[0], ends[0]]), replace(side, kind=Kind.PLANKS, cell=(2.0, 0.3))
        )

    def tree(self, base: Point, height: float, rng: np.random.Generator) -> None:
        """A trunk and a lumpy crown."""
        trunk = Material(Kind.PLANKS, (0.36, 0.26, 0.18), cell=(1.0, 0.2))
        self.box(base, (0.06 * height, 0.06 * height, 0.5 * height), trunk, yaw=float(rng.uniform(0, 1.5)))
        tone = rng.uniform(0.8, 1.15)
        green = (0.27 * tone * rng.uniform(0.9, 1.4), 0.42 * tone, 0.17 * tone)
        leaves = Material(Kind.GRASS, green, (0.42, 0.45, 0.18), seed=int(rng.integers(1 << 20)))
        for k in range(3):
            x, y = 0.16 * height * np.array([np.cos(2.1 * k), np.sin(2.1 * k)])
            radius, z = height * rng.uniform(0.2, 0.27), height * rng.uniform(0.55, 0.72)
            self.blob((base[0] + x, base[1] + y, base[2] + z), (radius, radius, 1.1 * radius), leaves, rng)

    def blob(self, centre: Point, radii: Point, material: Material, rng: np.random.Generator) -> None:
        """A closed, roundish, irregular surface about a centre."""
        directions, faces = _icosphere(1)
        waves = rng.normal(size=(5, 3)) * 2.2
        lumps = 1 + 0.1 * np.sin(directions @ waves.T + rng.uniform(0, 6.3, 5)).sum(axis=1)
        points = directions * np.asarray(radii) * lumps[:, None] + centre
        uv = np.stack([points[:, 0] + 0.7 * points[:, 2], points[:, 1] - 0.7 * points[:, 2]], axis=1)
        normals = _vertex_normals(points, faces)
        self.surface(points[faces], normals[faces], uv[faces], material)

    def heightfield(self, xs: Array, ys: Array, z: Array, material: Material) -> None:
        """Ground through heights z [len(ys), len(xs)] over a grid; two triangles a cell, shaded smoothly."""
        gx, gy = np.meshgrid(xs, ys)
        points = np.stack([gx, gy, z], axis=-1).reshape(-1, 3)
        i = (np.arange(len(ys) - 1)[:, None] * len(xs) + np.arange(len(xs) - 1)).reshape(-1)
        w = len(xs)
        faces = np.concatenate([np.stack([i, i + 1, i + w + 1], 1), np.stack([i, i + w + 1, i + w], 1)])
        self.surface(points[faces], _vertex_normals(points, faces)[faces], points[faces][..., :2], material)

    def _walls(self, foot: Array, top: Array, side: Material) -> None:
        for k in range(4):
            n = (k + 1) % 4
            self.polygon(
                np.array([foot[k], foot[n], top[n], top[k]]), replace(side, seed=side.seed + 101 * k)
            )


def footprint(base: Point, width: float, depth: float, yaw: float) -> Array:
    """Corners [4,3] of a level rectangle about `base`, counter-clockwise from above."""
    x, y = width / 2, depth / 2
    local = np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)])
    c, s = np.cos(yaw), np.sin(yaw)
    return local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + base


def _icosphere(rounds: int) -> tuple[Array, NDArray[np.int64]]:
    """Unit vectors [V,3] and faces [F,3] of an icosahedron whose faces were quartered `rounds` times."""
    g = (1 + 5**0.5) / 2
    points = [(0, s, t * g) for s in (-1, 1) for t in (-1, 1)]
    vertices = np.array(
        points + [p[1:] + p[:1] for p in points] + [p[2:] + p[:2] for p in points], np.float64
    )
    gap = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
    near = np.abs(gap - 2) < 1e-9
    faces = [
        (i, j, k) if np.linalg.det(vertices[[i, j, k]]) > 0 else (i, k, j)
        for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]
    ]  # fmt: skip
    corners = vertices[np.array(faces)]
    for _ in range(rounds):
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = np.concatenate(
            [np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
        )
    corners = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    unique, index = np.unique(corners.reshape(-1, 3).round(9), axis=0, return_inverse=True)
    return unique, index.reshape(-1, 3)


def _vertex_normals(points: Array, faces: NDArray[np.int64]) -> Array:
    """Unit normals [V,3]: the sum of those of the faces around, weighted by area."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    normal = np.cross(b - a, c - a)
    out = np.zeros_like(points)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    return out / np.linalg.norm(out, axis=1, keepdims=True)
