# SPDX-License-Identifier: Apache-2.0
"""Which frame belongs to which map, and the cloud of each. What is shown live is always the current map."""

from __future__ import annotations

from recon3d_ros.core.config import CloudParams
from recon3d_ros.core.types import Join, Update
from recon3d_ros.mapping.cloud import CloudMap


class MapBook:
    """current: id of the map that the camera is in. frames: frame index -> map id. clouds: map id -> cloud."""

    def __init__(self, params: CloudParams) -> None:
        self.current = 0
        self.frames: dict[int, int] = {}
        self.clouds: dict[int, CloudMap] = {0: CloudMap(params)}
        self._params = params

    @property
    def cloud(self) -> CloudMap:
        """That of the current map."""
        return self.clouds[self.current]

    def begin(self) -> None:
        """The camera is in another map from now on."""
        self.current = max(self.clouds) + 1
        self.clouds[self.current] = CloudMap(self._params)

    def follow(self, update: Update) -> bool:
        """Take an update in; True if what was shown so far is no longer valid."""
        begins = self._join(update.join) if update.join is not None else False
        if update.T_map_cam is None:
            return begins
        self.frames[update.index] = update.map_id
        is_new = update.map_id not in self.clouds
        if is_new:
            self.clouds[update.map_id] = CloudMap(self._params)
        # What comes late of a map that was left does not bring it back.
        if update.map_id == self.current or (update.revises and not is_new):
            return begins
        self.current = update.map_id
        return True

    def _join(self, join: Join) -> bool:
        both, joined = (join.kept, join.moved), join.id
        self.frames = {i: joined if m in both else m for i, m in self.frames.items()}
        empty = CloudMap(self._params)
        kept, moved = (self.clouds.pop(m, empty) for m in both)
        kept.absorb(moved, join.S_kept_moved)
        self.clouds[joined] = kept
        shown_moves = self.current == join.moved
        if self.current in both:
            self.current = joined
        return shown_moves
