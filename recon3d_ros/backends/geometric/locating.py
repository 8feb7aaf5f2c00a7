# SPDX-License-Identifier: Apache-2.0
"""Where a view is in the map, by three ways: tracks that were followed, keypoints matched against keyframes, and the
rotation against the last keyframe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.linear import found, reprojection_errors
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.matching import Features, match
from recon3d_ros.backends.geometric.pose import best_rotation, locate, locate_anywhere
from recon3d_ros.backends.geometric.tracker import Tracker, reacquire
from recon3d_ros.core.geometry import Array, inverse, pose, transform
from recon3d_ros.core.types import Floats, Pose, Tracking

#: Points that a pose must fit, in number and as a share of those it could.
LEAST, SHARE = 15, 0.3
#: Tracks that a rotation needs, and the median error up to which the motion passes as one, in pixels.
_ROTATION_TRACKS, _ROTATION_ERROR = 30, 2.0


@dataclass(frozen=True, eq=False)
class Located:
    """T_cam_map of a view, how it was found, and the tracks it saw: ids [N], px float32 [N,2], uv float64 [N,2] centred.
    support: points of the map that confirm it."""

    T_cam_map: Pose
    tracking: Tracking
    ids: Ints
    px: Floats
    uv: Array
    support: int


def by_flow(view: View, world: Map, tracker: Tracker, T_guess: Pose) -> Located | None:
    """From the tracks that are alive; those that do not fit the pose are dropped."""
    uv = view.lens.centred(tracker.px)
    seen = found(world.points(tracker.ids)) & found(uv)
    if seen.sum() < LEAST:
        return None
    here = locate(T_guess, world.points(tracker.ids[seen]), uv[seen], world.focal, view.lens.scale)
    if not here.accepted(LEAST, SHARE):
        return None
    good = found(uv)
    good[seen] = here.inliers
    tracker.keep(good)
    return Located(
        here.T_cam_map, Tracking.TRACKING, tracker.ids, tracker.px, uv[good], int(here.inliers.sum())
    )


def by_rotation(view: View, world: Map, tracker: Tracker) -> Located | None:
    """As a pure rotation about the centre of the last keyframe, if the tracks agree with one."""
    keyframe = world.keyframes[-1]
    assert keyframe.view is not None
    before, now = keyframe.view.lens.centred(tracker.anchor_px), view.lens.centred(tracker.px)
    known = found(before) & found(now)
    T_now_before = turned(before[known], now[known], world.focal, view.lens.scale)
    if T_now_before is None:
        return None
    tracker.keep(known)
    T = T_now_before @ keyframe.T_cam_map
    return Located(T, Tracking.ROTATION_ONLY, tracker.ids, tracker.px, now[known], 0)


def turned(before: Array, now: Array, focal: float, scale: float) -> Pose | None:
    """T_now_before of a camera that only turned, from centred pixels [N,2]; None if it did more, or too few say so."""
    if len(before) < _ROTATION_TRACKS:
        return None
    R, left = best_rotation(before, now, focal)
    return pose(R, np.zeros(3)) if left * focal < _ROTATION_ERROR * scale else None


def by_matches(
    view: View, world: Map, keyframes: Sequence[Keyframe], least: int = LEAST, share: float = SHARE
) -> Located | None:
    """From SIFT matches against keyframes (the latest last), accepted with `least` inliers that are at least this share.
    The matched keypoints become tracks of the view and of the keyframes."""
    pairs = _matches(view, keyframes)
    points = _matched_points(view.features, world, pairs)
    seen = found(points)
    if seen.sum() < least:
        return None
    here = locate_anywhere(points[seen], view.features.uv[seen], world.focal, view.lens.scale)
    if not here.accepted(least, share):
        return None
    _link(view.features, world, pairs)
    best = max(pairs, key=lambda pair: len(pair[1]))[0]
    return _seen_from(view, world, best, here.T_cam_map, int(here.inliers.sum()))


def tracks_by_matches(view: View, world: Map, keyframes: Sequence[Keyframe], T_cam_map: Pose) -> Located:
    """The tracks of a view whose pose is known, from SIFT matches against keyframes (the latest last)."""
    pairs = _matches(view, keyframes)
    features = view.features
    _link(features, world, pairs)
    errors = reprojection_errors(T_cam_map, world.points(features.ids), features.uv, world.focal)
    features.ids[errors > 2.5 * view.lens.scale] = -1
    linked = features.ids >= 0
    ids, px, uv = features.ids[linked], features.px[linked], features.uv[linked]
    return Located(T_cam_map, Tracking.TRACKING, ids, px, uv, len(ids))


def _matches(view: View, keyframes: Sequence[Keyframe]) -> list[tuple[Keyframe, Ints]]:
    """Of each keyframe whose image is kept, the latest first: rows of its keypoints and of the view's that match."""
    kept = [(k, k.view) for k in reversed(keyframes) if k.view is not None]
    return [(k, match(seen.features, view.features, view.lens)) for k, seen in kept]


