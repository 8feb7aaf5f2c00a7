# SPDX-License-Identifier: Apache-2.0
"""A backend of unknown scale becomes metric and level where frames bring poses, positions or gravity, or where the height
of the camera is known (geometric specification, section A12)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.backends.placement import Placement
from recon3d_ros.backends.reference import Hint
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import apply_similarity
from recon3d_ros.core.packing import part_of, within
from recon3d_ros.core.types import Arrays, Frame, Join, Pose, Update


class ScaledReconstructor:
    """Passes everything through until something is known.

    Then poses are given out at once, in the engine's unit, while the depth of keyframes waits. When the scale is found, all
    keyframes are corrected and those that waited follow, `revises` set, in metres.
    """

    def __init__(self, inner: Reconstructor, config: Config) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self._config = config
        self._begin()

    def step(self, frame: Frame) -> list[Update]:
        """Take one frame; what `inner` raises is raised."""
        updates = self.inner.step(frame)
        hint = self._hint(frame)
        if hint is not None:
            self._hints[self._index] = hint
            self._is_idle = False
        self._index += 1
        return self._taken(updates)

    def finish(self) -> list[Update]:
        """Answer what waits; the scale is decided with what is known."""
        return self._taken(self.inner.finish(), finishing=True)

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index."""
        poses = self.inner.poses()
        if self._is_idle:
            return poses
        return {i: apply_similarity(self._of(i).similarity(i), T) for i, T in poses.items()}

    def saved(self) -> tuple[int, Arrays]:
        """Id of the map that the camera is in, that map in the engine's unit, and where it lies."""
        number, arrays = self.inner.saved()
        return number, {**arrays, **within("placement", self._placement(number).saved())}

    def resume(self, arrays: Arrays) -> None:
        """Go on with a saved map: it stays where it was placed, whatever is known of it from now on."""
        placement = Placement(self._config.scale)
        placement.resume(part_of("placement", arrays))
        self.inner.resume(arrays)
        self._begin()
        self._placements[0] = placement
        self._index = int(arrays["next_index"])
        self._is_idle = False

    def statistics(self) -> dict[str, float]:
        """Those of the engine, and the scale of the newest map."""
        newest = self._placement(max(self._placements))
        return {**self.inner.statistics(), **newest.statistics()}

    def reset(self) -> None:
        """Forget the map; the next frame is the first."""
        self.inner.reset()
        self._begin()

    def close(self) -> None:
        """Stop threads and free memory."""
        self.inner.close()

    def _begin(self) -> None:
        self._placements = {0: Placement(self._config.scale)}
        self._hints: dict[int, Hint] = {}
        #: Maps of frames, where it is not the first one.
        self._maps: dict[int, int] = {}
        self._pending: dict[int, Pose] = {}
        self._last: Update | None = None
        self._index = 0
        self._is_idle = not self._config.scale.camera_height

    def _hint(self, frame: Frame) -> Hint | None:
        prior = frame.prior if self._config.prior else None
        position = frame.position if self._config.scale.gps else None
        if prior is None and position is None and frame.up is None:
            return None
        return Hint(prior, position, frame.up)

    def _of(self, index: int) -> Placement:
        return self._placement(self._maps.get(index, 0))

    def _placement(self, map_id: int) -> Placement:
        if map_id not in self._placements:
            self._placements[map_id] = Placement(self._config.scale)
        return self._placements[map_id]

    def _taken(self, updates: list[Update], finishing: bool = False) -> list[Update]:
        updates = [self._noted(update) for update in updates]
        if self._is_idle:
            return updates
        for placement in list(self._placements.values()):
            if placement.settle(self._index - 1, finishing):
                self._pending |= placement.poses()
        out = [u for update in updates for u in self._mapped(update)]
        for placement in self._placements.values():
            out += placement.release()
        if finishing and self._pending and not out and self._last is not None:
            out = [replace(self._last, revises=True)]
        return self._with_corrections(out)

    def _noted(self, update: Update) -> Update:
        """Take in an update; the same, its join in terms of the maps given out."""
        if update.join is not None:
            update = replace(update, join=self._join(update.join))
        if update.map_id or update.index in self._maps:
            self._maps[update.index] = update.map_id
        placement = self._placement(update.map_id)
        hint = None if update.revises else self._hints.pop(update.index, None)
        if hint is not None and hint.tells_scale:
            placement.expect()
        placement.note(update, hint)
        return update

    def _join(self, join: Join) -> Join:
        """The two maps become one in the coordinates of the one kept, under the smaller id."""
        both, joined = (join.kept, join.moved), join.id
        kept, moved = self._placement(join.kept), self._placement(join.moved)
        S = kept.newest @ join.S_kept_moved @ np.linalg.inv(moved.newest)
        kept.take(moved, join.S_kept_moved, joined)
        self._placements = {m: p for m, p in self._placements.items() if m not in both} | {joined: kept}
        # Frames of the first map are not listed.
        self._maps = {i: joined if m in both else m for i, m in self._maps.items()}
        return replace(join, S_kept_moved=S)

    def _mapped(self, update: Update) -> list[Update]:
        placement = self._placement(update.map_id)
        corrections = {
            i: apply_similarity(self._of(i).similarity(i), T) for i, T in update.corrections.items()
        }
        if update.depth is None or not placement.waits:
            self._last = replace(placement.mapped(replace(update, depth=None)), colours=None, confidence=None)
            return [replace(placement.mapped(update), corrections=corrections)]
        placement.held.append(update)
        if update.revises:
            self._pending |= corrections
            return []
        bare = replace(update, depth=None, colours=None, confidence=None)
        return [replace(placement.mapped(bare), corrections=corrections)]

    def _with_corrections(self, out: list[Update]) -> list[Update]:
        """The first update says how older keyframes moved."""
        if not out or not self._pending:
            return out
        answered = {u.index for u in out if u.T_map_cam is not None}
        moved = {i: T for i, T in self._pending.items() if i not in answered}
        self._pending = {}
        return [replace(out[0], corrections={**out[0].corrections, **moved}), *out[1:]]
