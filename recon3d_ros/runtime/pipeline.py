# SPDX-License-Identifier: Apache-2.0
"""Frame -> backend -> keyframe store -> cloud. The live nodes and the offline runner drive this same object, so that a
recording gives the same poses either way."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError, StoreError
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Frame, Gravity, Keyframe, Pose, Scale, Tracking, Update
from recon3d_ros.mapping.cloud import CloudMap
from recon3d_ros.mapping.splat import median_depth
from recon3d_ros.runtime.map_book import MapBook
from recon3d_ros.runtime.metrics import Metrics
from recon3d_ros.store.keyframe_store import KeyframeStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Step:
    """One answer of the pipeline: the backend's update, and the keyframe that it completed in the current map, if any.
    begins: what was shown so far is no longer valid, and a consumer begins anew: another map, or the same in another scale.
    """

    update: Update
    keyframe: Keyframe | None
    begins: bool = False


@dataclass
class KeyframeRecord:
    """A line of keyframes.csv. points: 0 until its depth is there."""

    id: int
    stamp_ns: int
    reason: str
    points: int = 0


class Pipeline:
    """One thread calls `step` for every frame and `finish` at the end. What cannot be used is counted in
    `metrics.drops`, never raised."""

    def __init__(self, config: Config, reconstructor: Reconstructor, store: KeyframeStore) -> None:
        self.config = config
        self.reconstructor = reconstructor
        self.store = store
        self.metrics = Metrics()
        self.reset()

    def reset(self) -> None:
        """Begin a new map; counters and timers go on."""
        self.reconstructor.reset()
        self.store.reset()
        self.maps = MapBook(self.config.cloud)
        self.keyframes: dict[int, KeyframeRecord] = {}
        self.frames = 0
        self.tracking = Tracking.INITIALISING
        self.scale = Scale.UNKNOWN
        self.gravity = Gravity.UNKNOWN
        self._stamps: dict[int, int] = {}
        self._last_stamp: int | None = None
        self._guessed: Camera | None = None

    def step(self, frame: Frame) -> list[Step]:
        """Take one frame; return what became known."""
        start = time.perf_counter()
        try:
            frame = self._checked(frame)
            updates = self.reconstructor.step(frame)
        except FrameError as error:
            self.metrics.drops[error.reason] += 1
            log.debug("frame %d skipped: %s", frame.stamp_ns, error)
            return []
        self.frames += 1
        self.metrics.add("reconstruct", (time.perf_counter() - start) * 1e3)
        steps = self._take(updates)
        self.metrics.answered((time.perf_counter() - start) * 1e3)
        return steps

    def finish(self) -> list[Step]:
        """No frame follows: return what the backend still owes."""
        return self._take(self.reconstructor.finish())

    @property
    def cloud(self) -> CloudMap:
        """The cloud of the current map."""
        return self.maps.cloud

    def trajectory(self) -> Trajectory:
        """The best poses now of the frames of the map with most of them."""
        return next(iter(self.trajectories().values()))

    def trajectories(self) -> dict[int, Trajectory]:
        """The best poses now by map, the one with most frames first; there is always one, perhaps without frames."""
        poses, maps = self.reconstructor.poses(), self.maps.frames
        members: dict[int, list[int]] = {}
        for index in sorted(i for i in poses if i in self._stamps):
            members.setdefault(maps.get(index, 0), []).append(index)
        ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0])) or [(0, [])]
        return {number: self._trajectory(poses, indices) for number, indices in ordered}

    def _trajectory(self, poses: Mapping[int, Pose], indices: list[int]) -> Trajectory:
        stamps = np.array([self._stamps[i] for i in indices], dtype=np.int64)
        return Trajectory(stamps, np.array([poses[i] for i in indices]).reshape(-1, 4, 4))

    def _checked(self, frame: Frame) -> Frame:
        """The frame with a camera and without a broken prior. Raises FrameError when its stamp does not rise."""
        if self._last_stamp is not None and frame.stamp_ns <= self._last_stamp:
            reason = "stamp repeated" if frame.stamp_ns == self._last_stamp else "stamp backwards"
            raise FrameError(reason, f"{reason}: {frame.stamp_ns} after {self._last_stamp}")
        self._last_stamp = frame.stamp_ns
        if frame.prior is not None and not is_pose(frame.prior):
            self.metrics.drops["prior invalid"] += 1
            frame = dataclasses.replace(frame, prior=None)
        if not _is_vector(frame.position):
            self.metrics.drops["position invalid"] += 1
            frame = dataclasses.replace(frame, position=None)
        if not _is_vector(frame.up):
            self.metrics.drops["up invalid"] += 1
            frame = dataclasses.replace(frame, up=None)
        if frame.camera is None and self.reconstructor.capabilities.needs_camera:
            frame = dataclasses.replace(frame, camera=self._guess(frame))
        return frame

    def _guess(self, frame: Frame) -> Camera:
        height, width = frame.image.shape[:2]
        if self._guessed is None or self._guessed.size != (width, height):
            self._guessed = Camera.guess(width, height)
            log.warning(
                "the images have no calibration: focal length guessed as %.0f px; give --camera FILE for a true shape",
                self._guessed.fx,
            )
        return self._guessed

    def _take(self, updates: Iterable[Update]) -> list[Step]:
        steps = []
        for update in updates:
            begins = self.maps.follow(update)
            keyframe = self._record(update)
            steps.append(Step(update, keyframe if update.map_id == self.maps.current else None, begins))
        return steps

    def _record(self, update: Update) -> Keyframe | None:
        if not update.revises:
            self._stamps[update.index] = update.stamp_ns
            self.tracking = update.tracking
        self.scale, self.gravity = update.scale, update.gravity
        cloud = self.maps.clouds.get(update.map_id)
        if update.corrections and cloud is not None:
            cloud.correct(update.corrections)
        if not update.is_keyframe:
            return None
        if update.index not in self.keyframes:
            self.keyframes[update.index] = KeyframeRecord(update.index, update.stamp_ns, update.reason)
        return self._store(update) if update.depth is not None and update.T_map_cam is not None else None

    def _store(self, update: Update) -> Keyframe | None:
        with self.metrics.stage("store"):
            try:
                keyframe = self.store.put(update)
            except StoreError as error:
                self.metrics.drops["store"] += 1
                log.warning("keyframe %d not stored: %s", update.index, error)
                return None
        self.keyframes[update.index].points = len(keyframe.points)
        cloud = self.maps.clouds[update.map_id]
        if not cloud.voxel_size:
            cloud.voxel_size = self.config.mesh.voxel_size or self.config.mesh.voxel_share * median_depth(
                keyframe
            )
        with self.metrics.stage("cloud"):
            cloud.add(keyframe)
        return keyframe


def _is_vector(vector: NDArray[np.float64] | None) -> bool:
    """Whether it is a vector [3], or not given."""
    return vector is None or (np.shape(vector) == (3,) and bool(np.isfinite(vector).all()))


def demand(reconstructor: Reconstructor, name: str, has_depth: bool) -> None:
    """Raise InputError if the backend cannot work on a source with or without depth."""
    if reconstructor.capabilities.needs_depth and not has_depth:
        raise InputError(
            f"backend '{name}' needs depth images and the source has none: use --backend geometric"
        )
