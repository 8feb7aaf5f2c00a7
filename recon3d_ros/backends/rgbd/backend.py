# SPDX-License-Identifier: Apache-2.0
"""Reconstruction with a depth sensor. A frame is aligned with several keyframes at once, so that drift grows with the
number of places and not of frames; the depth of a keyframe is the sensor's."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.backends.rgbd.features import ENOUGH, FeatureTracker, pose_from_tracks
from recon3d_ros.backends.rgbd.kernels import points_of
from recon3d_ros.backends.rgbd.local_map import LocalMap
from recon3d_ros.backends.rgbd.registration import Fit, Tracks, register
from recon3d_ros.backends.rgbd.view import Rectifier, View
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import body_from_optical, inverse
from recon3d_ros.core.types import Arrays, Floats, Frame, Pose, Scale, Tracking, Update
from recon3d_ros.keyframing.gate import KeyframeGate, induced_flow

log = logging.getLogger(__name__)

#: Every n-th row and column of the small depth image is aligned.
STRIDE = 4
#: A pose holds when this share of its depth points is in view of keyframes, and this share of those lies on them.
OVERLAP, AGREEMENT = 0.1, 0.4
#: Share of a depth image that a keyframe must have measured.
MEASURED = 0.05
#: Image points below which new ones are taken, keyframe or not.
SCARCE = 60


class RgbdReconstructor:
    """Depth from the sensor, poses from the frames' prior where it is asked for and given, else by alignment.

    The pose is that of the depth camera, which the image's camera is taken to coincide with. Frames without depth are
    tracked by image points and never become keyframes.
    """

    def __init__(self, config: Config, realtime: bool = False) -> None:
        self.capabilities = Capabilities(needs_depth=True, metric=True)
        self.use_prior = config.prior
        self._limits = config.rgbd
        self._gate = KeyframeGate(config.keyframe)
        self._rectifier = Rectifier(config.rgbd)
        self._tracker = FeatureTracker()
        self._map = LocalMap()
        self._counts: Counter[str] = Counter()
        self._stages = Stages()
        self.reset()

    def reset(self) -> None:
        """Forget the map; the next frame is the first."""
        self._gate.reset()
        self._rectifier.reset()
        self._tracker.reset()
        self._map.clear()
        self._poses: dict[int, Pose] = {}
        self._index = 0
        self._T_map_prior: Pose | None = None
        self._last: Pose | None = None
        self._motion: Pose = np.eye(4)
        self._lost = False
        #: A saved map in which the camera was not found yet: where it was last says nothing.
        self._awaits = False

    def step(self, frame: Frame) -> list[Update]:
        """Answer one frame. Raises FrameError for sizes that do not fit."""
        with self._stages("rectify"):
            view = self._rectifier.view(frame)
        index, self._index = self._index, self._index + 1
        if view is None:
            return [self._without_pose(index, frame, Tracking.INITIALISING, "no depth")]
        with self._stages("track"):
            T = self._pose(view, frame.prior if self.use_prior else None)
        if T is None:
            if len(self._map):
                return [self._without_pose(index, frame, Tracking.LOST, "nothing matches")]
            return [self._without_pose(index, frame, Tracking.INITIALISING, self._why_no_depth(view))]
        self._poses[index] = T
        reason = self._keyframe_reason(view, T)
        if reason:
            with self._stages("keyframe"):
                surface = self._map.add(view, T)
                self._tracker.restart(view.grey, view.camera, surface.depth, T)
        elif self._tracker.count < SCARCE and view.small is not None:
            self._tracker.restart(view.grey, view.camera, view.small, T)
        return [
            Update(
                index=index,
                stamp_ns=frame.stamp_ns,
                T_map_cam=T,
                tracking=Tracking.TRACKING,
                scale=Scale.SENSOR,
                is_keyframe=bool(reason),
                reason=reason,
                camera=view.camera if reason else None,
                depth=view.depth if reason else None,
                colours=view.colours if reason else None,
            )
        ]

    def finish(self) -> list[Update]:
        """Nothing is ever left."""
        return []

    def close(self) -> None:
        """Nothing to stop."""

    def poses(self) -> dict[int, Pose]:
        """Pose map <- camera of every frame that has one."""
        return dict(self._poses)

    def saved(self) -> tuple[int, Arrays]:
        """The keyframes that frames are aligned with."""
        if not len(self._map):
            raise InputError("there is no map yet")
        return 0, {"next_index": np.array(self._index), **self._map.saved()}

    def resume(self, arrays: Arrays) -> None:
        """Go on with a saved map: the camera is lost until it recognises it."""
        world = LocalMap.resumed(arrays)
        self.reset()
        self._map = world
        self._index = int(arrays["next_index"])
        self._last, self._lost, self._awaits = self._map.last.T_map_cam, True, True

    def statistics(self) -> dict[str, float]:
        """Medians of the stages, and how often the camera was lost and found again."""
        return {**self._stages.medians_ms(), **{name: float(n) for name, n in self._counts.items()}}

    def _pose(self, view: View, prior: Pose | None) -> Pose | None:
        tracks = self._tracker.advance(view.grey, view.camera)
        if prior is not None and self._T_map_prior is None and self._last is None:
            self._T_map_prior = np.eye(4)
        if prior is not None and self._T_map_prior is not None:
            T: Pose | None = self._T_map_prior @ prior
        elif not len(self._map):
            T = body_from_optical() if _has_depth(view) else None
        else:
            T = self._align(view, tracks)
            if prior is not None and T is not None:
                # The first prior of a map that began without: it says how that map lies in the prior's world.
                self._T_map_prior = T @ inverse(prior)
        self._remember(T)
        return T

    def _remember(self, T: Pose | None) -> None:
        steady = T is not None and self._last is not None and not self._lost
        self._motion = inverse(self._last) @ T if steady else np.eye(4)  # type: ignore[arg-type, operator]
        if T is not None:
            if self._awaits:
                log.info("the camera found its place in the saved map")
            self._last, self._awaits = T, False
        if len(self._map) and self._lost != (T is None):
            self._lost = T is None
            self._counts["lost" if self._lost else "found"] += 1

    def _align(self, view: View, tracks: Tracks) -> Pose | None:
        assert self._last is not None
        points = _points(view)
        guess = pose_from_tracks(tracks)
        if guess is None and len(points) and not self._awaits:
            guess = self._last @ self._motion
        if guess is not None:
            fit = register(points, self._map.near(guess, points), tracks, guess)
            if _holds(fit):
                return fit.T_map_cam
        return self._relocate(view, points)

    def _relocate(self, view: View, points: Floats) -> Pose | None:
        """Search the keyframes for one that the view resembles."""
        guess = self._map.locate(view)
        if guess is None:
            return None
        none = Tracks(np.zeros((0, 3)), np.zeros((0, 2)), 1.0)
        fit = register(points, self._map.near(guess, points), none, guess)
        return fit.T_map_cam if not len(points) or _holds(fit) else None

    def _keyframe_reason(self, view: View, T: Pose) -> str:
        if not _has_depth(view):
            return ""
        if not len(self._map):
            return self._gate.decide(0.0)
        last = self._map.last
        return self._gate.decide(*induced_flow(last.depth, last.camera, inverse(T) @ last.T_map_cam))

    def _why_no_depth(self, view: View) -> str:
        if view.depth is None:
            return "no depth"
        return f"no depth between {self._limits.min_depth:g} and {self._limits.max_depth:g} m"

    def _without_pose(self, index: int, frame: Frame, tracking: Tracking, reason: str) -> Update:
        return Update(index, frame.stamp_ns, None, tracking, Scale.SENSOR, reason=reason)


def _points(view: View) -> Floats:
    if view.small is None:
        return np.zeros((0, 3), np.float32)
    c = view.small_camera
    points: Floats = points_of(view.small, c.fx, c.fy, c.cx, c.cy, STRIDE)
    return points


def _has_depth(view: View) -> bool:
    return view.small is not None and bool(np.isfinite(view.small).mean() >= MEASURED)


def _holds(fit: Fit) -> bool:
    """Whether a fit is a pose: carried by depth, or by enough image points."""
    return fit.tracks >= ENOUGH or (fit.overlap >= OVERLAP and fit.agreement >= AGREEMENT)
