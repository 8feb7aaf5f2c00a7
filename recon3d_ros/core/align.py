# SPDX-License-Identifier: Apache-2.0
"""Least-squares alignment of point sets (Umeyama, "Least-squares estimation of transformation parameters between two
point patterns", PAMI 1991)."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.geometry import Array, similarity


def umeyama(source: Array, target: Array, with_scale: bool = True, weights: Array | None = None) -> Array:
    """The 4x4 similarity (or rigid transform, `with_scale=False`) that maps source [N,3] onto target [N,3] with the least
    squared error, each pair counted by its weight [N] (all alike if None). Raises ValueError with fewer than three pairs or
    when all source points coincide."""
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(
            f"alignment needs two equal sets of at least 3 points, got {source.shape} and {target.shape}"
        )
    w = np.full((len(source), 1), 1 / len(source)) if weights is None else weights[:, None] / weights.sum()
    mean_source, mean_target = (w * source).sum(axis=0), (w * target).sum(axis=0)
    a, b = source - mean_source, target - mean_target
    variance = float((w * a**2).sum())
    if variance < 1e-18:
        raise ValueError("alignment is undefined: all source points coincide")
    U, D, Vt = np.linalg.svd((w * b).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ np.diag(sign) @ Vt
    scale = float((D * sign).sum() / variance) if with_scale else 1.0
    return similarity(scale, R, mean_target - scale * R @ mean_source)
