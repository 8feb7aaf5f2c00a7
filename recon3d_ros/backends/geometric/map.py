# SPDX-License-Identifier: Apache-2.0
"""The map: points by track id, and keyframes with what they observed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recon3d_ros.backends.geometric.bundle import (
    Calibrated,
    Ints,
    Observations,
    adjust,
    adjust_focal,
    total_cost,
)
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.matching import Features, detect
from recon3d_ros.backends.geometric.triangulation import triangulate
from recon3d_ros.core.geometry import Array, apply_similarity, inverse, transform
from recon3d_ros.core.types import Floats, Image, Pose

#: Keyframes whose images are kept for matching.
RECENT = 100
#: Keyframes from which a point is triangulated at most.
_TRIANGULATED = 20
_FIXED = 12
_STEPS = 6
#: Keyframes whose poses are free with the focal length, and steps of that adjustment.
CALIBRATED, _CALIBRATION_STEPS = 24, 15
#: Pixels by which a point may miss an observation: when it is made, and after the adjustment.
_MAX_ERROR, _MAX_ADJUSTED_ERROR = 2.5, 2.0
_MIN_ANGLE = np.radians(1.0)


@dataclass(eq=False)
class View:
    """One image on its way through the engine. grey: uint8 [H,W] as tracked; image: uint8 [H,W,3], the same in colour, None
    once nobody needs it any more. prior: pose that came with it, camera to the frame of these poses."""

    index: int
    stamp_ns: int
    image: Image | None
    grey: Image
    lens: Lens
    prior: Pose | None = None

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

    def give_up(self) -> None:
        """Keep the pose and which tracks were seen: nothing else is needed of a keyframe that is long past."""
        self.view, self.px, self.uv = None, np.empty((0, 2), np.float32), np.empty((0, 2))


@dataclass(frozen=True, eq=False)
class Calibration:
    """An adjustment with the focal length as an unknown, not yet taken: of which keyframes, of the points of which tracks
    ids [M], and the observations it rests on. cost: with the focal length of the map."""

    keyframes: Sequence[Keyframe]
    ids: Ints
    seen: Observations
    found: Calibrated
    cost: float


class Map:
    """Points and keyframes of one connected piece of the world, in one scale. focal: pixels of all centred pixels."""

    def __init__(self, focal: float) -> None:
        self.focal = focal
        #: False while the focal length may still change (see `focal.FocalSearch`).
        self.focal_settled = True
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

    @property
    def tracks(self) -> int:
        """Number of tracks so far, those without a point among them; their ids count from 0."""
        return self._tracks

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
            self.keyframes[-RECENT - 1].give_up()

    def keyframe(self, index: int) -> Keyframe:
        """The keyframe that is frame `index`."""
        return self.keyframes[bisect_left(self.keyframes, index, key=lambda k: k.index)]

    def move(self, S: Array) -> None:
        """Carry points and keyframes through a similarity 4x4."""
        self._points = transform(S, self._points)
        for k in self.keyframes:
            k.T_cam_map = inverse(apply_similarity(S, k.T_map_cam))

    def absorb(self, other: Map) -> int:
        """Take over points and keyframes of a map in the same coordinates; returns by how much its track ids grew."""
        offset = int(self.allocate(other._tracks)[0]) if other._tracks else 0
        self.place(offset + np.arange(other._tracks), other._points[: other._tracks])
        for k in other.keyframes:
            k.ids = k.ids + offset
            # Keypoints found already know the track they belong to.
            if k.view is not None and "features" in vars(k.view):
                k.view.features.ids[k.view.features.ids >= 0] += offset
        self.keyframes[:] = sorted([*other.keyframes, *self.keyframes], key=lambda k: k.index)
        for k in self.keyframes[:-RECENT]:
            k.give_up()
        return offset

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

    def calibrated(self, scale: float) -> Calibration | None:
        """Bundle adjustment of the last keyframes, all poses and points and the focal length free; nothing is changed. None
        where too little is seen."""
        keyframes = [k for k in self.keyframes[-CALIBRATED:] if k.baseline]
        keyframes = [*keyframes[1:], *keyframes[:1]]  # the first holds the gauge
        ids = np.unique(np.concatenate([k.ids for k in keyframes] or [np.empty(0, np.int64)]))
        ids = ids[found(self.points(ids))]
        ids = ids[np.diff(_observations(keyframes, ids).start) > 1]
        if len(keyframes) < 3 or not len(ids):
            return None
        seen, free, huber = _observations(keyframes, ids), len(keyframes) - 1, np.sqrt(scale)
        T, X, _ = adjust(
            _poses(keyframes), self.points(ids), seen, self.focal, free, huber, _CALIBRATION_STEPS
        )
        cost = total_cost(T, X, seen, self.focal, huber)
        result = adjust_focal(T, X, seen, self.focal, free, huber, _CALIBRATION_STEPS)
        return Calibration(keyframes, ids, seen, result, cost)

    def take(self, calibration: Calibration, scale: float) -> None:
        """Make the result of a calibration that of the map; points that do not fit are taken away."""
        result = calibration.found
        self.focal = result.focal
        for k, T_cam_map in zip(calibration.keyframes, result.T_cam_map, strict=True):
            k.T_cam_map = T_cam_map
        self.place(calibration.ids, result.points)
        wrong = calibration.seen.point()[result.errors > _MAX_ADJUSTED_ERROR * scale]
        bad = calibration.ids[np.unique(wrong)]
        self.place(bad, np.full((len(bad), 3), np.nan))

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
        first = int(ids[0]) if len(ids) else self._tracks
        wanted = np.zeros(self._tracks - first, bool)
        wanted[ids - first] = True
        shared = [int(wanted[k.ids[k.ids >= first] - first].sum()) if k.baseline else 0 for k in older]
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