def _seen_from(view: View, world: Map, keyframe: Keyframe, T: Pose, support: int) -> Located:
    """The tracks of a view with known pose: its linked keypoints, and the keyframe's points found again near where they
    must be. These points, unlike borrowed depth, are exact: with enough of them the pose is refined."""
    features, lens = view.features, view.lens
    linked = features.ids >= 0
    ids, px = features.ids[linked], features.px[linked]
    again, px_again = _found_again(view, world, keyframe, T, ids)
    ids, px = np.concatenate([ids, again]), np.concatenate([px, px_again])
    uv = lens.centred(px)
    ids, px, uv = ids[found(uv)], px[found(uv)], uv[found(uv)]
    exact = found(world.points(ids))
    if exact.sum() >= 2 * LEAST:
        here = locate(T, world.points(ids[exact]), uv[exact], world.focal, lens.scale)
        T = here.T_cam_map if here.accepted(2 * LEAST, 0.5) else T
    wrong = reprojection_errors(T, world.points(ids), uv, world.focal) > 2.5 * lens.scale
    features.ids[np.isin(features.ids, ids[wrong])] = -1
    return Located(T, Tracking.TRACKING, ids[~wrong], px[~wrong], uv[~wrong], support)


def _found_again(view: View, world: Map, keyframe: Keyframe, T: Pose, known: Ints) -> tuple[Ints, Floats]:
    """Points of a keyframe that Lucas-Kanade finds in the view, started where the pose puts them: ids and pixels."""
    guess = view.lens.project(T, world.points(keyframe.ids))
    wanted = np.flatnonzero(found(guess) & ~np.isin(keyframe.ids, known))
    # Those of a map that was loaded may be of another size, where only keypoints are compared.
    if not len(wanted) or keyframe.view is None or keyframe.view.grey.shape != view.grey.shape:
        return known[:0], guess[:0]
    px, good = reacquire(keyframe.view.grey, view.grey, keyframe.px[wanted], guess[wanted], view.lens.scale)
    return keyframe.ids[wanted[good]], px[good]


def _matched_points(features: Features, world: Map, pairs: list[tuple[Keyframe, Ints]]) -> Array:
    """A point [N,3] for each keypoint of the view, NaN for none: of its track, else by depth borrowed in a keyframe."""
    exact, borrowed = np.full((len(features.ids), 3), np.nan), np.full((len(features.ids), 3), np.nan)
    for keyframe, rows in pairs:
        assert keyframe.view is not None
        own = keyframe.view.features
        ids = own.ids[rows[:, 0]]
        X = np.where((ids >= 0)[:, None], world.points(ids), np.nan)
        _fill(exact, rows[:, 1], X)
        _fill(borrowed, rows[:, 1], _borrow(keyframe, world, own.uv[rows[:, 0]]))
    return np.where(found(exact)[:, None], exact, borrowed)


def _fill(points: Array, rows: Ints, values: Array) -> None:
    empty = ~found(points[rows])
    points[rows[empty]] = values[empty]


def _borrow(keyframe: Keyframe, world: Map, uv: Array) -> Array:
    """Points [N,3] for keypoints uv [N,2] of a keyframe, by borrowed depth; NaN for none."""
    if keyframe.view is None:
        return np.full((len(uv), 3), np.nan)
    depth = depths_near(*world.depths(keyframe), uv, keyframe.view.lens.scale)
    rays = np.column_stack([uv / world.focal, np.ones(len(uv))])
    return transform(inverse(keyframe.T_cam_map), rays * depth[:, None])


def depths_near(at: Array, z: Array, uv: Array, scale: float) -> Array:
    """Depths [N] at centred pixels uv [N,2]: of a point of depth z [M] at `at` [M,2] within 4 pixels, or the mean
    of three of about equal depth within 20 pixels; NaN for none."""
    if len(z) < 3:
        return np.full(len(uv), np.nan)
    distance, nearest = cKDTree(at).query(uv, k=3)
    three = z[nearest]
    flat = (distance[:, 2] < 20 * scale) & (three.max(axis=1) < 1.1 * three.min(axis=1))
    depth = np.where(flat, three.mean(axis=1), np.nan)
    return np.where(distance[:, 0] < 4 * scale, three[:, 0], depth)


def _link(features: Features, world: Map, pairs: list[tuple[Keyframe, Ints]]) -> None:
    """Give the keypoints of a view the tracks of their partners, new ones if needed; those with a point come first."""
    for with_point in (True, False):
        for keyframe, rows in pairs:
            assert keyframe.view is not None
            own = keyframe.view.features
            ids = own.ids[rows[:, 0]]
            open_rows = (features.ids[rows[:, 1]] < 0) & ~((ids >= 0) & np.isin(ids, features.ids))
            if with_point:
                open_rows &= (ids >= 0) & found(world.points(ids))
            a, b = rows[open_rows, 0], rows[open_rows, 1]
            new = a[own.ids[a] < 0]
            own.ids[new] = world.allocate(len(new))
            keyframe.observe(own.ids[new], own.px[new], own.uv[new])
            features.ids[b] = own.ids[a]
