# SPDX-License-Identifier: Apache-2.0
"""From keyframes in their order to closed loops. A keyframe is looked up among the older ones by its looks, verified by the
points that both see, and believed once a following keyframe says the same: a loop that is missed costs accuracy, a false
one the map."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.loops.landmarks import Landmarks, resume_landmarks, save_landmarks
from recon3d_ros.backends.geometric.loops.pose_graph import Edge, chain, solve
from recon3d_ros.backends.geometric.loops.verify import LEAST, apart, drift, relate
from recon3d_ros.backends.geometric.loops.vlad import Descriptors, Places
from recon3d_ros.core.errors import MissingDependency
from recon3d_ros.core.geometry import Array, inverse
from recon3d_ros.core.packing import part_of, within
from recon3d_ros.core.types import Arrays, Pose

log = logging.getLogger(__name__)

#: Keyframes just behind that are no loop, and how many of the others are tried.
_NEWEST, _TRIED = 8, 3
#: Times that the way to a place must be longer than the distance, besides its depth.
_DETOUR = 2.0
#: A sighting has to be confirmed within so many keyframes, by one that differs in place (median depths), angle and log of
#: the scale by less than this.
_PATIENCE, _AGREE = 4, (0.1, np.radians(3.0), 0.1)
#: Keyframes without a sighting after which the next one is another loop.
_APART = 20
#: Smaller errors are left: place (median depths), angle, log of the scale; and keyframes between two corrections.
_NOTICED, _PAUSE = (0.002, np.radians(0.1), 0.002), 5


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The keyframes of a map at one time: indices, poses (map to camera), and the ids of the tracks that each observes."""

    indices: list[int]
    T_cam_map: list[Pose]
    seen: list[Ints]

    @cached_property
    def poses(self) -> list[Pose]:
        """Camera to map."""
        return [inverse(T) for T in self.T_cam_map]

    def pose(self, index: int) -> Pose:
        """Camera to map."""
        return self.poses[self.indices.index(index)]

    def left_behind(self, depth: float) -> set[int]:
        """Keyframes that the camera left: the way from there is much longer than the distance. Where it goes straight on,
        the same scene stays in view, and that is no loop."""
        centres = np.array([T[:3, 3] for T in self.poses])
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        way = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
        left = way > _DETOUR * np.linalg.norm(centres - centres[-1], axis=1) + depth
        return {index for index, gone in zip(self.indices, left, strict=True) if gone}


@dataclass(frozen=True, eq=False)
class Sighting:
    """An old keyframe seen again: S_old_new in camera coordinates, and the similarity of the map that it calls for.
    number: of the keyframe among those that were looked up. confirmed: by another one."""

    old: int
    new: int
    S_old_new: Array
    drift: Array
    number: int
    confirmed: bool = False


