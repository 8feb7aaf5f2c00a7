# SPDX-License-Identifier: Apache-2.0
"""Frame by frame: predict, follow the tracks, solve the pose, decide on a keyframe. What ways there are when one fails, in
order: matches against the last keyframes, the pure rotation, and when lost, matches against any keyframe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.locating import Located, by_flow, by_matches, by_rotation
from recon3d_ros.backends.geometric.map import RECENT, Keyframe, Map, View
from recon3d_ros.backends.geometric.motion import Motion, expected_pixels, looking_there, turned_back
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.geometry import Array, inverse, rotation_angle
from recon3d_ros.core.types import Floats, Image, Pose, Tracking
from recon3d_ros.keyframing.gate import KeyframeGate
from recon3d_ros.keyframing.sharpness import Sharpness

#: Share of tracks that must survive a frame, and for how many frames matching replaces tracking after one where fewer did;
#: unless so many survive, and have moved so little, that the one before was a gap in a smooth video. There matching, a
#: quarter of a second a frame, would make a live camera miss the next frames, and so lead to the next gap.
_SURVIVAL, _STICKY, _SMOOTH = 0.35, 11, 0.8
_MATCHED_KEYFRAMES = 4
#: Inliers that accept a view matched with these. With 16 the pose after a cut was 15 % of the depth off.
_MATCHED = 20
#: Points that must confirm a tracked view before a keyframe is due, as a share of the tracks aimed for.
_MIN_SUPPORT = 0.12
#: What accepts a place found after loss: inliers, their share, and how far the next frame's may be from it.
RELOCALISED, RELOCALISED_SHARE = 30, 0.5
_MAX_TURN, _MAX_MOVE = np.radians(30.0), 1.0
#: How far a pose that fewer points than that confirm may be from the predicted one, in median depths and angle.
_MAX_SURPRISE, _MAX_SURPRISE_TURN = 0.15, np.radians(10.0)
_TRIED_WHEN_LOST = 3
#: Frames between two attempts to find what was seen before a turn.
_UNTRIED = 3


@dataclass(frozen=True, eq=False)
class Placed:
    """A view and where it is; keyframe: the reason to make one of it, or ""."""

    view: View
    located: Located
    keyframe: str


class FrontEnd:
    """Holds what is known of the motion: the last pose, the velocity, the tracks, and whether the camera is lost."""

    def __init__(self, world: Map, tracker: Tracker, gate: KeyframeGate, stages: Stages) -> None:
        self.map, self.tracker, self.gate, self.stages = world, tracker, gate, stages
        self.lost = False
        #: Indices of the keyframes that look most like an image.
        self.alike: Callable[[Image], list[int]] = lambda grey: []
        #: A view found again, waiting for the next one to confirm it.
        self.candidate: Placed | None = None
        self.motion = Motion()
        self._sharpness, self._sharp = Sharpness(), 1.0
        self._matching = 0
        self._turn = self._untried = 0

    def place(self, view: View) -> Placed | None:
        """Where the view is, or None: the camera is then lost."""
        guess = self.motion.predict(view.prior)
        with self.stages("track"):
            survival = self.tracker.follow(view.grey, self._expected_pixels(view, guess))
        if self.gate.params.min_sharpness:
            self._sharp = self._sharpness.relative(view.grey)
        self._matching = self._frames_to_match(view, survival)
        placed = self._by_matches(view) or self._by_flow(view, guess) or self._by_rotation(view)
        if placed is None:
            self.lost = True
            return None
        located = placed.located
        self.motion.moved(located.T_cam_map, view.prior, located.tracking is Tracking.TRACKING)
        return placed

    def search(self, view: View) -> list[Placed]:
        """Look for a view while lost. A place counts once the next view confirms it: then both are returned."""
        before, self.candidate = self.candidate, None
        with self.stages("match"):
            located = by_matches(view, self.map, self.places(view), RELOCALISED, RELOCALISED_SHARE)
        if located is None:
            return []
        placed = Placed(view, located, "found again")
        if before is None or not self._near(before.located, located):
            self.candidate = placed
            return []
        self.lost = False
        self.motion.stop(located.T_cam_map, view.prior)
        return [Placed(before.view, before.located, ""), placed]

    def move(self, S: Array) -> None:
        """The map was carried through a similarity 4x4."""
        self.candidate = None
        self.motion.move(S)

    def anchor(self, keyframe: Keyframe) -> None:
        """Track from a new keyframe, whose pose may have been adjusted."""
        assert keyframe.view is not None
        self.tracker.anchor(keyframe.view.grey, keyframe.ids, keyframe.px, rest=True)
        self.motion.adjust(keyframe.T_cam_map)
        self.gate.made()

    def _frames_to_match(self, view: View, survival: float) -> int:
        """For how many frames, this one included, matching replaces tracking."""
        if survival < _SURVIVAL:
            return _STICKY
        if self._matching <= 1:
            return 0
        flow, _ = self.tracker.since_anchor(view.lens.size)
        if survival > _SMOOTH and flow < 0.25 * self.gate.params.min_flow:
            return 0
        return self._matching - 1

    def _expected_pixels(self, view: View, T_guess: Pose) -> Floats | None:
        """Where to look for the tracks, if a given pose tells. The motion so far does not: where it changes, they would be
        looked for in the wrong place."""
        if view.prior is None:
            return None
        tracker = self.tracker
        return expected_pixels(tracker.ids, tracker.px, view.lens, self.map, self.motion.last, T_guess)

    def _by_flow(self, view: View, guess: Pose) -> Placed | None:
        with self.stages("pose"):
            located = by_flow(view, self.map, self.tracker, guess)
        if located is None or not (located.support >= RELOCALISED or self._expected(located, guess)):
            return None
        flow, alive = self.tracker.since_anchor(view.lens.size)
        weak = located.support < _MIN_SUPPORT * self.tracker.followed
        if weak and flow > 0.5 * self.gate.params.min_flow:
            alive = 0.0
        reason = self.gate.decide(flow, alive, self._sharp)
        again = self._turned_back(view, located)
        if reason and again is None:
            self._wake()
            located = by_flow(view, self.map, self.tracker, located.T_cam_map) or located
        return again or Placed(view, located, reason)

    def _by_matches(self, view: View) -> Placed | None:
        if not self._matching:
            return None
        keyframes = [k for k in self.map.keyframes[-RECENT:] if k.baseline][-_MATCHED_KEYFRAMES:]
        with self.stages("match"):
            located = by_matches(view, self.map, keyframes, _MATCHED)
        return None if located is None else Placed(view, located, "matched")

    def _by_rotation(self, view: View) -> Placed | None:
        located = by_rotation(view, self.map, self.tracker)
        if located is None:
            return None
        reason = self.gate.decide(*self.tracker.since_anchor(view.lens.size), self._sharp)
        if not reason:
            return Placed(view, located, "")
        again = self._seen_before(view, looking_there(self.map.keyframes[-RECENT:], located.T_cam_map))
        if again is None:
            self._wake()
            located = by_rotation(view, self.map, self.tracker) or located
        return again or Placed(view, located, reason)

    def _wake(self) -> None:
        with self.stages("track"):
            self.tracker.wake()

    def _turned_back(self, view: View, located: Located) -> Placed | None:
        """Points first seen in a turn tell little of the place: where the camera has come back, those from before do."""
        self._untried += 1
        if self._untried < _UNTRIED:
            return None
        self._untried = 0
        back = turned_back(self.map, located.T_cam_map)
        return self._seen_before(view, back) if back else None

    def _seen_before(self, view: View, alike: list[Keyframe]) -> Placed | None:
        """Match a view with older keyframes that look its way."""
        with self.stages("match"):
            again = by_matches(view, self.map, alike[-_MATCHED_KEYFRAMES:], RELOCALISED, RELOCALISED_SHARE)
        return None if again is None else Placed(view, again, "seen before")

    def places(self, view: View) -> list[Keyframe]:
        """Keyframes to look at when lost: the last ones, older ones that look like the view, and others by turns."""
        known = [k for k in self.map.keyframes[-RECENT:] if k.baseline]
        older, latest = known[:-_MATCHED_KEYFRAMES], known[-_MATCHED_KEYFRAMES:]
        alike = set(self.alike(view.grey)) if older else set()
        chosen = [k for k in older if k.index in alike]
        others = [k for k in older if k.index not in alike]
        in_turn = min(max(_TRIED_WHEN_LOST - len(chosen), 1), len(others))
        chosen += [others[(self._turn + i) % len(others)] for i in range(in_turn)]
        self._turn += in_turn
        return chosen + latest

    def _near(self, a: Located, b: Located) -> bool:
        move, turn = self._apart(a.T_cam_map, b)
        return move < _MAX_MOVE and turn < _MAX_TURN

    def _expected(self, located: Located, T_guess: Pose) -> bool:
        """Whether a pose that few points confirm is where the motion so far leads: they fit many a pose."""
        move, turn = self._apart(T_guess, located)
        return move < _MAX_SURPRISE and turn < _MAX_SURPRISE_TURN

    def _apart(self, T_cam_map: Pose, b: Located) -> tuple[float, float]:
        """Distance of two poses in median depths of what the second sees, and the angle between them."""
        T = T_cam_map @ inverse(b.T_cam_map)
        points = self.map.points(b.ids)
        points = points[found(points)]
        depth = np.median(points @ b.T_cam_map[2, :3] + b.T_cam_map[2, 3]) if len(points) else 1.0
        return float(np.linalg.norm(T[:3, 3]) / depth), rotation_angle(T[:3, :3])
