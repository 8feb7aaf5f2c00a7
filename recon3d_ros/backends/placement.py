# SPDX-License-Identifier: Apache-2.0
"""Where one map of a backend of unknown scale lies in metres: undecided at first, then fixed, then following the drift of
the scale (geometric specification, section A12)."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from dataclasses import replace

import numpy as np

from recon3d_ros.backends.metric_scale import levelling, placed_first
from recon3d_ros.backends.reference import Hint, Reference
from recon3d_ros.core.config import ScaleParams
from recon3d_ros.core.geometry import Array, apply_similarity, scale_of, similarity, transform
from recon3d_ros.core.types import Arrays, Gravity, Pose, Scale, Tracking, Update

log = logging.getLogger(__name__)

#: Positions are fitted anew when there are so many times as many as at the last fit.
_GROWTH = 1.5
#: An update that moves more keyframes than this closes a loop.
_LOOP = 30
#: Standard deviations by which the newest keyframes must contradict the scale before it follows them.
_SIGNIFICANT = 1.0


class Placement:
    """map <- engine's world: a similarity for each stretch of frames. What a keyframe was given out with stays its own,
    unless all of them are placed anew.

    held: updates with depth, in the engine's unit, that wait for the scale. told: keyframes that were given out.
    """

    def __init__(self, params: ScaleParams) -> None:
        self.params = params
        self.reference = Reference(params)
        self.held: list[Update] = []
        self.told: set[int] = set()
        self.gravity = Gravity.UNKNOWN
        self.is_fixed = self._gave_up = self._depth_told = self._is_placed = self._is_saved = False
        self._awaited = bool(params.camera_height)
        self._starts, self._similarities = [0], [np.eye(4)]
        self._fitted = 0
        self._has_news = False
        self._bent_from: int | None = None

    @property
    def waits(self) -> bool:
        """Whether depth is to be held back."""
        return self._awaited and not (self.is_fixed or self._gave_up or self._is_saved)

    @property
    def newest(self) -> Array:
        """The similarity of the newest frames."""
        return self._similarities[-1]

    def similarity(self, index: int) -> Array:
        """The similarity of a frame."""
        return self._similarities[bisect_right(self._starts, index) - 1]

    def expect(self) -> None:
        """Something that tells the scale came with a frame."""
        if not self._awaited and self._depth_told and not self._is_saved:
            log.warning("metres are known too late: depth was given out before, the map keeps its unit")
            self._gave_up = True
        self._awaited = True

    def note(self, update: Update, hint: Hint | None) -> None:
        """Take in an update of the engine, and what came with its frame."""
        if len(update.corrections) > _LOOP:
            self._bent_from = min(update.corrections)
        for index in update.corrections.keys() & self.told:
            self.reference.poses[index] = update.corrections[index]
        T = update.T_map_cam
        if T is not None and update.is_keyframe:
            self.told.add(update.index)
            sure = hint if hint is not None and update.tracking is Tracking.TRACKING else Hint()
            self._has_news |= self.reference.add(update.index, T, sure)
        if T is not None and hint is not None and hint.up is not None:
            self.reference.add_up(T, hint.up, update.stamp_ns)
        if update.depth is not None:
            if self._awaited or self.reference.saw_up:
                self._has_news |= self.reference.add_depth(update)
            self._depth_told |= not self._awaited

    def settle(self, last_index: int, coarse: bool = False) -> bool:
        """Decide with what is known now; True where all keyframes moved. last_index: of the newest frame answered. coarse:
        nothing more will come."""
        news, self._has_news = self._has_news, False
        if self._is_saved:
            return False
        if self._gave_up or not self._awaited:
            return self._level()
        if self.is_fixed:
            return self._unbend() or ((news or coarse) and self._improve(last_index, coarse))
        overdue = len(self.held) >= self.params.wait
        fit = self.reference.fit(coarse or overdue) if news or overdue or coarse else None
        if fit is None:
            if overdue or (coarse and self.held):
                self._give_up()
            return self._place_first() or self._level()
        if not fit.oriented:
            log.warning(
                "the given orientations contradict the given path and are left out: are they those of the camera?"
            )
        log.info("a unit of the map is %.4g m (+- %.1f %%)", fit.scale, 100 * fit.deviation)
        self.is_fixed, self.gravity, self._fitted = True, fit.gravity, self.reference.count()
        self._place(self._levelled(fit.S) if fit.gravity is Gravity.PLANE else fit.S)
        return True

    def _improve(self, last_index: int, finishing: bool) -> bool:
        if self.reference.is_absolute:
            return self._refit(finishing)
        if not finishing:
            self._follow(last_index)
        return False

    def release(self) -> list[Update]:
        """The updates that waited, once nothing is waited for."""
        if self.waits:
            return []
        held, self.held = self.held, []
        known = self.reference.poses
        return [
            self.mapped(replace(u, T_map_cam=known.get(u.index, u.T_map_cam), revises=True, corrections={}))
            for u in held
        ]

    def mapped(self, update: Update) -> Update:
        """An update of the engine as it is in the map, without its corrections."""
        S = self.similarity(update.index)
        return replace(
            update,
            T_map_cam=None if update.T_map_cam is None else apply_similarity(S, update.T_map_cam),
            depth=None if update.depth is None else update.depth * np.float32(scale_of(S)),
            corrections={},
            scale=Scale.PRIOR if self.is_fixed else update.scale,
            gravity=self.gravity,
        )

    def poses(self) -> dict[int, Pose]:
        """The keyframes that were given out, as they are now in the map."""
        known = self.reference.poses
        return {i: apply_similarity(self.similarity(i), known[i]) for i in sorted(self.told) if i in known}

    def take(self, other: Placement, S: Array, map_id: int) -> None:
        """Another map became part of this one, `map_id`. S: its coordinates to this one's, both of the engine."""
        self.reference.take(other.reference, scale_of(S))
        self.told |= other.told
        self._awaited |= other._awaited
        self._depth_told |= other._depth_told
        factor = np.float32(scale_of(S))
        held = [replace(u, depth=u.depth * factor) for u in other.held if u.depth is not None]
        self.held = [replace(u, map_id=map_id) for u in self.held + held]

    def saved(self) -> Arrays:
        """Where the map lies."""
        return {
            "starts": np.array(self._starts),
            "similarities": np.array(self._similarities),
            "is_fixed": np.array(self.is_fixed),
            "gravity": np.array(self.gravity.value),
        }

    def resume(self, arrays: Arrays) -> None:
        """Lie where a saved map lay, for good: others hold on to its places."""
        self._starts, self._similarities = arrays["starts"].tolist(), list(arrays["similarities"])
        self.is_fixed, self.gravity = bool(arrays["is_fixed"]), Gravity(str(arrays["gravity"]))
        self._is_saved = True

    def statistics(self) -> dict[str, float]:
        """prior_scale: metres per unit of the engine as used; prior_scale_now: by the newest keyframes."""
        if not self.is_fixed:
            return {}
        now = self.reference.scale_now(self.newest)
        out = {"prior_scale": scale_of(self.newest)}
        return out if now is None else {**out, "prior_scale_now": now[0]}

    def _place(self, S: Array) -> None:
        self._starts, self._similarities = [0], [S]
        self._is_placed = True

    def _place_first(self) -> bool:
        """Until the scale is known a map with given poses begins where those say."""
        first = None if self._is_placed else self.reference.first_prior()
        if first is None:
            return False
        self._place(placed_first(*first))
        self.gravity = Gravity.PRIOR
        return True

    def _level(self) -> bool:
        """Gravity alone, by the IMU."""
        up = self.reference.up if self.gravity is Gravity.UNKNOWN else None
        if up is None:
            return False
        self.gravity = Gravity.IMU
        self._place(similarity(1.0, levelling(up), np.zeros(3)))
        return True

    def _levelled(self, S: Array) -> Array:
        """The similarity with the IMU's up, where there is one, in place of the ground's."""
        up = self.reference.up
        if up is None:
            return S
        self.gravity = Gravity.IMU
        return similarity(scale_of(S), levelling(up), np.zeros(3))

    def _unbend(self) -> bool:
        """A loop was closed: what it moved has one scale again, and so one similarity."""
        start, self._bent_from = self._bent_from, None
        kept = len(self._starts) if start is None else bisect_right(self._starts, start)
        is_bent = kept < len(self._starts)
        del self._starts[kept:], self._similarities[kept:]
        return is_bent

    def _refit(self, finishing: bool) -> bool:
        grown = self._fitted + 1 if finishing else math.ceil(_GROWTH * self._fitted)
        if self.reference.count() < grown:
            return False
        self._fitted = self.reference.count()
        fit = self.reference.fit()
        if fit is not None:
            self._place(fit.S)
        return fit is not None

    def _follow(self, last_index: int) -> None:
        """Let the scale go towards what the newest keyframes say; the newest stays where it is."""
        S = self.newest
        now = self.reference.scale_now(S)
        if now is None:
            return
        wanted = math.log(now[0] / scale_of(S))
        # At first each keyframe adds as much to what is known as those before.
        share = (
            max(self.params.follow, 1 / (1 + self.reference.count() - self._fitted))
            if self.params.follow
            else 0.0
        )
        step = share * math.copysign(max(abs(wanted) - _SIGNIFICANT * now[1], 0.0), wanted)
        if not step:
            return
        centre = self.reference.poses[max(self.reference.poses)][:3, 3]
        turned = math.exp(step) * S[:3, :3]
        self._starts.append(last_index + 1)
        self._similarities.append(similarity(1.0, turned, transform(S, centre) - turned @ centre))

    def _give_up(self) -> None:
        log.warning("what is known of the camera does not tell the scale: the map keeps its own unit")
        self._gave_up = True
