# SPDX-License-Identifier: Apache-2.0
"""The map: points by track id, and keyframes with what they observed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints, Observations, adjust
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.matching import Features, detect
from recon3d_ros.backends.geometric.triangulation import triangulate
from recon3d_ros.core.geometry import Array, inverse
from recon3d_ros.core.types import Floats, Image, Pose

#: Keyframes whose images are kept for matching.
RECENT = 100
#: Keyframes from which a point is triangulated at most.
_TRIANGULATED = 20
_FIXED = 12
_STEPS = 6
#: Pixels by which a point may miss an observation: when it is made, and after the adjustment.
_MAX_ERROR, _MAX_ADJUSTED_ERROR = 2.5, 2.0
_MIN_ANGLE = np.radians(1.0)


@dataclass(eq=False)
class View:
    """One image on its way through the engine. grey: uint8 [H,W] as tracked; image: uint8 [H,W,3], the same in colour, None
    once nobody needs it any more."""

    index: int
    stamp_ns: int
    image: Image | None
    grey: Image
    lens: Lens

    @cached_property
    def features(self) -> Features:
        """SIFT keypoints, found when first asked for."""
        return detect(self.grey, self.lens)


@dataclass(eq=False)
class Keyframe:
    """A view that stays. view: None once its image was given up. T_cam_map: map to camera. Its observations are the tracks
    ids int64 [N] at px float32 [N,2], centred uv float64 [N,2]. baseline: False where only its rotation is known."""

    index: int
    view: View | None
    T_cam_map: Pose
    ids: Ints
    px: Floats
    uv: Array
    baseline: bool = True

    @property
    def T_map_cam(self) -> Pose:
        """Camera to map."""
        return inverse(self.T_cam_map)

    def observe(self, ids: Ints, px: Floats, uv: Array) -> None:
        """Add observations of tracks that it has not yet."""
        self.ids, self.px = np.concatenate([self.ids, ids]), np.concatenate([self.px, px])
        self.uv = np.concatenate([self.uv, uv])


class Map:
    """Points and keyframes of one connected piece of the world, in one scale. focal: pixels of all centred pixels."""

    def __init__(self, focal: float) -> None:
        self.focal = focal
        self.keyframes: list[Keyframe] = []
        self._points = np.full((4096, 3), np.nan)
        self._tracks = 0

    def allocate(self, count: int) -> Ints:
        """Ids of new tracks, without points yet."""
        ids = np.arange(self._tracks, self._tracks + count)
        self._tracks += count
        if self._tracks > len(self._points):
            more = np.full((max(len(self._points), count), 3), np.nan)
            self._points = np.concatenate([self._points, more])
        return ids

    def points(self, ids: Ints) -> Array:
        """Points [N,3] of tracks; NaN where there is none."""
        return self._points[ids]

    def place(self, ids: Ints, points: Array) -> None:
        """Set the points of tracks; NaN takes one away."""
        self._points[ids] = points

    def add(self, keyframe: Keyframe) -> None:
        """Append a keyframe; the image of one that is long past is given up."""
        self.keyframes.append(keyframe)
        if len(self.keyframes) > RECENT:
            self.keyframes[-RECENT - 1].view = None

    def keyframe(self, index: int) -> Keyframe:
        """The keyframe that is frame `index`."""
        return self.keyframes[bisect_left(self.keyframes, index, key=lambda k: k.index)]

    def triangulate(self, keyframe: Keyframe, scale: float) -> None:
        """Give points to those tracks of a keyframe that were seen under a sufficient angle."""
        ids = np.unique(keyframe.ids[~found(self.points(keyframe.ids))])
        keyframes = [k for k in self.keyframes[-_TRIANGULATED:] if k.baseline]
        if len(ids) and len(keyframes) > 1:
            seen = _observations(keyframes, ids)
            self.place(ids, triangulate(_poses(keyframes), seen, self.focal, _MIN_ANGLE, _MAX_ERROR * scale))

    def adjust(self, window: int, scale: float) -> Ints:
        """Bundle adjustment of the last `window` keyframes and the points they see; points that do not fit are taken away.
        Returns the ids of those."""
        free = [k for k in self.keyframes[-window:] if k.baseline]
        ids = np.unique(np.concatenate([k.ids for k in free] or [np.empty(0, np.int64)]))
        ids = ids[found(self.points(ids))]
        fixed = self._witnesses(ids, self.keyframes[-RECENT:-window])
        if not fixed:
            free, fixed = free[1:], free[:1]
        seen = _observations([*free, *fixed], ids)
        twice = np.diff(seen.start) > 1
        ids, seen = ids[twice], _observations([*free, *fixed], ids[twice])
        if not free or not len(ids):
            return ids[:0]
        T, X, errors = adjust(
            _poses([*free, *fixed]), self.points(ids), seen, self.focal, len(free), np.sqrt(scale), _STEPS
        )
        for k, T_cam_map in zip(free, T, strict=False):
            k.T_cam_map = T_cam_map
        self.place(ids, X)
        bad = ids[np.unique(seen.point()[errors > _MAX_ADJUSTED_ERROR * scale])]
        self.place(bad, np.full((len(bad), 3), np.nan))
        return bad

    def median_depth(self, keyframe: Keyframe) -> float:
        """Median depth of the points a keyframe sees; NaN if it sees none."""
        depths = self.depths(keyframe)[1]
        return float(np.median(depths)) if len(depths) else float("nan")

    def depths(self, keyframe: Keyframe) -> tuple[Array, Array]:
        """Centred pixels [N,2] and depths [N] of the points a keyframe sees."""
        X = self.points(keyframe.ids)
        z = X @ keyframe.T_cam_map[2, :3] + keyframe.T_cam_map[2, 3]
        known = np.isfinite(z) & (z > 0)
        return keyframe.uv[known], z[known]

    def _witnesses(self, ids: Ints, older: Sequence[Keyframe]) -> list[Keyframe]:
        """Up to `_FIXED` older keyframes that see most of the points."""
        wanted = np.zeros(self._tracks, bool)
        wanted[ids] = True
        shared = [int(wanted[k.ids].sum()) if k.baseline else 0 for k in older]
        order = sorted(range(len(older)), key=lambda i: (-shared[i], -i))
        return [older[i] for i in order[:_FIXED] if shared[i] > 0]


def _poses(keyframes: Sequence[Keyframe]) -> Array:
    return np.array([k.T_cam_map for k in keyframes])


def _observations(keyframes: Sequence[Keyframe], ids: Ints) -> Observations:
    """What the keyframes saw of the tracks `ids` (sorted, each once); cameras are numbered as given."""
    seen = np.concatenate([k.ids for k in keyframes])
    camera = np.repeat(np.arange(len(keyframes)), [len(k.ids) for k in keyframes])
    uv = np.concatenate([k.uv for k in keyframes])
    point = np.minimum(np.searchsorted(ids, seen), max(len(ids) - 1, 0))
    wanted = np.flatnonzero(ids[point] == seen) if len(ids) else np.empty(0, np.int64)
    order = wanted[np.argsort(point[wanted], kind="stable")]
    start = np.searchsorted(point[order], np.arange(len(ids) + 1))
    return Observations(camera[order], np.ascontiguousarray(uv[order]), start)
