# SPDX-License-Identifier: Apache-2.0
"""Surface errors against a known scene: how far the reconstructed surface lies from the true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.geometry import Array, transform
from recon3d_ros.core.types import Distance, MeshBlock


@dataclass(frozen=True)
class SurfaceError:
    """Distance of points spread evenly over the reconstructed surface to the true one, metres."""

    samples: int
    median: float
    p90: float
    mean: float


def sample_surface(mesh: MeshBlock, count: int, seed: int = 0) -> Array:
    """Points [count,3] drawn uniformly by area from a mesh; deterministic by seed."""
    rng = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(corners), size=count, p=areas / areas.sum())]
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])


def surface_error(
    mesh: MeshBlock, T_truth_map: Array, distance: Distance, samples: int = 50_000
) -> SurfaceError | None:
    """Accuracy of a mesh in the frame of the truth, or None for an empty mesh. `T_truth_map`: similarity map -> truth."""
    if not len(mesh.triangles):
        return None
    errors = distance(transform(T_truth_map, sample_surface(mesh, samples)))
    return SurfaceError(
        samples, float(np.median(errors)), float(np.percentile(errors, 90)), float(errors.mean())
    )
