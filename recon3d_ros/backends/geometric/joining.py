# SPDX-License-Identifier: Apache-2.0
"""Finds a view of one map in another, and from it the similarity between the two: both know the camera's pose, so that only
the scale is open, and that comes from the depth of points which both see. A second view has to say the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from recon3d_ros.backends.geometric.frontend import RELOCALISED, RELOCALISED_SHARE
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.locating import Located, by_matches
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.piece import Piece
from recon3d_ros.core.geometry import Array, inverse, rotation_angle, similarity

#: Points seen in both maps that give a scale, how near they must lie (pixels), and the spread of the log of their ratios.
_MIN_COMMON, _NEAR, _MAX_SPREAD = 20, 6.0, 0.1
#: By how much two views may differ: angle, log of the scale, place in median depths.
_MAX_TURN, _MAX_SCALE, _MAX_MOVE = np.radians(3.0), 0.1, 0.1


@dataclass(frozen=True, eq=False)
class Sighting:
    """A keyframe seen in another map: S_other_this, 4x4, and what it saw there."""

    piece: Piece
    keyframe: Keyframe
    located: Located
    S_other_this: Array


class Joiner:
    """Tries every keyframe of the current map against another one by turns, until two in a row are found in it."""

    def __init__(self) -> None:
        self._turn = 0
        self._before: Sighting | None = None

    def step(self, current: Piece, others: list[Piece]) -> tuple[Sighting, Sighting] | None:
        """Look for the newest keyframe of the current map; returns the sightings that agree, if they do now."""
        keyframe = current.map.keyframes[-1]
        if keyframe.view is None or not keyframe.baseline:
            return None
        before, self._before = self._before, None
        if before is not None and before.piece in others:
            other = before.piece
        else:
            before, other = None, others[self._turn % len(others)]
            self._turn += 1
        sighting = _sight(keyframe, current.map, other)
        if sighting is not None and before is not None and _agree(before, sighting, other.map):
            return before, sighting
        self._before = sighting
        return None

    def forget(self) -> None:
        """What was seen does not count any more."""
        self._before = None


def _sight(keyframe: Keyframe, world: Map, other: Piece) -> Sighting | None:
    view = keyframe.view
    assert view is not None
    there = View(view.index, view.stamp_ns, None, view.grey, view.lens)
    # The keypoints are the same, the tracks those of the other map.
    features = dataclasses.replace(view.features, ids=np.full(len(view.features.ids), -1, np.int64))
    vars(there)["features"] = features
    located = by_matches(there, other.map, other.front.places(view), RELOCALISED, RELOCALISED_SHARE)
    scale = None if located is None else _scale(keyframe, world, other.map, located)
    if located is None or scale is None:
        return None
    T_cam, T_cam_other = keyframe.T_cam_map, located.T_cam_map
    S_cam = similarity(scale, np.eye(3), np.zeros(3))
    return Sighting(other, keyframe, located, inverse(T_cam_other) @ S_cam @ T_cam)


def _scale(keyframe: Keyframe, world: Map, other: Map, located: Located) -> float | None:
    """Unit of this map in units of the other, from the depths that both give to the same pixels."""
    at, here = world.depths(keyframe)
    X = other.points(located.ids)
    there = X @ located.T_cam_map[2, :3] + located.T_cam_map[2, 3]
    known = found(X) & (there > 0)
    assert keyframe.view is not None
    if known.sum() < _MIN_COMMON or len(here) < _MIN_COMMON:
        return None
    distance, nearest = cKDTree(at).query(located.uv[known])
    near = distance < _NEAR * keyframe.view.lens.scale
    ratios = np.log(there[known][near] / here[nearest[near]])
    if len(ratios) < _MIN_COMMON:
        return None
    middle = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
    return float(np.exp(middle)) if spread < _MAX_SPREAD else None


def _agree(a: Sighting, b: Sighting, other: Map) -> bool:
    """Both put the later camera to the same place of the other map, with the same scale."""
    scales = [np.log(np.linalg.det(s.S_other_this[:3, :3])) / 3.0 for s in (a, b)]
    centre = np.append(b.keyframe.T_map_cam[:3, 3], 1.0)
    moved = np.linalg.norm(((a.S_other_this - b.S_other_this) @ centre)[:3])
    T = b.located.T_cam_map
    X = other.points(b.located.ids)
    depth = float(np.median((X @ T[2, :3] + T[2, 3])[found(X)]))
    R = a.S_other_this[:3, :3] @ b.S_other_this[:3, :3].T / np.exp(scales[0] + scales[1])
    return bool(
        abs(scales[0] - scales[1]) < _MAX_SCALE
        and rotation_angle(R) < _MAX_TURN
        and moved < _MAX_MOVE * depth
    )
