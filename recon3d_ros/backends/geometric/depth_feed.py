# SPDX-License-Identifier: Apache-2.0
"""Sends keyframes to the dense depth worker once they have neighbours on both sides, and turns its results into updates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon3d_ros.backends.geometric.dense import DenseKeyframe, DenseResult, DenseWorker, prepare
from recon3d_ros.backends.geometric.map import Map
from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.types import Tracking, Update

#: Keyframes that must follow before a keyframe gets its depth, and how far back its neighbours may lie.
_FOLLOWING, _PRECEDING = 3, 8
_NEIGHBOURS = 4
#: Baseline over median depth: what is allowed, and what is best.
_MIN_BASELINE, _MAX_BASELINE, _BEST_BASELINE = 0.02, 0.4, 0.12
_MIN_COSINE = np.cos(np.radians(30.0))
_MIN_POINTS = 10


class DepthFeed:
    """Depth of the keyframes of one map, off the pose path."""

    def __init__(self, world: Map, params: GeometricParams, realtime: bool) -> None:
        self.map, self.params = world, params
        self.worker = DenseWorker(params, realtime)
        #: Keyframes whose image is gone were given to another feed of this map.
        self._submitted = sum(k.view is None or k.view.image is None for k in world.keyframes)
        #: The small images of the latest keyframes, by position in the map.
        self._small: dict[int, DenseKeyframe] = {}
        self._prepared = self._submitted
        #: Keyframes before this position were held back: they wait for the worker rather than are dropped.
        self._held = 0
        #: Keyframes whose depth is being computed, and by how much their surroundings grew meanwhile.
        self._under_way: dict[int, float] = {}

    def offer(self, following: int = _FOLLOWING) -> None:
        """Take the new keyframes, and submit those that are followed by enough others; but none while the focal length may
        still change. following = 0: no keyframe comes any more."""
        if following and not self.map.focal_settled:
            self._held = len(self.map.keyframes)
            return
        for position in range(self._prepared, len(self.map.keyframes)):
            self._prepare(position)
        self._prepared = len(self.map.keyframes)
        while self._submitted < len(self.map.keyframes) - following:
            if following and self._submitted < self._held and self.worker.full:
                return
            self._submit(self._submitted)
            self._submitted += 1
            self._small.pop(self._submitted - 1 - _PRECEDING, None)

    def collect(self, wait: bool = False) -> list[Update]:
        """The updates of finished keyframes; with `wait`, of all that were submitted."""
        return [self._update(result) for result in self.worker.results(wait)]

    def bend(self, scale: Callable[[int], float]) -> None:
        """The surroundings of each keyframe grew by scale(its index): so does the depth that is still under way."""
        self._under_way = {index: growth * scale(index) for index, growth in self._under_way.items()}

    def close(self) -> None:
        """Stop the worker."""
        self.worker.close()

    def _prepare(self, position: int) -> None:
        keyframe = self.map.keyframes[position]
        view = keyframe.view
        assert view is not None and view.image is not None
        if keyframe.baseline:
            camera = view.lens.camera
            self._small[position] = prepare(view.index, view.stamp_ns, view.image, camera, self.params)
        view.image = None

    def _submit(self, position: int) -> None:
        keyframe = self.map.keyframes[position]
        neighbours = self._neighbours(position)
        depths = self.map.depths(keyframe)[1]
        if not neighbours or len(depths) < _MIN_POINTS:
            return
        near, far = np.percentile(depths, [2.0, 98.0])
        self._under_way[keyframe.index] = 1.0
        self.worker.submit(
            self._small[position],
            keyframe.T_map_cam,
            [(self._small[n], self.map.keyframes[n].T_map_cam) for n in neighbours],
            (0.7 * float(near), 2.5 * float(far)),
            patient=position < self._held,
        )

    def _neighbours(self, position: int) -> list[int]:
        """Positions of up to four keyframes around this one whose baseline is nearest to the best and that look the same
        way; none for a keyframe whose own baseline is not known."""
        keyframe = self.map.keyframes[position]
        depth = self.map.median_depth(keyframe)
        ranked = []
        for other in range(max(position - _PRECEDING, 0), min(position + _FOLLOWING + 1, self._prepared)):
            T = keyframe.T_cam_map @ self.map.keyframes[other].T_map_cam
            baseline = float(np.linalg.norm(T[:3, 3])) / depth
            usable = other in self._small and T[2, 2] > _MIN_COSINE
            if usable and _MIN_BASELINE <= baseline <= _MAX_BASELINE:
                ranked.append((abs(np.log(baseline / _BEST_BASELINE)), other))
        return [other for _, other in sorted(ranked)[:_NEIGHBOURS]] if keyframe.baseline else []

    def _update(self, result: DenseResult) -> Update:
        growth = self._under_way.pop(result.index, 1.0)
        depth = result.depth if growth == 1.0 else np.float32(growth) * result.depth
        return Update(
            result.index,
            result.stamp_ns,
            self.map.keyframe(result.index).T_map_cam,
            Tracking.TRACKING,
            is_keyframe=True,
            reason="depth",
            camera=result.camera,
            depth=depth,
            colours=result.colours,
            confidence=result.confidence,
            revises=True,
        )
