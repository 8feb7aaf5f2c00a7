# SPDX-License-Identifier: Apache-2.0
"""One connected piece of the world: its map, and all that works on it. A camera that stays lost begins another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon3d_ros.backends.geometric.focal import FocalSearch
from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.frontend import FrontEnd
from recon3d_ros.backends.geometric.initialiser import Initialiser
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.locating import Located
from recon3d_ros.backends.geometric.loops.closer import LoopCloser
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.map import Keyframe, Map
from recon3d_ros.backends.geometric.mapper import Mapper
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Pose
from recon3d_ros.keyframing.gate import KeyframeGate


class Piece:
    """id: number of the map. Two pieces share neither origin nor scale."""

    def __init__(self, number: int, lens: Lens, config: Config, realtime: bool, stages: Stages) -> None:
        self.id = number
        self.map = Map(lens.focal)
        self.tracker = Tracker(config.geometric.tracks, lens.scale)
        self.initialiser = Initialiser(self.map, self.tracker)
        self.front = FrontEnd(self.map, self.tracker, KeyframeGate(config.keyframe), stages)
        self.mapper = Mapper(self.map, self.tracker, config.geometric, stages)
        self.frames = FramePoses()
        self.focal = FocalSearch(self.map, lens, self.frames)
        self.loops = LoopCloser(self.map, config.geometric.loops, realtime)
        self.front.alike = self.loops.alike

    def move(self, S: Array) -> None:
        """Carry everything through a similarity 4x4."""
        self.map.move(S)
        self.frames.grow(S)
        self.front.move(S)
        self.mapper.forget()
        self.loops.grow(float(np.cbrt(np.linalg.det(S[:3, :3]))))

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

    def link(self, located: Sequence[tuple[Keyframe, Located]], offset: int) -> None:
        """Let keyframes observe the points of an absorbed map by which they were found there, so that adjustment holds both
        sides together."""
        for keyframe, seen in located:
            keyframe.observe(seen.ids + offset, seen.px, seen.uv)
