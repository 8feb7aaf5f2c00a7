# SPDX-License-Identifier: Apache-2.0
"""From the first image to a map: wait for a view with a baseline to the reference, then place all frames that waited."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.locating import LEAST, SHARE, turned
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.matching import match
from recon3d_ros.backends.geometric.pose import locate
from recon3d_ros.backends.geometric.start import two_views
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.core.geometry import Array, body_from_optical, inverse, transform
from recon3d_ros.core.types import Floats, Pose, Tracking

#: Tracks, in number and as a share of the reference's, below which the reference moves on.
_MIN_TRACKS, _MIN_ALIVE = 60, 0.35
#: Tracks that must survive from one view to the next for these to count as followed.
_MIN_FOLLOWED = 30
#: Frames that wait for the start at most.
PATIENCE = 300


@dataclass(frozen=True, eq=False)
class Waiting:
    """A frame without pose yet: the tracks ids [N] it saw at centred pixels uv [N,2]."""

    index: int
    stamp_ns: int
    ids: Ints
    uv: Array


class Initialiser:
    """Tracks from a reference view until two views make a map. The reference is where the map begins."""

    def __init__(self, world: Map, tracker: Tracker) -> None:
        self.map, self.tracker = world, tracker
        self.waiting: deque[Waiting] = deque()
        #: Views in a row that could be followed from one to the next.
        self.followed = 0
        self._reference: View | None = None

    def step(self, view: View, begin: bool = True) -> bool:
        """Take the next view; True when the map has begun: it then holds the reference and this view as keyframes. Unless
        it may `begin`, views are followed only."""
        reference = self._reference
        if reference is None:
            self._refer(view)
            return False
        survival = self.tracker.follow(view.grey)
        tracks = len(self.tracker.ids)
        self.followed = self.followed + 1 if survival >= _MIN_ALIVE and tracks >= _MIN_FOLLOWED else 0
        if not begin:
            if tracks < max(_MIN_TRACKS, _MIN_ALIVE * self.tracker.anchored):
                self._refer(view)
            else:
                ids, uv = self.tracker.ids, view.lens.centred(self.tracker.px)
                self.waiting.append(Waiting(view.index, view.stamp_ns, ids[found(uv)], uv[found(uv)]))
            return False
        ids, px_ref, px = self._pairs(reference, view)
        ref, now = reference.lens.centred(px_ref), view.lens.centred(px)
        two = two_views(ref, now, view.lens)
        if two is None:
            if len(ids) < _MIN_TRACKS:
                self._refer(view)
            else:
                self.waiting.append(Waiting(view.index, view.stamp_ns, ids, now))
            return False
        self.waiting.append(Waiting(view.index, view.stamp_ns, ids, now))
        T_ref_map = inverse(body_from_optical())
        self.map.place(ids, transform(inverse(T_ref_map), two.points))
        self.map.add(Keyframe(reference.index, reference, T_ref_map, ids, px_ref, ref))
        self.map.add(Keyframe(view.index, view, two.T_now_ref @ T_ref_map, ids, px, now))
        return True

    def overdue(self) -> list[Waiting]:
        """Frames that have waited too long, taken off the list."""
        return [self.waiting.popleft() for _ in range(len(self.waiting) - PATIENCE)]

    def placed(self) -> list[tuple[Waiting, Pose | None, Tracking]]:
        """The waiting frames, their poses T_cam_map now that the map has begun, and how these were found. Frames before
        the reference that do not see the map are placed by rotation; the pose is None where that fails too."""
        first, last = self.map.keyframes[:2]
        placed = {k.index: (k.T_cam_map, Tracking.TRACKING) for k in (first, last)}
        frames = {w.index: w for w in self.waiting}
        after = [(w, w.index - 1) for w in self.waiting if first.index < w.index < last.index]
        before = [(w, w.index + 1) for w in reversed(self.waiting) if w.index < first.index]
        for w, beside in after + before:
            if beside in placed:
                pose = self._pose(w, frames.get(beside), placed[beside][0])
                placed |= {w.index: pose} if pose is not None else {}
        return [(w, *placed.get(w.index, (None, Tracking.INITIALISING))) for w in self.waiting]

    def _pose(self, w: Waiting, beside: Waiting | None, T_beside: Pose) -> tuple[Pose, Tracking] | None:
        assert self._reference is not None
        focal, scale = self.map.focal, self._reference.lens.scale
        seen = found(self.map.points(w.ids))
        here = (
            locate(T_beside, self.map.points(w.ids[seen]), w.uv[seen], focal, scale) if seen.any() else None
        )
        if here is not None and here.accepted(LEAST, SHARE):
            return here.T_cam_map, Tracking.TRACKING
        if beside is None:
            return None
        _, there, mine = np.intersect1d(beside.ids, w.ids, return_indices=True)
        T = turned(beside.uv[there], w.uv[mine], focal, scale)
        return None if T is None else (T @ T_beside, Tracking.ROTATION_ONLY)

    def _refer(self, view: View) -> None:
        """Make a view the reference: what is still tracked, and new corners."""
        self._reference = view
        corners = self.tracker.corners(view.grey, self.tracker.px)
        px = np.concatenate([self.tracker.px, corners])
        ids = np.concatenate([self.tracker.ids, self.map.allocate(len(corners))])
        uv = view.lens.centred(px)
        known = found(uv)
        self.tracker.anchor(view.grey, ids[known], px[known])
        self.waiting.append(Waiting(view.index, view.stamp_ns, ids[known], uv[known]))

    def _pairs(self, reference: View, view: View) -> tuple[Ints, Floats, Floats]:
        """Track ids and their pixels in the reference and the view: by flow, or by matching once most are lost."""
        tracker = self.tracker
        known = found(view.lens.centred(tracker.px))
        if len(tracker.ids) >= max(_MIN_TRACKS, _MIN_ALIVE * tracker.anchored):
            return tracker.ids[known], tracker.anchor_px[known], tracker.px[known]
        # So few survive only where the views have little in common for tracking; then those that do are mostly wrong.
        a, b = reference.features, view.features
        pairs = match(a, b, view.lens)
        new = pairs[a.ids[pairs[:, 0]] < 0, 0]
        a.ids[new] = self.map.allocate(len(new))
        b.ids[pairs[:, 1]] = a.ids[pairs[:, 0]]
        return a.ids[pairs[:, 0]], a.px[pairs[:, 0]], b.px[pairs[:, 1]]
