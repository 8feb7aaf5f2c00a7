# SPDX-License-Identifier: Apache-2.0
"""The engine as a whole, from one image to the updates it brings. A map begins at its first keyframe: x of the map is its
viewing direction, z its up direction, the median depth of its points is 1 and the scale unknown."""

from __future__ import annotations

import logging

from recon3d_ros.backends.geometric.depth_feeds import DepthFeeds
from recon3d_ros.backends.geometric.frontend import Placed
from recon3d_ros.backends.geometric.initialiser import Waiting
from recon3d_ros.backends.geometric.intake import Intake
from recon3d_ros.backends.geometric.joining import Joiner
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.loops.closer import loop_statistics
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.map import Map, View
from recon3d_ros.backends.geometric.piece import Piece, without_pose
from recon3d_ros.backends.geometric.restart import Restart
from recon3d_ros.backends.geometric.saving import resume_lenses
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import inverse_similarity
from recon3d_ros.core.packing import part_of
from recon3d_ros.core.types import Arrays, Image, Join, Pose, Tracking, Update

log = logging.getLogger(__name__)


class Session:
    """Begin a map, track every frame, solve its pose; at keyframes triangulate, adjust and send the image to the depth
    worker; when lost, search; when lost for long, begin another map and look out for the older ones."""

    def __init__(
        self, lens: Lens, config: Config, realtime: bool, stages: Stages, saved: Piece | None = None
    ) -> None:
        self.intake = Intake(lens)
        self.config, self.realtime, self.stages = config, realtime, stages
        self._maps = 1
        self.current = saved or self._piece()
        #: Maps that the camera left.
        self.older: list[Piece] = []
        self.depth = DepthFeeds(self.current, config.geometric, realtime)
        self.restart = Restart()
        self.joiner = Joiner()
        self.lost = self.joined = 0
        self._turn = 0
        #: A saved map in which the camera was not found yet: no other one begins.
        self._awaits = saved is not None

    @property
    def map(self) -> Map:
        """The map that the camera is in."""
        return self.current.map

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index; every map has its own coordinates."""
        every = {i: T for piece in (*self.older, self.current) for i, T in piece.frames.all().items()}
        return dict(sorted(every.items()))

    def view(
        self, index: int, stamp_ns: int, image: Image, camera: Camera, prior: Pose | None = None
    ) -> View:
        """The image as it is tracked."""
        return self.intake.view(index, stamp_ns, image, camera, prior)

    def step(self, view: View) -> list[Update]:
        """What a view brings: its answer and those that were owed."""
        lost = self.current.front.lost
        closed = [] if lost else self._close(self.current.loops.take(view.index))
        if not self.map.keyframes:
            updates = self._initialise(view)
        elif self.current.front.lost:
            updates = self._search(view)
        else:
            updates = self._track(view)
        self.current.loops.offer()
        return [*closed, *updates, *self.depth.step()]

    def finish(self) -> list[Update]:
        """Answer what still waits, with depth for the last keyframes."""
        waiting: list[Waiting | View] = []
        if not self.map.keyframes:
            waiting += self.current.initialiser.waiting
            self.current.initialiser.waiting.clear()
        updates = [without_pose(w, Tracking.INITIALISING, "the camera did not move enough") for w in waiting]
        for piece in (*self.older, self.current):
            if piece.front.candidate is not None:
                updates.append(self._lose(piece.front.candidate.view))
                piece.front.candidate = None
        self.current.focal.finish()
        updates += self._close(self.current.loops.finish())
        return updates + self.depth.finish()

    def close(self) -> None:
        """Stop the workers."""
        self.depth.close()
        for piece in (*self.older, self.current):
            piece.loops.close()

    def statistics(self) -> dict[str, float]:
        """Counters, and stage times of the depth worker."""
        return {
            "keyframes": sum(len(piece.map.keyframes) for piece in (*self.older, self.current)),
            **self.current.focal.statistics(),
            "lost": self.lost,
            "keyframes_put_off": sum(p.front.gate.put_off for p in (*self.older, self.current)),
            "maps": 1 + len(self.older),
            "maps_joined": self.joined,
            **loop_statistics([piece.loops for piece in (*self.older, self.current)]),
            **self.depth.statistics(),
        }

    def saved(self) -> tuple[int, Arrays]:
        """Id of the map that the camera is in, and that map."""
        if not self.map.keyframes:
            raise InputError("there is no map yet")
        return self.current.id, self.current.saved(self.intake.lens)

    @classmethod
    def resumed(cls, arrays: Arrays, config: Config, realtime: bool, stages: Stages) -> Session:
        """One that goes on with a saved map, once it has found its place there."""
        lenses = resume_lenses(part_of("map", arrays))
        piece = Piece(0, lenses[0], config, realtime, stages)
        piece.resume(arrays, lenses)
        return cls(lenses[0], config, realtime, stages, piece)

    def _piece(self) -> Piece:
        return Piece(0, self.intake.lens, self.config, self.realtime, self.stages)

    def _initialise(self, view: View) -> list[Update]:
        initialiser = self.current.initialiser
        if not initialiser.step(view):
            overdue = initialiser.overdue()
            return [without_pose(w, Tracking.INITIALISING, "waiting for motion") for w in overdue]
        return self.current.begin()

    def _track(self, view: View) -> list[Update]:
        placed = self.current.front.place(view)
        if placed is None:
            self.restart.forget()
            return self._search(view)
        updates = [self.current.accept(placed)]
        return updates + (self._join(view) if self.older and updates[0].is_keyframe else [])

    def _search(self, view: View) -> list[Update]:
        """Look for a view in the current map and one of the older ones; if they stay unknown, begin another."""
        updates: list[Update] = []
        for piece in self._places_to_search():
            before = piece.front.candidate
            placed = piece.front.search(view)
            if placed:
                return updates + self._found(piece, placed)
            if before is not None:
                updates.append(self._lose(before.view))
            # A candidate in one map is not looked for in others: it is answered once.
            if piece.front.candidate is not None:
                return updates
        begun = None if self._awaits else self.restart.step(view, self._piece)
        if begun is None:
            return [*updates, self._lose(view)]
        begun.id, self._maps = self._maps, self._maps + 1
        return updates + self._change(begun) + begun.begin(answered=True)

    def _places_to_search(self) -> list[Piece]:
        """The map where a candidate waits to be confirmed first, then the current one and an older one by turns."""
        self._turn += 1
        places = [piece for piece in (self.current, *self.older) if piece.front.candidate is not None]
        places += [self.current, *self.older[self._turn % max(len(self.older), 1) :][:1]]
        return list(dict.fromkeys(places))

    def _found(self, piece: Piece, placed: list[Placed]) -> list[Update]:
        """The camera is in a map again; the last view becomes a keyframe before the others refer to one."""
        updates = [] if piece is self.current else self._change(piece)
        self.restart.forget()
        if self._awaits:
            log.info("the camera found its place in the saved map")
        self._awaits = False
        last = piece.accept(placed[-1])
        return [*updates, *(piece.accept(p) for p in placed[:-1]), last]

    def _change(self, piece: Piece) -> list[Update]:
        """Go on in another map: the depth that the one before still owes, where that is waited for."""
        self.older = [p for p in (*self.older, self.current) if p is not piece]
        self.current = piece
        self.joiner.forget()
        return self.depth.change(piece)

    def _join(self, view: View) -> list[Update]:
        """Look whether the newest keyframe shows a place of an older map; if so, the smaller map moves into the larger."""
        with self.stages("join"):
            agreed = self.joiner.step(self.current, self.older)
        if agreed is None:
            return []
        here, there, S = self.current, agreed[-1].piece, agreed[-1].S_other_this
        updates = self.depth.leave()
        if len(there.map.keyframes) < len(here.map.keyframes):
            join, moved = Join(here.id, there.id, inverse_similarity(S)), there
        else:
            join, moved = Join(there.id, here.id, S), here
        told = [k.index for k in moved.map.keyframes]
        moved.move(join.S_kept_moved)
        offset = here.absorb(there)
        here.link([(s.keyframe, s.located) for s in agreed], offset)
        self.older.remove(there)
        self.joiner.forget()
        self.joined += 1
        self.depth.join(join, here)
        poses = {index: here.map.keyframe(index).T_map_cam for index in told}
        return [*updates, here.told("maps joined", poses, join)]

    def _close(self, closing: Closing | None) -> list[Update]:
        """Bend the current map so that a loop closes; what moved is told with its newest keyframe."""
        if closing is None:
            return []
        corrections = self.current.bend(closing)
        self.depth.bend(closing.scale)
        return [self.current.told("loop closed", corrections)]

    def _lose(self, view: View) -> Update:
        self.lost += 1
        what = "the saved map" if self._awaits else "the map"
        return without_pose(view, Tracking.LOST, f"nothing of {what} is recognised", self.current.id)
