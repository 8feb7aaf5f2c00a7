# SPDX-License-Identifier: Apache-2.0
"""Depth of all maps: that of the current one, and what those that were left still owe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.depth_feed import DepthFeed
from recon3d_ros.backends.geometric.piece import Piece
from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.geometry import scale_of
from recon3d_ros.core.types import Join, Update


@dataclass(eq=False)
class _Feed:
    """The feed of a map. scale: by which the map has grown since it was left."""

    feed: DepthFeed
    map_id: int
    scale: float = 1.0


class DepthFeeds:
    """One feed is fed at a time. Offline, a feed that is left is waited for; live, it delivers while the next one works."""

    def __init__(self, piece: Piece, params: GeometricParams, realtime: bool) -> None:
        self.params, self.realtime = params, realtime
        self._current = self._new(piece)
        self._left: list[_Feed] = []
        self._counts = {"depth_dropped": 0, "depth_failed": 0}

    def step(self) -> list[Update]:
        """Offer new keyframes of the current map; return what is finished."""
        updates = self._collect_left(wait=False)
        self._current.feed.offer()
        return updates + self._collect(self._current)

    def finish(self) -> list[Update]:
        """Wait for all."""
        updates = self._collect_left(wait=True)
        self._current.feed.offer(following=0)
        return updates + self._collect(self._current, wait=True)

    def leave(self) -> list[Update]:
        """No keyframe follows in the current map as it is; returns what is finished."""
        self._current.feed.offer(following=0)
        self._left.append(self._current)
        return self._collect_left(wait=not self.realtime)

    def change(self, piece: Piece) -> list[Update]:
        """Go on in another map; returns what is finished of the one before."""
        updates = self.leave()
        self._current = self._new(piece)
        return updates

    def join(self, join: Join, piece: Piece) -> None:
        """After `leave`: go on in the map that two became."""
        scale = scale_of(join.S_kept_moved)
        for left in self._left:
            if left.map_id == join.moved:
                left.scale *= scale
            if left.map_id in (join.kept, join.moved):
                left.map_id = piece.id
        self._current = self._new(piece)

    def bend(self, scale: Callable[[int], float]) -> None:
        """The surroundings of each keyframe of the current map grew by scale(its index)."""
        self._current.feed.bend(scale)

    def close(self) -> None:
        """Stop the workers."""
        for each in (self._current, *self._left):
            each.feed.close()

    def statistics(self) -> dict[str, float]:
        """Counters over all feeds, and stage times of the current one."""
        workers = [each.feed.worker for each in (self._current, *self._left)]
        return {
            "depth_dropped": self._counts["depth_dropped"] + sum(w.dropped for w in workers),
            "depth_failed": self._counts["depth_failed"] + sum(w.failed for w in workers),
            **self._current.feed.worker.stage_ms(),
        }

    def _new(self, piece: Piece) -> _Feed:
        return _Feed(DepthFeed(piece.map, self.params, self.realtime), piece.id)

    def _collect_left(self, wait: bool) -> list[Update]:
        updates = []
        for left in list(self._left):
            # Once idle it has nothing to wait for, and gives what it held back.
            done = wait or left.feed.worker.idle
            updates += self._collect(left, wait=done)
            if done:
                self._close(left)
        return updates

    def _close(self, left: _Feed) -> None:
        self._left.remove(left)
        left.feed.close()
        self._counts["depth_dropped"] += left.feed.worker.dropped
        self._counts["depth_failed"] += left.feed.worker.failed

    def _collect(self, which: _Feed, wait: bool = False) -> list[Update]:
        updates = [dataclasses.replace(u, map_id=which.map_id) for u in which.feed.collect(wait)]
        if which.scale == 1.0:
            return updates
        scale = np.float32(which.scale)
        return [u if u.depth is None else dataclasses.replace(u, depth=u.depth * scale) for u in updates]
