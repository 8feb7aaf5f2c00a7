# SPDX-License-Identifier: Apache-2.0
"""How the camera moves. Where it will be in the next view: as given poses say it moved, else as it moved last. And which
keyframes it has come back to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.map import RECENT, Keyframe, Map
from recon3d_ros.core.geometry import (
    Array,
    apply_similarity,
    inverse,
    orthonormalised,
    scale_of,
    transform,
)
from recon3d_ros.core.types import Floats, Pose

#: Share of the paths so far that is forgotten at each view, so that the ratio of the two follows the drift of the scale.
_FORGETTING = 0.05
#: Cosine of the angle between views that look the same way, and between such that have nothing in common. How far a camera
#: that turned away and back may have gone (median depths), and the share of tracks that shows that it found it again.
_SAME_VIEW, _ELSEWHERE = 0.9, 0.5
_PLACE, _SHARED = 0.3, 0.1


class Motion:
    """last: T_cam_map of the latest view. Given poses (camera to any fixed frame) count for their motion alone; their unit
    is found from the lengths of the two paths."""

    def __init__(self) -> None:
        self.last: Pose = np.eye(4)
        self._velocity: Pose = np.eye(4)
        self._prior: Pose | None = None
        self._path = self._prior_path = 0.0

    def predict(self, prior: Pose | None = None) -> Pose:
        """T_cam_map of the next view, which comes with a given pose or without one."""
        step = self._velocity
        if prior is not None and self._prior is not None:
            step = inverse(prior) @ self._prior
            step[:3, 3] *= self._path / self._prior_path if self._prior_path else 0.0
        return orthonormalised(step @ self.last)

    def moved(self, T_cam_map: Pose, prior: Pose | None = None, has_baseline: bool = True) -> None:
        """The next view was found there."""
        step = orthonormalised(T_cam_map @ inverse(self.last))
        if prior is not None and self._prior is not None and has_baseline:
            kept = 1.0 - _FORGETTING
            self._path = kept * self._path + float(np.linalg.norm(step[:3, 3]))
            self._prior_path = kept * self._prior_path + float(
                np.linalg.norm(self._prior[:3, 3] - prior[:3, 3])
            )
        self.last, self._velocity, self._prior = T_cam_map, step, prior

    def stop(self, T_cam_map: Pose, prior: Pose | None = None) -> None:
        """The camera was found again at a place; how it moves is not known."""
        self.last, self._velocity, self._prior = T_cam_map, np.eye(4), prior

    def adjust(self, T_cam_map: Pose) -> None:
        """The latest view was adjusted."""
        self.last = T_cam_map

    def move(self, S: Array) -> None:
        """The map was carried through a similarity 4x4."""
        scale = scale_of(S)
        self.last = inverse(apply_similarity(S, inverse(self.last)))
        self._velocity = self._velocity.copy()
        self._velocity[:3, 3] *= scale
        self._path *= scale


def expected_pixels(ids: Ints, px: Floats, lens: Lens, world: Map, T_last: Pose, T_next: Pose) -> Floats:
    """Pixels float32 [N,2] where tracks ids [N], at px [N,2] in the last view, should be in the next one; for those that
    should be outside, where they are. Tracks without a point are taken to lie as deep as most of the others."""
    points = world.points(ids)
    known = found(points)
    if not known.any():
        return px
    depth = float(np.median(points[known] @ T_last[2, :3] + T_last[2, 3]))
    uv = lens.centred(px[~known])
    beyond = np.column_stack([uv / lens.focal, np.ones(len(uv))]) * depth
    points[~known] = transform(inverse(T_last), beyond)
    expected = lens.project(T_next, points)
    return np.where(np.isfinite(expected), expected, px)


def looking_there(keyframes: Iterable[Keyframe], T_cam_map: Pose) -> list[Keyframe]:
    """Those keyframes with baseline that look where a camera looks."""
    return [k for k in keyframes if k.baseline and k.T_cam_map[2, :3] @ T_cam_map[2, :3] > _SAME_VIEW]


def turned_back(world: Map, T_cam_map: Pose) -> list[Keyframe]:
    """Keyframes looking where the camera looks that it turned away from and came back to without going far in between: a
    way round is for loop closing, which spreads what is off over all of it. None once one is tied to what is seen now by
    common tracks."""
    last, here = world.keyframes[-1], inverse(T_cam_map)[:3, 3]
    recent = world.keyframes[-RECENT:]
    distances = np.linalg.norm([k.T_map_cam[:3, 3] - here for k in recent], axis=1)
    far = np.flatnonzero(distances > _PLACE * world.median_depth(last))
    stayed = recent[far[-1] + 1 if len(far) else 0 :]
    axes = np.array([k.T_cam_map[2, :3] for k in stayed]).reshape(-1, 3)
    turned = np.triu(axes @ axes.T < _ELSEWHERE).any(axis=1)
    away = looking_there(compress(stayed, turned), T_cam_map)
    tied = any(np.isin(k.ids, last.ids).mean() > _SHARED for k in away)
    return [] if tied else away
