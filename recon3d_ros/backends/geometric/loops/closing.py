# SPDX-License-Identifier: Apache-2.0
"""A closed loop, and how it bends a map: every keyframe moves by a similarity of its own, points with the keyframe that saw
them last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.map import Map
from recon3d_ros.core.geometry import Array, apply_similarity, inverse, scale_of


@dataclass(frozen=True, eq=False)
class Closing:
    """moves: keyframe index -> similarity 4x4 of the map. Keyframes that came since move like the newest of these."""

    moves: Mapping[int, Array]

    def of(self, index: int) -> Array:
        """By what a keyframe moves."""
        return self.moves.get(index, self.newest)

    @property
    def newest(self) -> Array:
        """By what the latest part of the map moves."""
        return self.moves[max(self.moves)]

    def scale(self, index: int) -> float:
        """By how much the surroundings of a keyframe grow."""
        return scale_of(self.of(index))

    def bend(self, world: Map) -> None:
        """Move keyframes and points of the map."""
        for keyframe in world.keyframes:
            S = self.of(keyframe.index)
            keyframe.T_cam_map = inverse(apply_similarity(S, keyframe.T_map_cam))
        seen = [k.ids for k in world.keyframes]
        ids = np.concatenate(seen)
        holder = np.zeros(int(ids.max(initial=-1)) + 1, np.int64)
        holder[ids] = np.repeat(np.arange(len(seen)), [len(i) for i in seen])  # the last one written stays
        ids = np.unique(ids)
        S = np.array([self.of(k.index) for k in world.keyframes])[holder[ids]]
        X = world.points(ids)
        world.place(ids, np.einsum("nij,nj->ni", S[:, :3, :3], X) + S[:, :3, 3])