class LoopSearch:
    """Not for two threads at a time, except `places`. loops: how many were believed. rejected: sightings that were not."""

    def __init__(self) -> None:
        self.places = Places()
        self.loops = self.rejected = 0
        self._landmarks: dict[int, Landmarks] = {}
        self._sightings: list[Sighting] = []
        self._last: Sighting | None = None
        self._number = 0
        self._closed, self._seen = -_PAUSE, -_APART
        self._unused = False
        self._told = False

    def step(self, marks: Landmarks, descriptors: Descriptors, now: Snapshot | None) -> Closing | None:
        """Take the next keyframe; the loop it closes, if any. now: the map; None if it is out of date, then the keyframe is
        only remembered."""
        self._number += 1
        closing = None if now is None else self._look(marks, descriptors, now)
        if closing is not None:
            self._closed = self._number
        self.places.add(marks.index, descriptors)
        self._landmarks[marks.index] = marks
        return closing

    def finish(self, now: Snapshot) -> Closing | None:
        """No keyframe follows: use all sightings once more."""
        return self._close(now) if self._unused else None

    def closed(self, closing: Closing) -> None:
        """The map was bent: carry what is remembered into its units."""
        for index, marks in self._landmarks.items():
            marks.grow(closing.scale(index))
        self._sightings = [
            replace(s, S_old_new=_grown(closing.scale(s.old), s.S_old_new, closing.scale(s.new)))
            for s in self._sightings
        ]
        self._last, self._unused = None, False

    def grow(self, scale: float) -> None:
        """The map grew by a factor."""
        for marks in self._landmarks.values():
            marks.grow(scale)
        self._sightings = [replace(s, S_old_new=_grown(scale, s.S_old_new, scale)) for s in self._sightings]
        self._last = None

    def saved(self) -> Arrays:
        """What is remembered of the keyframes. Loops that were seen are in their poses."""
        marks = save_landmarks(list(self._landmarks.values()))
        return {**within("landmarks", marks), **within("places", self.places.saved())}

    def resume(self, arrays: Arrays, lens: Lens) -> None:
        """Remember what was saved. lens: stands for those of all images; only that of the latest one is ever asked for."""
        self.places.resume(part_of("places", arrays))
        marks = resume_landmarks(part_of("landmarks", arrays), lens)
        self._landmarks = {m.index: m for m in marks}
        self._number = len(marks)

    def absorb(self, other: LoopSearch) -> None:
        """Take over the keyframes of a map in the same coordinates."""
        self._landmarks = dict(sorted((self._landmarks | other._landmarks).items()))
        self._sightings += other._sightings
        self.places.absorb(other.places)
        self.loops += other.loops
        self.rejected += other.rejected
        self._last = None

    def _look(self, marks: Landmarks, descriptors: Descriptors, now: Snapshot) -> Closing | None:
        sighting = self._sighting(marks, descriptors, now)
        before = self._last
        if before is not None and self._number - before.number > _PATIENCE:
            self.rejected += not before.confirmed
            before = self._last = None
        if sighting is None:
            return None
        at, depth = now.pose(marks.index)[:3, 3], marks.depth
        agreed = before is not None and _within(apart(sighting.drift, before.drift, at, depth), _AGREE)
        if before is None or not agreed:
            self.rejected += before is not None and not before.confirmed
            self._last = sighting
            return None
        self._believe(before, sighting)
        noticed = not _within(apart(sighting.drift, np.eye(4), at, depth), _NOTICED)
        due = self._number - self._closed >= _PAUSE
        return self._close(now) if noticed and due else None

    def _believe(self, before: Sighting, sighting: Sighting) -> None:
        if not before.confirmed:
            self._sightings.append(before)
        if self._number - self._seen > _APART:
            self.loops += 1
            log.info("loop found: keyframe %d sees the place of keyframe %d", sighting.new, sighting.old)
        self._seen = self._number
        self._last = replace(sighting, confirmed=True)
        self._sightings.append(sighting)
        self._unused = True

    def _sighting(self, marks: Landmarks, descriptors: Descriptors, now: Snapshot) -> Sighting | None:
        older = set(list(self._landmarks)[:-_NEWEST]) & now.left_behind(marks.depth)
        for index in self.places.rank(descriptors, older, _TRIED):
            relation = relate(self._landmarks[index], marks)
            if relation.accepted:
                S = relation.S_old_new
                calls_for = drift(now.pose(index), now.pose(marks.index), S)
                return Sighting(index, marks.index, S, calls_for, self._number)
            self.rejected += relation.matches >= LEAST
        return None

    def _close(self, now: Snapshot) -> Closing | None:
        at = {index: i for i, index in enumerate(now.indices)}
        edges = chain(now.poses, now.seen)
        edges += [
            Edge(at[s.old], at[s.new], s.S_old_new) for s in self._sightings if {s.old, s.new} <= at.keys()
        ]
        try:
            bent = solve(now.poses, edges, self._depths(now))
        except MissingDependency as error:
            if not self._told:
                log.warning("a loop was found and is not closed: %s", error)
            self._told = True
            return None
        moves = {i: S @ inverse(T) for i, S, T in zip(now.indices, bent, now.poses, strict=True)}
        return Closing(moves)

    def _depths(self, now: Snapshot) -> list[float]:
        """Median depths of the keyframes; where not known, that of the one before."""
        depth, depths = 1.0, []
        for index in now.indices:
            marks = self._landmarks.get(index)
            if marks is not None and np.isfinite(marks.depth):
                depth = marks.depth
            depths.append(depth)
        return depths


def _within(differences: tuple[float, float, float], limits: tuple[float, float, float]) -> bool:
    return all(d < limit for d, limit in zip(differences, limits, strict=True))


def _grown(scale_a: float, S_a_b: Array, scale_b: float) -> Array:
    """S_a_b once the surroundings of a and b have grown."""
    S = S_a_b.copy()
    S[:3] *= scale_a
    S[:3, :3] /= scale_b
    return S
