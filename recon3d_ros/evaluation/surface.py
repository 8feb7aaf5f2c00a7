# SPDX-License-Identifier: Apache-2.0
"""Surface errors: accuracy (how far the estimate lies from the truth), completeness (how far the truth lies from the
estimate), and the F-score of both at a threshold as in Knapitsch et al., "Tanks and Temples", SIGGRAPH 2017."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Distance, Floats
from recon3d_ros.evaluation.thinning import thinned

#: Points that stand for a mesh, and for a cloud at most.
SAMPLES, MAX_POINTS = 50_000, 300_000
#: Multiples of a cloud's spacing: what is far, and how far apart the points are that are searched there.
_FAR, _THINNER = 20.0, 8.0
Triangles = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface as points [N,3] spread evenly over it, and as the distance to it."""

    points: Array
    distance: Distance

    def with_fewer_points(self, limit: int = MAX_POINTS) -> Surface:
        """The surface with at most so many points, chosen at random, always the same ones."""
        if len(self.points) <= limit:
            return self
        chosen = np.random.default_rng(0).choice(len(self.points), limit, replace=False)
        return Surface(self.points[chosen], self.distance)


@dataclass(frozen=True)
class Distances:
    """Of points to a surface, metres."""

    mean: float
    median: float
    p90: float

    @classmethod
    def of(cls, distances: Array) -> Distances:
        """Of distances [N], N >= 1."""
        median, p90 = np.percentile(distances, [50, 90])
        return cls(float(distances.mean()), float(median), float(p90))


@dataclass(frozen=True)
class SurfaceError:
    """An estimated surface against the true one, metres of the truth.

    samples, truth_points: points compared. unseen: share of the samples left out, because they lie where the truth has not
    looked. accuracy: of samples to the truth; completeness: of true points to the estimate. precision, recall: share of
    them within `threshold`; f_score: their harmonic mean.
    """

    samples: int
    truth_points: int
    unseen: float
    accuracy: Distances
    completeness: Distances
    threshold: float
    precision: float
    recall: float
    f_score: float


def surface_error(
    estimate: Surface, truth: Surface, threshold: float, counts: NDArray[np.bool_] | None = None
) -> SurfaceError | None:
    """Compare two surfaces in the frame of the truth; None when either has no points. counts: bool [N], which points of
    the estimate lie where the truth has looked; all, if not given."""
    samples = estimate.points if counts is None else estimate.points[counts]
    if not len(samples) or not len(truth.points):
        return None
    accuracy, completeness = truth.distance(samples), estimate.distance(truth.points)
    precision, recall = float((accuracy <= threshold).mean()), float((completeness <= threshold).mean())
    return SurfaceError(
        samples=len(samples),
        truth_points=len(truth.points),
        unseen=1 - len(samples) / len(estimate.points),
        accuracy=Distances.of(accuracy),
        completeness=Distances.of(completeness),
        threshold=threshold,
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    )


def sample_surface(
    vertices: Floats | Array, triangles: Triangles, count: int = SAMPLES, seed: int = 0
) -> Array:
    """Points [count,3] drawn uniformly by area from a mesh of vertices [V,3] and triangles [T,3], none from one without
    area; deterministic by seed."""
    rng = np.random.default_rng(seed)
    corners = vertices[triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not areas.sum() > 0:
        return np.empty((0, 3))
    chosen = corners[rng.choice(len(corners), size=count, p=areas / areas.sum())]
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])


def mesh_surface(vertices: Floats | Array, triangles: Triangles) -> Surface:
    """Of a mesh of vertices [V,3] and triangles [T,3]; the distance is exact. Without points where it has no area."""
    from recon3d_ros.synth.bvh import build
    from recon3d_ros.synth.queries import distances

    corners = vertices[triangles].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = triangles[np.linalg.norm(normals, axis=1) > 0]
    points = sample_surface(vertices, flat)
    if not len(points):
        return Surface(points, lambda queries: np.full(len(queries), np.inf))
    faces = vertices[flat].reshape(-1, 9).astype(np.float64)
    bvh = build(faces if len(faces) > 1 else np.repeat(faces, 2, axis=0))
    return Surface(points, lambda queries: distances(*bvh[:3], np.ascontiguousarray(queries)))


def cloud_surface(points: Array, spacing: float) -> Surface:
    """Of points [N,3] that lie about `spacing` apart; the distance is that to the nearest one. Far away it is that to the
    nearest one of a thinner cloud, some percent larger: in a dense cloud far queries take milliseconds each."""
    tree, thin_tree = cKDTree(points), cKDTree(thinned(points, _THINNER * spacing))

    def distance(queries: Array) -> Array:
        near: Array = tree.query(queries, distance_upper_bound=_FAR * spacing, workers=-1)[0]
        far = np.isinf(near)
        near[far] = thin_tree.query(queries[far], workers=-1)[0]
        return near

    return Surface(points, distance)
