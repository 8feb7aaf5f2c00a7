# SPDX-License-Identifier: Apache-2.0
"""Correspondences without a video: SIFT keypoints (Lowe, 2004) with the ratio test, mutual best, cleaned by the epipolar
geometry of the two views."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.pose import pinhole
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats, Image

Ints = NDArray[np.int64]

KEYPOINTS = 1500
_RATIO = 0.8
#: Pairs that must obey one epipolar geometry; any two images have a few that do by chance.
_MIN_PAIRS = 12


@dataclass(frozen=True, eq=False)
class Features:
    """px float32 [N,2] in the delivered image, uv float64 [N,2] centred, descriptors uint8 [N,128], and the track that each
    keypoint belongs to, int64 [N], -1 for none (filled in as keypoints are matched)."""

    px: Floats
    uv: Array
    descriptors: NDArray[np.uint8]
    ids: Ints


def detect(grey: Image, lens: Lens) -> Features:
    """SIFT keypoints of an image; those outside the distortion model are left out."""
    keypoints, descriptors = cv2.SIFT.create(KEYPOINTS).detectAndCompute(grey, None)
    if descriptors is None:
        descriptors = np.empty((0, 128), np.float32)
    px = np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2)
    uv = lens.centred(px)
    known = np.isfinite(uv).all(axis=1)
    return Features(
        px[known], uv[known], descriptors[known].astype(np.uint8), np.full(int(known.sum()), -1, np.int64)
    )


def match(a: Features, b: Features, lens: Lens) -> Ints:
    """Pairs int64 [M,2] of keypoints of a and b that look alike and obey one epipolar geometry."""
    pairs = _alike(a.descriptors, b.descriptors)
    if len(pairs) < _MIN_PAIRS:
        return pairs[:0]
    pairs = pairs[epipolar_inliers(a.uv[pairs[:, 0]], b.uv[pairs[:, 1]], lens)]
    return pairs if len(pairs) >= _MIN_PAIRS else pairs[:0]


def epipolar_inliers(uv_a: Array, uv_b: Array, lens: Lens) -> NDArray[np.bool_]:
    """Which pairs of centred pixels [N,2] agree with the relative pose that most of them agree with."""
    options = {
        "max_epipolar_error": 1.5 * lens.scale,
        "min_iterations": 100,
        "max_iterations": 2000,
        "seed": 0,
    }
    _, info = poselib.estimate_relative_pose(uv_a, uv_b, pinhole(lens.focal), pinhole(lens.focal), options)
    return np.asarray(info["inliers"], dtype=bool)


def _alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Ints:
    """Pairs that are each other's nearest and clearly nearer than a's second. Integers in float32 are exact here, so the
    result does not depend on the order in which a library sums."""
    if len(a) < 2 or len(b) < 2:
        return np.empty((0, 2), np.int64)
    fa, fb = a.astype(np.float32), b.astype(np.float32)
    distance = (fa**2).sum(axis=1)[:, None] + (fb**2).sum(axis=1) - 2.0 * (fa @ fb.T)
    rows = np.arange(len(a))
    best = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[best] == rows
    nearest = distance[rows, best].copy()
    distance[rows, best] = np.inf
    clear = nearest < _RATIO**2 * distance.min(axis=1)
    return np.column_stack([rows, best])[mutual & clear].astype(np.int64)
