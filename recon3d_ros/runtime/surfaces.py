# SPDX-License-Identifier: Apache-2.0
"""The surface of every map: a mesher holds one at a time, so that of a map which is left, or joined, is put aside."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon3d_ros.core.geometry import transform
from recon3d_ros.core.types import Join, MeshBlock, Pose
from recon3d_ros.mapping.weld import joined
from recon3d_ros.runtime.mesher import MesherLoop
from recon3d_ros.runtime.pipeline import Step


class Surfaces:
    """Follows the steps of an offline run."""

    def __init__(self, mesher: MesherLoop) -> None:
        self._mesher = mesher
        self._current = 0
        self._aside: dict[int, list[MeshBlock]] = {}

    def follow(self, step: Step) -> None:
        """Take a step in, before its keyframe is meshed."""
        update = step.update
        if step.begins:
            self._mesher.drain()
            self._aside.setdefault(self._current, []).append(self._mesher.surface())
            self._mesher.reset()
        if update.join is not None:
            self._join(update.join, update.map_id)
        elif step.begins:
            self._current = update.map_id

    def of(self, map_id: int) -> MeshBlock:
        """The surface of a map. Pieces made before and after it was left or joined lie beside each other, not fused."""
        pieces = list(self._aside.get(map_id, []))
        if map_id == self._current:
            pieces.append(self._mesher.surface())
        return joined(pieces)

    def _join(self, join: Join, map_id: int) -> None:
        kept, moved = self._aside.pop(join.kept, []), self._aside.pop(join.moved, [])
        self._aside[map_id] = kept + [_moved(mesh, join.S_kept_moved) for mesh in moved]
        if self._current in (join.kept, join.moved):
            self._current = map_id


def _moved(mesh: MeshBlock, S: Pose) -> MeshBlock:
    vertices = transform(S, mesh.vertices.astype(np.float64)).astype(np.float32)
    return dataclasses.replace(mesh, vertices=vertices)
