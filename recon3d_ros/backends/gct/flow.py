# SPDX-License-Identifier: Apache-2.0
"""How far the image moved since the last keyframe, by the network's own depth and poses (specification, section 11.2 and
D9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.gct.pose_encoding import decode
from recon3d_ros.core.geometry import Array, inverse, transform
from recon3d_ros.core.types import Floats

#: Depths at and below this, in the unit of the map, count as none.
NEAREST = 1e-6


@dataclass(frozen=True)
class Motion:
    """What a frame saw of the motion since the last keyframe.

    flow: mean displacement in pixels over the pixels with depth that lie in front of the keyframe, within its image or
    not; inf when there is none or anything is not finite. visible: share of the pixels with depth that lands inside the
    keyframe's image, 0..1.
    """

    flow: float
    visible: float


#: A frame that shares nothing with the keyframe, or whose pose, field of view or depth is broken.
UNSEEN = Motion(float("inf"), 0.0)


def flow_magnitude(
    depth: Floats,
    pose_enc_now: NDArray[np.floating],
    pose_enc_keyframe: NDArray[np.floating],
    stride: int = 8,
    cap: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Motion:
    """Motion of a frame with `depth` [H,W] (along z; not above zero or NaN = none) against the last keyframe.

    pose_enc_now, pose_enc_keyframe: encodings [9]. stride: every n-th row and column is looked at. cap: largest
    displacement that one pixel may contribute, in image diagonals; 0 for no limit, which is the reference's formula: a few
    points near the keyframe's image plane then decide the mean. size: (height, width) of the image when `depth` holds only
    the rows and columns looked at, so that the others need not leave the GPU.
    """
    height, width = size or depth.shape
    z = depth if size else depth[::stride, ::stride]
    known = z > NEAREST
    pixels = (np.argwhere(known)[:, ::-1] * stride).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = _in_keyframe(pixels, z[known], pose_enc_now, pose_enc_keyframe, (height, width))
    if not np.isfinite(moved).all():
        return UNSEEN
    ahead = moved[:, 2] > NEAREST
    if not ahead.any():
        return UNSEEN
    flow = np.linalg.norm(moved[ahead, :2] - pixels[ahead], axis=-1)
    if cap:
        flow = np.minimum(flow, cap * np.hypot(height, width))
    inside = ahead & ((moved[:, :2] > -0.5) & (moved[:, :2] < np.array([width, height]) - 0.5)).all(axis=-1)
    return Motion(float(flow.mean()), float(inside.mean()))


def _in_keyframe(
    pixels: Array,
    z: Floats,
    pose_enc_now: NDArray[np.floating],
    pose_enc_keyframe: NDArray[np.floating],
    size: tuple[int, int],
) -> Array:
    """Pixels u, v in the keyframe's image and z in its camera [N,3] of pixels [N,2] with depth z [N] of this frame."""
    (T_world_now, T_world_key), (K_now, K_key) = decode(np.stack([pose_enc_now, pose_enc_keyframe]), *size)
    T_key_now = inverse(T_world_key) @ T_world_now
    rays = np.column_stack([(pixels - K_now[:2, 2]) / np.diag(K_now)[:2], np.ones(len(pixels))])
    points = transform(T_key_now, rays * z[:, None])
    ahead = np.maximum(points[:, 2:], NEAREST)
    return np.hstack([points[:, :2] / ahead * np.diag(K_key)[:2] + K_key[:2, 2], points[:, 2:]])
