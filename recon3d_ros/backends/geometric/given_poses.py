# SPDX-License-Identifier: Apache-2.0
"""Mapping only: the poses that come with the images are taken as they are, and images add depth, cloud and mesh. The map is
the frame of these poses, in metres. Nothing is located and nothing adjusted."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon3d_ros.backends.geometric.depth_feed import DepthFeed
from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.intake import Intake
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found, reprojection_errors
from recon3d_ros.backends.geometric.locating import tracks_by_matches
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.mapper import Mapper
from recon3d_ros.backends.geometric.motion import expected_pixels
from recon3d_ros.backends.geometric.tracker import Tracker
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Arrays, Floats, Gravity, Image, Pose, Scale, Tracking, Update
from recon3d_ros.keyframing.gate import KeyframeGate

#: A track is dropped when it misses its point by more than so many pixels, and by so many times what most of them do:
#: poses of odometry may be off by some pixels everywhere.
_MAX_ERROR, _MAX_TIMES = 2.5, 3.0
#: Share of tracks that must survive from image to image; below it images are matched, with so many keyframes.
_SURVIVAL, _MATCHED_KEYFRAMES = 0.35, 4


class GivenPoses:
    """Keyframes by flow, points from tracks, dense depth. without_prior: frames that brought no pose."""

    def __init__(self, lens: Lens, config: Config, realtime: bool, stages: Stages) -> None:
        self.intake, params = Intake(lens), config.geometric
        self.map = Map(lens.focal)
        self.tracker = Tracker(params.tracks, lens.scale)
        self.gate = KeyframeGate(config.keyframe)
        self.mapper = Mapper(self.map, self.tracker, params, stages)
        self.depth = DepthFeed(self.map, params, realtime)
        self.frames = FramePoses()
        self.stages = stages
        self.without_prior = 0
        self._survival = 1.0
        self._last: Pose | None = None

    def view(
        self, index: int, stamp_ns: int, image: Image, camera: Camera, prior: Pose | None = None
    ) -> View:
        """The image as it is tracked."""
        return self.intake.view(index, stamp_ns, image, camera, prior)

    def step(self, view: View) -> list[Update]:
        """The answer to a view whose prior is its pose, camera to map, and depth that was owed."""
        with self.stages("track"):
            self._survival = min(self._survival, self.tracker.follow(view.grey, self._expected_pixels(view)))
        self._last = None if view.prior is None else inverse(view.prior)
        answer = self._without_pose(view) if view.prior is None else self._map(view, view.prior)
        self.depth.offer()
        return [answer, *self._depth()]

    def finish(self) -> list[Update]:
        """The depth of the last keyframes."""
        self.depth.offer(following=0)
        return self._depth(wait=True)

    def poses(self) -> dict[int, Pose]:
        """The poses given, camera to map, by index."""
        return self.frames.all()

    def saved(self) -> tuple[int, Arrays]:
        """There is nothing to find one's place in."""
        raise InputError("with geometric.mapping_only there is no map to go on with: leave save_map out")

    def close(self) -> None:
        """Stop the depth worker."""
        self.depth.close()

    def statistics(self) -> dict[str, float]:
        """Counters, and stage times of the depth worker."""
        worker = self.depth.worker
        return {
            "keyframes": len(self.map.keyframes),
            "without_prior": self.without_prior,
            "depth_dropped": worker.dropped,
            "depth_failed": worker.failed,
            **worker.stage_ms(),
        }

    def _expected_pixels(self, view: View) -> Floats | None:
        if view.prior is None or self._last is None:
            return None
        ids, px = self.tracker.ids, self.tracker.px
        return expected_pixels(ids, px, view.lens, self.map, self._last, inverse(view.prior))

    def _without_pose(self, view: View) -> Update:
        self.without_prior += 1
        tracking = Tracking.LOST if self.map.keyframes else Tracking.INITIALISING
        return Update(view.index, view.stamp_ns, None, tracking, reason="no pose was given")

    def _map(self, view: View, prior: Pose) -> Update:
        T_cam_map = inverse(prior)
        if self._survival < _SURVIVAL and self.map.keyframes:
            reason = "matched"
            self._match(view, T_cam_map)
        else:
            self._drop(view, T_cam_map)
            reason = self.gate.decide(*self.tracker.since_anchor(view.lens.size))
            if reason:
                self._wake(view, T_cam_map)
        self._survival = 1.0
        if reason:
            self._insert(view, T_cam_map)
        self.frames.add(view.index, self.map.keyframes[-1], T_cam_map)
        return Update(
            view.index,
            view.stamp_ns,
            prior,
            Tracking.TRACKING,
            Scale.PRIOR,
            Gravity.PRIOR,
            is_keyframe=bool(reason),
            reason=reason,
        )

    def _drop(self, view: View, T_cam_map: Pose) -> None:
        """Drop the tracks that do not fit the pose."""
        tracker = self.tracker
        uv = view.lens.centred(tracker.px)
        errors = reprojection_errors(T_cam_map, self.map.points(tracker.ids), uv, self.map.focal)
        known = np.isfinite(errors)
        limit = _MAX_ERROR * view.lens.scale
        if known.any():
            limit = max(limit, _MAX_TIMES * float(np.median(errors[known])))
        tracker.keep(found(uv) & ~(errors > limit))

    def _wake(self, view: View, T_cam_map: Pose) -> None:
        """Follow the tracks that rested since the last keyframe."""
        with self.stages("track"):
            self.tracker.wake()
        self._drop(view, T_cam_map)

    def _match(self, view: View, T_cam_map: Pose) -> None:
        """A photo far from the one before: its tracks come from matches."""
        with self.stages("match"):
            located = tracks_by_matches(view, self.map, self.map.keyframes[-_MATCHED_KEYFRAMES:], T_cam_map)
        self.tracker.anchor(view.grey, located.ids, located.px)
        self.gate.made()

    def _insert(self, view: View, T_cam_map: Pose) -> None:
        tracker = self.tracker
        uv = view.lens.centred(tracker.px)
        keyframe = Keyframe(view.index, view, T_cam_map, tracker.ids, tracker.px, uv)
        self.map.add(keyframe)
        with self.stages("corners"):
            self.mapper.add_corners(keyframe)
        with self.stages("triangulate"):
            self.map.triangulate(keyframe, view.lens.scale)
        tracker.anchor(view.grey, keyframe.ids, keyframe.px, rest=True)

    def _depth(self, wait: bool = False) -> list[Update]:
        collected = self.depth.collect(wait)
        return [dataclasses.replace(u, scale=Scale.PRIOR, gravity=Gravity.PRIOR) for u in collected]
