# SPDX-License-Identifier: Apache-2.0
"""Spreads the error of closed loops over a map: keyframes as similarities, held together by how they lay to their
neighbours and by the loops (Strasdat et al., "Scale drift-aware large scale monocular SLAM", RSS 2010). Solved by gtsam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy.sparse import csr_array

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.core.errors import require
from recon3d_ros.core.geometry import Array, inverse, scale_of, similarity

#: Standard deviations of an edge: angle, shift in median depths, log of the scale. Only their ratios matter.
_SIGMAS = (0.002, 0.004, 0.004)
#: Tracks by which two keyframes hold on to each other, and the most that each does of those before it.
_COVISIBLE, _NEIGHBOURS = 100, 4
_ITERATIONS = 30


@dataclass(frozen=True, eq=False)
class Edge:
    """How two nodes lie to each other: S_a_b, similarity 4x4, camera coordinates of b to those of a."""

    a: int
    b: int
    S_a_b: Array


def chain(poses: Sequence[Array], seen: Sequence[Ints]) -> list[Edge]:
    """Edges between keyframes with poses T_map_cam [N] as these are: from each to the next, and to those before that
    observe enough of the same tracks seen [N] (sorted or not, ids int64)."""
    shared = _shared(seen)
    edges = []
    for b in range(1, len(poses)):
        before = np.flatnonzero(shared[b, :b] >= _COVISIBLE)[-_NEIGHBOURS:]
        edges += [Edge(int(a), b, inverse(poses[a]) @ poses[b]) for a in {*before.tolist(), b - 1}]
    return edges


def solve(poses: Sequence[Array], edges: Sequence[Edge], depths: Sequence[float]) -> list[Array]:
    """Similarities 4x4, camera to map, of keyframes with poses T_map_cam [N] and median depths [N], that fit all edges
    best; the first one stays. Raises MissingDependency without gtsam."""
    gtsam = require("gtsam", "loops")
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for i, T in enumerate(poses):
        values.insert(i, _to_gtsam(gtsam, T))
    graph.add(gtsam.PriorFactorSimilarity3(0, values.atSimilarity3(0), _noise(gtsam, depths[0])))
    for e in edges:
        measured = _to_gtsam(gtsam, e.S_a_b)
        graph.add(gtsam.BetweenFactorSimilarity3(e.a, e.b, measured, _noise(gtsam, depths[e.a])))
    params = gtsam.LevenbergMarquardtParams()
    params.setMaxIterations(_ITERATIONS)
    result = gtsam.LevenbergMarquardtOptimizer(graph, values, params).optimize()
    return [_from_gtsam(result.atSimilarity3(i)) for i in range(len(poses))]


def _shared(seen: Sequence[Ints]) -> Array:
    """Number of tracks that each two keyframes share, [N,N]."""
    columns = np.concatenate(seen)
    rows = np.repeat(np.arange(len(seen)), [len(ids) for ids in seen])
    ones = csr_array((np.ones(len(rows), np.int32), (rows, columns)))
    return np.asarray((ones @ ones.T).toarray())


def _noise(gtsam: ModuleType, depth: float) -> object:
    angle, shift, scale = _SIGMAS
    # Order of the tangent space of gtsam: rotation, translation, log of the scale.
    sigmas = [angle] * 3 + [shift * depth] * 3 + [scale]
    return gtsam.noiseModel.Diagonal.Sigmas(np.array(sigmas))


def _to_gtsam(gtsam: ModuleType, S: Array) -> object:
    """x -> s (R x + t) there, x -> s R x + t here."""
    scale = scale_of(S)
    return gtsam.Similarity3(gtsam.Rot3(S[:3, :3] / scale), S[:3, 3] / scale, scale)


def _from_gtsam(S: object) -> Array:
    scale = S.scale()  # type: ignore[attr-defined]
    return similarity(scale, S.rotation().matrix(), scale * np.asarray(S.translation()))  # type: ignore[attr-defined]
