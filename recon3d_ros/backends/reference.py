# SPDX-License-Identifier: Apache-2.0
"""What is known from outside of the keyframes of one map, and the similarity that follows from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.ground import ground_plane
from recon3d_ros.backends.metric_scale import (
    Fit,
    from_ground,
    from_poses,
    from_positions,
    mean_direction,
    scale_above_ground,
    scale_along,
)
from recon3d_ros.core.config import ScaleParams
from recon3d_ros.core.geometry import Array, rotation_angle, scale_of
from recon3d_ros.core.types import Floats, Pose, Update

#: Newest keyframes that say how the scale is now.
_NEWEST = 30
#: Slow: turn in radians and way in median depths a second. Samples of gravity needed, and kept.
_SLOW_TURN, _SLOW_WAY = 0.3, 0.15
_UPS, _UPS_KEPT = 10, 300
#: Keyframes before and after one between which its motion is taken, and the least motion in median depths.
_AROUND, _MIN_WAY = 3, 0.02


@dataclass(frozen=True, eq=False)
class Hint:
    """What came with a frame: its pose or its position in metres, and the direction against gravity in optical axes."""

    prior: Pose | None = None
    position: Array | None = None
    up: Array | None = None

    @property
    def tells_scale(self) -> bool:
        """Whether it says anything about metres."""
        return self.prior is not None or self.position is not None


class Reference:
    """Keyframes are added as they are answered; their poses are the newest of the engine, in its own world."""

    def __init__(self, params: ScaleParams) -> None:
        self.params = params
        self.poses: dict[int, Pose] = {}
        self._priors: dict[int, Pose] = {}
        self._positions: dict[int, Array] = {}
        self._grounds: dict[int, tuple[float, Array]] = {}
        self._depths: deque[float] = deque(maxlen=200)
        self._ups: deque[Array] = deque(maxlen=_UPS_KEPT)
        self._last: tuple[int, Pose] | None = None

    def add(self, index: int, T: Pose, hint: Hint) -> bool:
        """A keyframe and what is known of it; True where that says something about the scale."""
        self.poses[index] = T
        if hint.prior is not None:
            self._priors[index] = hint.prior
        if hint.position is not None:
            self._positions[index] = hint.position
        return hint.tells_scale

    def add_up(self, T: Pose, up: Array, stamp_ns: int) -> None:
        """Gravity seen by any frame; taken while the camera is slow."""
        last, self._last = self._last, (stamp_ns, T)
        if last is None:
            return
        seconds, before = (stamp_ns - last[0]) * 1e-9, last[1]
        way = float(np.linalg.norm(T[:3, 3] - before[:3, 3]))
        turn = rotation_angle(T[:3, :3] @ before[:3, :3].T)
        if way < _SLOW_WAY * self.depth * seconds and turn < _SLOW_TURN * seconds:
            self._ups.append(T[:3, :3] @ up / np.linalg.norm(up))

    def add_depth(self, update: Update) -> bool:
        """The depth of a keyframe; True where it tells the scale by the ground."""
        assert update.depth is not None
        if update.index not in self._grounds:
            self._depths.append(_median(update.depth))
        if not self.params.camera_height or update.camera is None:
            return False
        motion = self._motion(update.index)
        ground = None if motion is None else ground_plane(update.depth, update.camera, motion, update.index)
        if ground is not None:
            self._grounds[update.index] = ground
        return ground is not None

    def take(self, other: Reference, scale: float) -> None:
        """Another map became part of this one; its distances grow by `scale`. Its poses follow as corrections."""
        self.poses |= other.poses
        self._priors |= other._priors
        self._positions |= other._positions
        self._grounds |= {i: (scale * h, up) for i, (h, up) in other._grounds.items()}

    @property
    def depth(self) -> float:
        """Median depth of the keyframes, in the engine's unit."""
        known = [d for d in self._depths if np.isfinite(d)]
        return float(np.median(known)) if known else 1.0

    @property
    def saw_up(self) -> bool:
        """Whether any frame brought gravity."""
        return self._last is not None

    @property
    def up(self) -> Array | None:
        """Up in the engine's world, by the IMU; None while it is not known."""
        return mean_direction(np.array(self._ups)) if len(self._ups) >= _UPS else None

    @property
    def is_absolute(self) -> bool:
        """Whether what is known does not drift: then all of it counts, not the newest only."""
        return bool(self._positions) and not self._priors

    def count(self) -> int:
        """Keyframes of which something is known."""
        return len(self._known())

    def first_prior(self) -> tuple[Pose, Pose] | None:
        """The first keyframe with a given pose: in the engine's world, and as given."""
        for index, T in self._priors.items():
            return self.poses[index], T
        return None

    def fit(self, coarse: bool = False) -> Fit | None:
        """The similarity; None while it is not known."""
        if self._priors:
            ours, given = self._pairs(self._priors)
            return from_poses(ours, given, self.depth, coarse)
        if self._positions:
            ours, given = self._pairs(self._positions)
            return from_positions(ours[:, :3, 3], given, self.depth, coarse, self.up)
        if not self._grounds:
            return None
        heights, ups = self._heights(self._grounds)
        return from_ground(heights, ups, self.params.camera_height, coarse)

    def scale_now(self, S: Array) -> tuple[float, float] | None:
        """The scale by the newest keyframes and the deviation of its logarithm. S: similarity in use."""
        newest = list(self._known())[-_NEWEST:]
        if self._priors:
            ours, given = (side[:, :3, 3] for side in self._pairs({i: self._priors[i] for i in newest}))
            measured = scale_along(S[:3, :3] / scale_of(S), ours, given)
            return None if measured is None else measured[:2]
        if self._positions or not newest:
            return None
        heights, _ = self._heights({i: self._grounds[i] for i in newest})
        return scale_above_ground(heights, self.params.camera_height)

    def _motion(self, index: int) -> Array | None:
        """The way that the camera goes at a keyframe, in its optical axes; None where it hardly moves."""
        order = sorted(self.poses)
        here = order.index(index) if index in self.poses else -1
        if here < 0:
            return None
        around = order[max(here - _AROUND, 0) : here + _AROUND + 1]
        way = self.poses[around[-1]][:3, 3] - self.poses[around[0]][:3, 3]
        R = self.poses[index][:3, :3]
        return R.T @ way if np.linalg.norm(way) > _MIN_WAY * self.depth else None

    def _known(self) -> dict[int, Pose] | dict[int, Array] | dict[int, tuple[float, Array]]:
        return self._priors or self._positions or self._grounds

    def _pairs(self, given: dict[int, Pose] | dict[int, Array]) -> tuple[Array, Array]:
        return np.array([self.poses[i] for i in given]), np.array(list(given.values()))

    def _heights(self, grounds: dict[int, tuple[float, Array]]) -> tuple[Array, Array]:
        ups = [self.poses[i][:3, :3] @ up for i, (_, up) in grounds.items() if i in self.poses]
        return np.array([h for h, _ in grounds.values()]), np.array(ups)


def _median(depth: Floats) -> float:
    known = depth[::4, ::4]
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else float("nan")
