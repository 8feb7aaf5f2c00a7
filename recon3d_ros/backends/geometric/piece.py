# SPDX-License-Identifier: Apache-2.0
"""One connected piece of the world: its map, and all that works on it. A camera that stays lost begins another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recon3d_ros.backends.geometric.focal import FocalSearch
from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.frontend import FrontEnd, Placed
from recon3d_ros.backends.geometric.initialiser import Initialiser, Waiting
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.locating import Located
from recon3d_ros.backends.geometric.loops.closer import LoopCloser
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.mapper import Mapper
from recon3d_ros.backends.geometric.saving import resume_map, save_map
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import Array, inverse, scale_of
from recon3d_ros.core.packing import part_of, within
from recon3d_ros.core.types import Arrays, Join, Pose, Tracking, Update
from recon3d_ros.keyframing.gate import KeyframeGate


class Piece:
    """id: number of the map. Two pieces share neither origin nor scale."""

    def __init__(self, number: int, lens: Lens, config: Config, realtime: bool, stages: Stages) -> None:
        self.id, self.stages = number, stages
        self.map = Map(lens.focal)
        self.tracker = Tracker(config.geometric.tracks, lens.scale)
        self.initialiser = Initialiser(self.map, self.tracker)
        self.front = FrontEnd(self.map, self.tracker, KeyframeGate(config.keyframe), stages)
        self.mapper = Mapper(self.map, self.tracker, config.geometric, stages)
        self.frames = FramePoses()
        self.focal = FocalSearch(self.map, lens, self.frames)
        self.loops = LoopCloser(self.map, config.geometric.loops, realtime)
        self.front.alike = self.loops.alike

    def begin(self, answered: bool = False) -> list[Update]:
        """The first two keyframes are there: the answers to the frames that waited. answered: all but the last had one."""
        first, second = self.map.keyframes
        self.mapper.add_corners(second)
        self.front.anchor(second)
        placed = self.initialiser.placed()
        self.initialiser.waiting.clear()
        updates = []
        for waiting, T_cam_map, tracking in placed:
            revises = answered and waiting.index != second.index
            if T_cam_map is not None or not revises:
                updates.append(self._late(waiting, T_cam_map, tracking, revises))
        if first.index not in {u.index for u in updates}:
            self.frames.add(first.index, first, first.T_cam_map)
            updates.insert(0, self._keyframe(first, "first", revises=True))
        return updates

    def accept(self, placed: Placed) -> Update:
        """A view has its place in the map; make a keyframe of it where that is due."""
        view, located = placed.view, placed.located
        if placed.keyframe:
            keyframe = self.mapper.insert(placed)
            if keyframe.baseline:
                with self.stages("focal"):
                    self.focal.step(view)
            self.front.anchor(keyframe)
            self.frames.add(view.index, keyframe, keyframe.T_cam_map)
            return self._keyframe(keyframe, placed.keyframe)
        self.frames.add(view.index, self.map.keyframes[-1], located.T_cam_map)
        self.focal.saw(view, located.ids, located.uv)
        T = inverse(located.T_cam_map)
        return Update(view.index, view.stamp_ns, T, located.tracking, map_id=self.id)

    def told(self, reason: str, corrections: Mapping[int, Pose], join: Join | None = None) -> Update:
        """How older keyframes moved, said with the newest one."""
        newest = self.map.keyframes[-1]
        assert newest.view is not None
        return Update(
            newest.index,
            newest.view.stamp_ns,
            newest.T_map_cam,
            Tracking.TRACKING,
            reason=reason,
            revises=True,
            corrections=corrections,
            map_id=self.id,
            join=join,
        )

    def move(self, S: Array) -> None:
        """Carry everything through a similarity 4x4."""
        self.map.move(S)
        self.frames.grow(S)
        self.front.move(S)
        self.mapper.forget()
        self.loops.grow(scale_of(S))

    def bend(self, closing: Closing) -> dict[int, Pose]:
        """Close a loop; returns the new poses, camera to map, of the keyframes."""
        closing.bend(self.map)
        self.frames.bend(closing.scale)
        self.front.move(closing.newest)
        self.mapper.forget()
        return {k.index: k.T_map_cam for k in self.map.keyframes}

    def absorb(self, other: Piece) -> int:
        """Take over the keyframes, points and frames of a piece that was moved into the coordinates of this one. Returns by
        how much the ids of its tracks grew."""
        offset = self.map.absorb(other.map)
        self.frames.absorb(other.frames)
        self.loops.absorb(other.loops)
        self.id = min(self.id, other.id)
        return offset

    def saved(self, lens: Lens) -> Arrays:
        """The map as arrays. lens: of the latest image."""
        return {**within("map", save_map(self.map, lens)), **within("loops", self.loops.saved())}

    def resume(self, arrays: Arrays, lenses: Sequence[Lens]) -> None:
        """Be the map that was saved, with these lenses and a camera that is not found in it yet."""
        resume_map(self.map, lenses, part_of("map", arrays))
        self.loops.resume(part_of("loops", arrays), lenses[0])
        self.mapper.resume()
        self.front.lost = True

    def link(self, located: Sequence[tuple[Keyframe, Located]], offset: int) -> None:
        """Let keyframes observe the points of an absorbed map by which they were found there, so that adjustment holds both
        sides together."""
        for keyframe, seen in located:
            keyframe.observe(seen.ids + offset, seen.px, seen.uv)

    def _late(self, waiting: Waiting, T_cam_map: Pose | None, tracking: Tracking, revises: bool) -> Update:
        """The late answer to a frame that waited for the start."""
        first, second = self.map.keyframes
        if T_cam_map is None:
            return without_pose(waiting, tracking, "no view of the map")
        nearest = second if waiting.index == second.index else first
        self.frames.add(waiting.index, nearest, T_cam_map)
        if waiting.index in (first.index, second.index):
            return self._keyframe(nearest, "first" if nearest is first else "start", revises)
        T, index = inverse(T_cam_map), waiting.index
        return Update(index, waiting.stamp_ns, T, tracking, revises=revises, map_id=self.id)

    def _keyframe(self, keyframe: Keyframe, reason: str, revises: bool = False) -> Update:
        assert keyframe.view is not None
        return Update(
            keyframe.index,
            keyframe.view.stamp_ns,
            keyframe.T_map_cam,
            Tracking.TRACKING if keyframe.baseline else Tracking.ROTATION_ONLY,
            is_keyframe=True,
            reason=reason,
            revises=revises,
            corrections=self.mapper.corrections(),
            map_id=self.id,
        )


def without_pose(frame: Waiting | View, tracking: Tracking, reason: str, map_id: int = 0) -> Update:
    """The answer to a frame that has no place in any map."""
    return Update(frame.index, frame.stamp_ns, None, tracking, reason=reason, map_id=map_id)
