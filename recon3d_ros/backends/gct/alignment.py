# SPDX-License-Identifier: Apache-2.0
"""How a window lies in the map: every window has a frame and a scale of its own, and shares its first frames with the end
of the window before (specification, section 11.3). Windows are sequences of `View`: `prev` already in the map, `cur` in its
own frame; with `overlap` shared frames, frame len(prev) - overlap + j of `prev` is frame j of `cur`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.geometry import Array, orthonormalised, pose, transform
from recon3d_ros.core.types import Floats, Pose

#: Bounds of the scale between two windows.
SCALES = (1e-3, 1e3)
#: Depths of smaller magnitude have no ratio.
LEAST_DEPTH = 1e-6


@dataclass(frozen=True, eq=False)
class View:
    """One frame of a window. T_world_cam: float64 4x4, in the window's frame or in the map. depth: float32 [h,w] along z,
    in the unit of that frame. confidence: float32 [h,w], or None. Scale frames are keyframes."""

    T_world_cam: Pose
    depth: Floats
    confidence: Floats | None = None
    is_keyframe: bool = True


@dataclass(frozen=True, eq=False)
class Similarity:
    """X_map = scale * R @ X_window + t, with R [3,3] and t [3]."""

    scale: float
    R: Array
    t: Array

    @classmethod
    def identity(cls) -> Similarity:
        """That of the first window."""
        return cls(1.0, np.eye(3), np.zeros(3))

    def apply_points(self, points: Array) -> Array:
        """Points [...,3] of the window in the map."""
        return transform(pose(self.scale * self.R, self.t), points)

    def apply_pose(self, T_window_cam: Pose) -> Pose:
        """The pose 4x4 in the map of a camera of the window."""
        return pose(self.R @ T_window_cam[:3, :3], self.apply_points(T_window_cam[:3, 3]))

    def apply_depth(self, depth: Floats) -> Floats:
        """Depth of the window in units of the map."""
        return depth * np.float32(self.scale)


#: A rule of alignment: `prev`, `cur` and the number of frames they share, to window -> map.
Rule = Callable[[Sequence[View], Sequence[View], int], Similarity]
Pair = tuple[View, View]


def first_frame(prev: Sequence[View], cur: Sequence[View], overlap: int) -> Similarity:
    """Pose and median depth ratio of the first shared frame. Raises ValueError if the windows share none."""
    first = _shared(prev, cur, overlap)[0]
    return _at(first, _lower_median(_ratios(first)))


def paired_keyframes(prev: Sequence[View], cur: Sequence[View], overlap: int) -> Similarity:
    """Pose of the last frame that is a keyframe of both windows, median depth ratio of all such frames; without one,
    `first_frame`. Raises ValueError if the windows share no frame."""
    pairs = [(a, b) for a, b in _shared(prev, cur, overlap) if a.is_keyframe and b.is_keyframe]
    if not pairs:
        return first_frame(prev, cur, overlap)
    return _at(pairs[-1], _lower_median(np.concatenate([_ratios(pair) for pair in pairs])))


def robust(prev: Sequence[View], cur: Sequence[View], overlap: int) -> Similarity:
    """All shared keyframes (without one, the first shared frame) and trusted depth only: the reference has no such rule
    (D16).

    Scale: median depth ratio of the pixels that are in both windows at least as trusted as their frame's median. Rotation:
    chordal mean of the frames' rotations. Translation: mean of the camera centres', given scale and rotation. Raises
    ValueError if the windows share no frame.
    """
    shared = _shared(prev, cur, overlap)
    pairs = [(a, b) for a, b in shared if a.is_keyframe and b.is_keyframe] or shared[:1]
    s = _lower_median(np.concatenate([_ratios(pair, trusted_only=True) for pair in pairs]))
    total = sum(a.T_world_cam[:3, :3] @ b.T_world_cam[:3, :3].T for a, b in pairs)
    R = orthonormalised(pose(np.asarray(total), np.zeros(3)))[:3, :3]
    offsets = [a.T_world_cam[:3, 3] - s * R @ b.T_world_cam[:3, 3] for a, b in pairs]
    return Similarity(s, R, np.mean(offsets, axis=0))


def anchored(T_map_cam: Pose, T_window_cam: Pose, scale: float) -> Similarity:
    """The similarity of that scale that puts a camera of the window where it stands in the map."""
    R = T_map_cam[:3, :3] @ T_window_cam[:3, :3].T
    return Similarity(scale, R, T_map_cam[:3, 3] - scale * R @ T_window_cam[:3, 3])


#: The rules by the names of the parameter gct.alignment.
RULES: dict[str, Rule] = {"first": first_frame, "keyframes": paired_keyframes, "robust": robust}


def _shared(prev: Sequence[View], cur: Sequence[View], overlap: int) -> list[Pair]:
    if not 0 < overlap <= min(len(prev), len(cur)):
        raise ValueError(f"windows of {len(prev)} and {len(cur)} frames cannot share {overlap}")
    return list(zip(prev[len(prev) - overlap :], cur[:overlap], strict=True))


def _at(pair: Pair, scale: float) -> Similarity:
    a, b = pair
    return anchored(a.T_world_cam, b.T_world_cam, scale)


def _ratios(pair: Pair, trusted_only: bool = False) -> Array:
    """Depth ratios [N] float64 of the pixels of a frame that both windows know."""
    a, b = (view.depth.astype(np.float64) for view in pair)
    known = np.isfinite(a) & np.isfinite(b) & (np.abs(b) > LEAST_DEPTH)
    if trusted_only:
        known &= (a > 0) & (b > 0)
        for view in pair:
            if view.confidence is not None:
                known &= view.confidence >= np.median(view.confidence)
    return a[known] / b[known]


def _lower_median(ratios: Array) -> float:
    """The lower of the two middle values of an even count, within `SCALES`; 1 when there is none."""
    if not len(ratios):
        return 1.0
    middle = (len(ratios) - 1) // 2
    return float(np.clip(np.partition(ratios, middle)[middle], *SCALES))
