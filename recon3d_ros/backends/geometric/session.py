# SPDX-License-Identifier: Apache-2.0
"""The engine as a whole, from one image to the updates it brings. A map begins at its first keyframe: x of the map is its
viewing direction, z its up direction, the median depth of its points is 1 and the scale unknown."""

from __future__ import annotations

import cv2

from recon3d_ros.backends.geometric.depth_feeds import DepthFeeds
from recon3d_ros.backends.geometric.frontend import Placed
from recon3d_ros.backends.geometric.initialiser import Waiting
from recon3d_ros.backends.geometric.joining import Joiner
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.loops.closer import loop_statistics
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.piece import Piece
from recon3d_ros.backends.geometric.restart import Restart
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import inverse, inverse_similarity
from recon3d_ros.core.image import to_grey
from recon3d_ros.core.types import Image, Join, Pose, Tracking, Update

#: Larger images are reduced to this width or height.
_MAX_SIZE = 1280


class Session:
    """Begin a map, track every frame, solve its pose; at keyframes triangulate, adjust and send the image to the depth
    worker; when lost, search; when lost for long, begin another map and look out for the older ones."""

    def __init__(self, camera: Camera, config: Config, realtime: bool, stages: Stages) -> None:
        self.lens = Lens(_reduced(camera), _reduced(camera).fx)
        self.config, self.realtime, self.stages = config, realtime, stages
        self._maps = 1
        self.current = self._piece()
        #: Maps that the camera left.
        self.older: list[Piece] = []
        self.depth = DepthFeeds(self.current, config.geometric, realtime)
        self.restart = Restart()
        self.joiner = Joiner()
        self.lost = self.joined = 0
        self._turn = 0

    @property
    def map(self) -> Map:
        """The map that the camera is in."""
        return self.current.map

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index; every map has its own coordinates."""
        every = {i: T for piece in (*self.older, self.current) for i, T in piece.frames.all().items()}
        return dict(sorted(every.items()))

    def view(self, index: int, stamp_ns: int, image: Image, camera: Camera) -> View:
        """The image as it is tracked."""
        camera = _reduced(camera)
        if camera != self.lens.given:
            self.lens = Lens(camera, self.lens.focal)
        if camera.size != image.shape[1::-1]:
            image = cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA)
        return View(index, stamp_ns, image, to_grey(image), self.lens)

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
        updates = [_without_pose(w, Tracking.INITIALISING, "the camera did not move enough") for w in waiting]
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

    def _piece(self) -> Piece:
        return Piece(0, self.lens, self.config, self.realtime, self.stages)

    def _initialise(self, view: View) -> list[Update]:
        initialiser = self.current.initialiser
        if not initialiser.step(view):
            overdue = initialiser.overdue()
            return [_without_pose(w, Tracking.INITIALISING, "waiting for motion") for w in overdue]
        return self._start(self.current)

    def _start(self, piece: Piece, answered: bool = False) -> list[Update]:
        """A map has begun: the answers to the frames that waited. answered: all but the last had one."""
        first, second = piece.map.keyframes
        piece.mapper.add_corners(second)
        piece.front.anchor(second)
        placed = piece.initialiser.placed()
        piece.initialiser.waiting.clear()
        updates = []
        for waiting, T_cam_map, tracking in placed:
            revises = answered and waiting.index != second.index
            if T_cam_map is not None or not revises:
                updates.append(self._placed(piece, waiting, T_cam_map, tracking, revises))
        if first.index not in {u.index for u in updates}:
            piece.frames.add(first.index, first, first.T_cam_map)
            updates.insert(0, self._keyframe_update(piece, first, "first", revises=True))
        return updates

    def _placed(
        self, piece: Piece, waiting: Waiting, T_cam_map: Pose | None, tracking: Tracking, revises: bool
    ) -> Update:
        """The late answer to a frame that waited for the start."""
        first, second = piece.map.keyframes
        if T_cam_map is None:
            return _without_pose(waiting, tracking, "no view of the map")
        nearest = second if waiting.index == second.index else first
        piece.frames.add(waiting.index, nearest, T_cam_map)
        if waiting.index in (first.index, second.index):
            return self._keyframe_update(piece, nearest, "first" if nearest is first else "start", revises)
        T, index = inverse(T_cam_map), waiting.index
        return Update(index, waiting.stamp_ns, T, tracking, revises=revises, map_id=piece.id)

    def _track(self, view: View) -> list[Update]:
        placed = self.current.front.place(view)
        if placed is None:
            self.restart.forget()
            return self._search(view)
        updates = [self._accept(self.current, placed)]
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
        begun = self.restart.step(view, self._piece)
        if begun is None:
            return [*updates, self._lose(view)]
        begun.id, self._maps = self._maps, self._maps + 1
        return updates + self._change(begun) + self._start(begun, answered=True)

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
        last = self._accept(piece, placed[-1])
        return [*updates, *(self._accept(piece, p) for p in placed[:-1]), last]

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
        return [*updates, self._joined(view, join, poses)]

    def _joined(self, view: View, join: Join, corrections: dict[int, Pose]) -> Update:
        T = self.current.map.keyframes[-1].T_map_cam
        return Update(
            view.index,
            view.stamp_ns,
            T,
            Tracking.TRACKING,
            reason="maps joined",
            revises=True,
            corrections=corrections,
            map_id=self.current.id,
            join=join,
        )

    def _close(self, closing: Closing | None) -> list[Update]:
        """Bend the current map so that a loop closes; what moved is told with its newest keyframe."""
        if closing is None:
            return []
        corrections = self.current.bend(closing)
        self.depth.bend(closing.scale)
        newest = self.map.keyframes[-1]
        assert newest.view is not None
        return [
            Update(
                newest.index,
                newest.view.stamp_ns,
                newest.T_map_cam,
                Tracking.TRACKING,
                reason="loop closed",
                revises=True,
                corrections=corrections,
                map_id=self.current.id,
            )
        ]

    def _lose(self, view: View) -> Update:
        self.lost += 1
        return _without_pose(view, Tracking.LOST, "nothing of the map is recognised", self.current.id)

    def _accept(self, piece: Piece, placed: Placed) -> Update:
        view, located = placed.view, placed.located
        if placed.keyframe:
            keyframe = piece.mapper.insert(placed)
            if keyframe.baseline:
                with self.stages("focal"):
                    piece.focal.step(view)
            piece.front.anchor(keyframe)
            piece.frames.add(view.index, keyframe, keyframe.T_cam_map)
            return self._keyframe_update(piece, keyframe, placed.keyframe)
        piece.frames.add(view.index, piece.map.keyframes[-1], located.T_cam_map)
        piece.focal.saw(view, located.ids, located.uv)
        T = inverse(located.T_cam_map)
        return Update(view.index, view.stamp_ns, T, located.tracking, map_id=piece.id)

    def _keyframe_update(
        self, piece: Piece, keyframe: Keyframe, reason: str, revises: bool = False
    ) -> Update:
        assert keyframe.view is not None
        return Update(
            keyframe.index,
            keyframe.view.stamp_ns,
            keyframe.T_map_cam,
            Tracking.TRACKING if keyframe.baseline else Tracking.ROTATION_ONLY,
            is_keyframe=True,
            reason=reason,
            revises=revises,
            corrections=piece.mapper.corrections(),
            map_id=piece.id,
        )


def _without_pose(frame: Waiting | View, tracking: Tracking, reason: str, map_id: int = 0) -> Update:
    return Update(frame.index, frame.stamp_ns, None, tracking, reason=reason, map_id=map_id)


def _reduced(camera: Camera) -> Camera:
    """The camera of the image that is tracked."""
    factor = _MAX_SIZE / max(camera.size)
    return (
        camera if factor >= 1 else camera.resized(round(camera.width * factor), round(camera.height * factor))
    )
