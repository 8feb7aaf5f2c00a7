# SPDX-License-Identifier: Apache-2.0
"""The engine as a whole, from one image to the updates it brings. The map begins at the first keyframe: x of the map is its
viewing direction, z its up direction, the median depth of its points is 1 and the scale unknown."""

from __future__ import annotations

import cv2

from recon3d_ros.backends.geometric.depth_feed import DepthFeed
from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.frontend import FrontEnd, Placed
from recon3d_ros.backends.geometric.initialiser import Initialiser, Waiting
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.mapper import Mapper
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.image import to_grey
from recon3d_ros.core.types import Image, Pose, Tracking, Update
from recon3d_ros.keyframing.gate import KeyframeGate

#: Larger images are reduced to this width or height.
_MAX_SIZE = 1280


class Session:
    """One map: begin, track every frame, solve its pose; at keyframes triangulate, adjust and send the image to the depth
    worker; when lost, search."""

    def __init__(self, camera: Camera, config: Config, realtime: bool, stages: Stages) -> None:
        self.lens = Lens(_reduced(camera), _reduced(camera).fx)
        params, gate = config.geometric, KeyframeGate(config.keyframe)
        self.map = Map(self.lens.focal)
        self.tracker = Tracker(params.tracks, self.lens.scale)
        self.initialiser = Initialiser(self.map, self.tracker)
        self.front = FrontEnd(self.map, self.tracker, gate, stages)
        self.mapper = Mapper(self.map, self.tracker, params, stages)
        self.depth = DepthFeed(self.map, params, realtime)
        self.frames = FramePoses()
        self.lost = 0

    def view(self, index: int, stamp_ns: int, image: Image, camera: Camera) -> View:
        """The image as it is tracked."""
        camera = _reduced(camera)
        if camera != self.lens.camera:
            self.lens = Lens(camera, self.lens.focal)
        if camera.size != image.shape[1::-1]:
            image = cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA)
        return View(index, stamp_ns, image, to_grey(image), self.lens)

    def step(self, view: View) -> list[Update]:
        """What a view brings: its answer and those that were owed."""
        if not self.map.keyframes:
            updates = self._initialise(view)
        elif self.front.lost:
            updates = self._search(view)
        else:
            updates = self._track(view)
        self.depth.offer()
        return updates + self.depth.collect()

    def finish(self) -> list[Update]:
        """Answer what still waits, with depth for the last keyframes."""
        waiting = list(self.initialiser.waiting)
        self.initialiser.waiting.clear()
        updates = [_without_pose(w, Tracking.INITIALISING, "the camera did not move enough") for w in waiting]
        if self.front.candidate is not None:
            updates.append(self._lose(self.front.candidate.view))
            self.front.candidate = None
        self.depth.offer(following=0)
        return updates + self.depth.collect(wait=True)

    def statistics(self) -> dict[str, float]:
        """Counters, and stage times of the depth worker."""
        return {
            "keyframes": len(self.map.keyframes),
            "lost": self.lost,
            "depth_dropped": self.depth.worker.dropped,
            "depth_failed": self.depth.worker.failed,
            **self.depth.worker.stage_ms(),
        }

    def _initialise(self, view: View) -> list[Update]:
        if not self.initialiser.step(view):
            overdue = self.initialiser.overdue()
            return [_without_pose(w, Tracking.INITIALISING, "waiting for motion") for w in overdue]
        first, second = self.map.keyframes
        self.mapper.add_corners(second)
        self.front.anchor(second)
        updates = [self._placed(*waited) for waited in self.initialiser.placed()]
        self.initialiser.waiting.clear()
        if first.index not in {u.index for u in updates}:
            self.frames.add(first.index, first, first.T_cam_map)
            updates.insert(0, self._keyframe_update(first, "first", revises=True))
        return updates

    def _placed(self, waiting: Waiting, T_cam_map: Pose | None, tracking: Tracking) -> Update:
        """The late answer to a frame that waited for the start."""
        first, second = self.map.keyframes
        if T_cam_map is None:
            return _without_pose(waiting, tracking, "no view of the map")
        nearest = second if waiting.index == second.index else first
        self.frames.add(waiting.index, nearest, T_cam_map)
        if waiting.index in (first.index, second.index):
            return self._keyframe_update(nearest, "first" if nearest is first else "start")
        return Update(waiting.index, waiting.stamp_ns, inverse(T_cam_map), tracking)

    def _track(self, view: View) -> list[Update]:
        placed = self.front.place(view)
        return self._search(view) if placed is None else [self._accept(placed)]

    def _search(self, view: View) -> list[Update]:
        unconfirmed = self.front.candidate
        placed = self.front.search(view)
        if placed:
            last = self._accept(placed[-1])
            return [self._accept(p) for p in placed[:-1]] + [last]
        updates = [] if unconfirmed is None else [self._lose(unconfirmed.view)]
        return updates if self.front.candidate is not None else [*updates, self._lose(view)]

    def _lose(self, view: View) -> Update:
        self.lost += 1
        return _without_pose(view, Tracking.LOST, "nothing of the map is recognised")

    def _accept(self, placed: Placed) -> Update:
        view, located = placed.view, placed.located
        if placed.keyframe:
            keyframe = self.mapper.insert(placed)
            self.front.anchor(keyframe)
            self.frames.add(view.index, keyframe, keyframe.T_cam_map)
            return self._keyframe_update(keyframe, placed.keyframe)
        self.frames.add(view.index, self.map.keyframes[-1], located.T_cam_map)
        return Update(view.index, view.stamp_ns, inverse(located.T_cam_map), located.tracking)

    def _keyframe_update(self, keyframe: Keyframe, reason: str, revises: bool = False) -> Update:
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
        )


def _without_pose(frame: Waiting | View, tracking: Tracking, reason: str) -> Update:
    return Update(frame.index, frame.stamp_ns, None, tracking, reason=reason)


def _reduced(camera: Camera) -> Camera:
    """The camera of the image that is tracked."""
    factor = _MAX_SIZE / max(camera.size)
    return (
        camera if factor >= 1 else camera.resized(round(camera.width * factor), round(camera.height * factor))
    )
