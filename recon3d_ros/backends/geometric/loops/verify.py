# SPDX-License-Identifier: Apache-2.0
"""Whether two keyframes show the same place, and the similarity between them: the pose of each camera against the other's
points by PnP, the scale from the depths of the common points, and both directions have to say the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.loops.landmarks import Landmarks
from recon3d_ros.backends.geometric.matching import match
from recon3d_ros.backends.geometric.pose import CameraPose, locate_anywhere
from recon3d_ros.core.geometry import (
    Array,
    inverse,
    inverse_similarity,
    orthonormalised,
    pose,
    rotation_angle,
    scale_of,
    similarity,
    transform,
)

#: Common points that a place needs, and the share of the matches that they must be.
LEAST, SHARE = 30, 0.5
#: By how much the two directions may differ: place in median depths, angle, and the spread of the log of the depth ratios.
_MAX_MOVE, _MAX_TURN, _MAX_SPREAD = 0.05, np.radians(1.5), 0.15


@dataclass(frozen=True, eq=False)
class Relation:
    """S_old_new: similarity 4x4, camera coordinates of the new keyframe to those of the old one. matches: keypoints that
    look alike and obey one epipolar geometry. common: points seen in both. accepted: whether it is believed."""

    S_old_new: Array
    matches: int
    common: int
    accepted: bool


def relate(old: Landmarks, new: Landmarks) -> Relation:
    """How a new keyframe lies to an old one."""
    pairs = match(old.features, new.features, new.lens)
    if len(pairs) < LEAST:
        return Relation(np.eye(4), len(pairs), 0, False)
    a, b = pairs[:, 0], pairs[:, 1]
    focal, scale = new.lens.focal, new.lens.scale
    there = locate_anywhere(old.points[a], new.features.uv[b], focal, scale)
    back = locate_anywhere(new.points[b], old.features.uv[a], focal, scale)
    common = there.inliers & back.inliers
    count = int(common.sum())
    if count < LEAST or count < SHARE * len(pairs):
        return Relation(np.eye(4), len(pairs), count, False)
    S, agreed = _similarity(old.points[a[common]], new.points[b[common]], there, back, new.depth)
    return Relation(S, len(pairs), count, agreed)


def _similarity(
    old: Array, new: Array, there: CameraPose, back: CameraPose, depth: float
) -> tuple[Array, bool]:
    """S_old_new from the common points [N,3] of both cameras, and whether both directions agree."""
    T_new_old, T_old_new = there.T_cam_map, back.T_cam_map  # each in units of the points it was found with
    ratios = np.log(
        np.concatenate(
            [transform(T_new_old, old)[:, 2] / new[:, 2], old[:, 2] / transform(T_old_new, new)[:, 2]]
        )
    )
    middle = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
    scale = float(np.exp(middle))
    first = inverse(T_new_old)
    second = pose(T_old_new[:3, :3], scale * T_old_new[:3, 3])
    apart = inverse(first) @ second
    agreed = (
        np.linalg.norm(apart[:3, 3]) < _MAX_MOVE * scale * depth
        and rotation_angle(apart[:3, :3]) < _MAX_TURN
        and spread < _MAX_SPREAD
    )
    T = orthonormalised((first + second) / 2)
    return similarity(scale, T[:3, :3], T[:3, 3]), bool(agreed)


def drift(T_map_old: Array, T_map_new: Array, S_old_new: Array) -> Array:
    """The similarity 4x4 of the map that would carry what is around the new keyframe to where the old one says it is."""
    return T_map_old @ S_old_new @ inverse_similarity(T_map_new)


def apart(S: Array, T: Array, at: Array, depth: float) -> tuple[float, float, float]:
    """By how much two similarities of the map differ at a place [3]: distance in units of `depth`, angle, log of the
    scales."""
    D = S @ inverse_similarity(T)
    scale = scale_of(D)
    point = transform(T, at)
    moved = float(np.linalg.norm(transform(D, point) - point))
    return moved / depth, rotation_angle(D[:3, :3] / scale), abs(float(np.log(scale)))
