# SPDX-License-Identifier: Apache-2.0
"""Errors of estimated depth against true depth at the same pixels: AbsRel = |scale * estimate - truth| / truth and the
share with a ratio below 1.25 as in Eigen et al., "Depth map prediction from a single image using a multi-scale deep
network", NeurIPS 2014. No pose enters: a keyframe's depth is compared where its camera stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.image import resampling_map
from recon3d_ros.core.types import Floats

#: As the estimate stands; by the scale of the trajectory; by one factor for all keyframes; by one for each.
SCALINGS = ("none", "trajectory", "median", "keyframe")

#: Pixels of a keyframe that are kept, so that memory stays small over thousands of keyframes.
_MAX_PIXELS = 20_000
#: Where the pixels around a place differ by more than this share there is an edge, and nothing is interpolated.
_EDGE = 0.05


@dataclass(frozen=True, eq=False)
class KeyframeDepth:
    """One keyframe against the truth. ratios: float32 [N], truth over estimate, at most `_MAX_PIXELS` of them, spread
    evenly. known: pixels with true depth; covered: of them with estimated depth."""

    ratios: Floats
    known: int
    covered: int


@dataclass(frozen=True)
class DepthError:
    """Over the pixels of all keyframes.

    keyframes: compared. pixels: with both depths. coverage: share of the pixels with true depth that have an estimate.
    scaling: one of `SCALINGS`; scale: estimate to truth in it (`keyframe`: the median of all). scale_low, scale_high:
    smallest and largest factor of a single keyframe, relative to the median of all: how far the scale drifts.
    abs_rel_median, abs_rel_mean: shares, not percent. below_125: share of pixels with a ratio below 1.25 either way.
    """

    keyframes: int
    pixels: int
    coverage: float
    scaling: str
    scale: float
    scale_low: float
    scale_high: float
    abs_rel_median: float
    abs_rel_mean: float
    below_125: float


def seen_by(camera: Camera, depth: Floats, depth_camera: Camera) -> Floats:
    """Depth float32 [H,W] of `depth_camera` at the pixels of `camera`, both at the same place with the same axes, so that
    z is the same; NaN where there is none. Interpolated (in inverse depth) except across edges."""
    import cv2

    if camera == depth_camera:
        return depth
    table = resampling_map(camera, depth_camera)
    nan = float("nan")
    nearest: Floats = cv2.remap(
        depth, table, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=nan
    )
    between = 1 / cv2.remap(
        1 / depth, table, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=nan
    )
    return np.where(np.abs(between - nearest) < _EDGE * nearest, between, nearest)


def keyframe_depth(estimate: Floats, truth: Floats) -> KeyframeDepth:
    """Compare depth float32 [H,W] with the true one at the same pixels; what is not above zero is no depth."""
    known = (truth > 0) & np.isfinite(truth)
    both = known & (estimate > 0) & np.isfinite(estimate)
    ratios = truth[both] / estimate[both]
    step = -(-len(ratios) // _MAX_PIXELS) or 1
    return KeyframeDepth(ratios[::step], int(known.sum()), int(both.sum()))


def depth_error(
    keyframes: Sequence[KeyframeDepth], scaling: str, trajectory_scale: float = 1.0
) -> DepthError | None:
    """The error over all keyframes; None when none has a pixel with both depths. trajectory_scale: estimate to truth, of
    the alignment of the trajectory."""
    if scaling not in SCALINGS:
        raise InputError(f"unknown scaling '{scaling}': use one of {', '.join(SCALINGS)}")
    used = [k for k in keyframes if len(k.ratios)]
    if not used:
        return None
    own = np.array([np.median(k.ratios) for k in used])
    pooled = np.concatenate([k.ratios for k in used])
    overall = float(np.median(pooled))
    scales = {
        "none": 1.0,
        "trajectory": trajectory_scale,
        "median": overall,
        "keyframe": float(np.median(own)),
    }
    factors: float | Floats = scales[scaling]
    if scaling == "keyframe":
        factors = np.repeat(own, [len(k.ratios) for k in used])
    ratios = pooled / factors
    errors = np.abs(1 / ratios - 1)
    return DepthError(
        keyframes=len(used),
        pixels=sum(k.covered for k in used),
        coverage=sum(k.covered for k in keyframes) / sum(k.known for k in keyframes),
        scaling=scaling,
        scale=scales[scaling],
        scale_low=float(own.min() / np.median(own)),
        scale_high=float(own.max() / np.median(own)),
        abs_rel_median=float(np.median(errors)),
        abs_rel_mean=float(errors.mean(dtype=np.float64)),
        below_125=float((np.maximum(ratios, 1 / ratios) < 1.25).mean()),
    )
