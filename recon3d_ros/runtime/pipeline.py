# SPDX-License-Identifier: Apache-2.0
"""Frame -> backend -> keyframe store -> cloud. The live nodes and the offline runner drive this same object, so that a
recording gives the same poses either way."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError, StoreError
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.stamps import RisingStamps
from recon3d_ros.core.trajectory import Trajectory, recorded
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
    """A line of keyframes.csv. points: 0 until its depth is there. position: float64 [3] in the map, where it is known."""

    id: int
    stamp_ns: int
    reason: str
    points: int = 0
    position: NDArray[np.float64] | None = None


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
        self._guessed: Camera | None = None
        self._poses_before: dict[int, Pose] = {}
        self._first_index = self._first_map = 0
        self.begin_time()

    def begin_time(self) -> None:
        """Time went back: stamps may begin anew, all else goes on."""
        self._rising = RisingStamps()

    def begin_map(self) -> None:
        """Time went back, and nothing links what follows to what was: another map begins, those so far are kept. What the
        backend still owes is lost."""
        self._poses_before = self.poses()
        self._first_index = max(self._stamps, default=-1) + 1
        self.maps.begin()
        self._first_map = self.maps.current
        self.reconstructor.reset()
        self.store.reset()
        self.tracking = Tracking.INITIALISING
        self.scale, self.gravity = Scale.UNKNOWN, Gravity.UNKNOWN
        self.begin_time()

    def step(self, frame: Frame, each: Callable[[Step], None] = lambda step: None) -> list[Step]:
        """Take one frame; return what became known. `each` is called with a step as soon as its keyframe is stored: of many
        that become known at once the first ones are not held any more at the end."""
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
        steps = self._take(updates, each)
        self.metrics.answered((time.perf_counter() - start) * 1e3)
        return steps

    def finish(self, each: Callable[[Step], None] = lambda step: None) -> list[Step]:
        """No frame follows: return what the backend still owes, as `step` does."""
        return self._take(self.reconstructor.finish(), each)

    @property
    def cloud(self) -> CloudMap:
        """The cloud of the current map."""
        return self.maps.cloud

    def trajectory(self) -> Trajectory:
        """The best poses now of the frames of the map with most of them."""
        return next(iter(self.trajectories().values()))

    def poses(self) -> dict[int, Pose]:
        """The best poses now, camera to map, by index of the frame."""
        own = self.reconstructor.poses()
        return {**self._poses_before, **{i + self._first_index: T for i, T in own.items()}}

    def members(self, poses: Mapping[int, Pose]) -> dict[int, list[int]]:
        """Indices of the frames that have a pose by map, the one with most of them first; there is always one, perhaps
        without frames."""
        members: dict[int, list[int]] = {}
        for index in sorted(i for i in poses if i in self._stamps):
            members.setdefault(self.maps.frames.get(index, 0), []).append(index)
        return dict(sorted(members.items(), key=lambda item: (-len(item[1]), item[0])) or [(0, [])])

    def trajectories(self) -> dict[int, Trajectory]:
        """The best poses now by map, in the order of `members`. Where time went back and the map went on, of frames of the
        same time those that came last are in it."""
        poses = self.poses()
        return {number: self._trajectory(poses, frames) for number, frames in self.members(poses).items()}

    def _trajectory(self, poses: Mapping[int, Pose], indices: list[int]) -> Trajectory:
        stamps = np.array([self._stamps[i] for i in indices], dtype=np.int64)
        return recorded(stamps, np.array([poses[i] for i in indices]).reshape(-1, 4, 4))

    def _checked(self, frame: Frame) -> Frame:
        """The frame with a camera and without a broken prior. Raises FrameError when its stamp does not rise."""
        before = self._rising.newest
        refused = self._rising.refuse(frame.stamp_ns)
        if refused:
            raise FrameError(f"stamp {refused}", f"stamp {refused}: {frame.stamp_ns} after {before}")
        if before is not None and frame.stamp_ns < before:
            log.warning(
                "stamps of the images went back by %.3f s and go on from there",
                (before - frame.stamp_ns) / 1e9,
            )
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

    def _take(self, updates: Iterable[Update], each: Callable[[Step], None]) -> list[Step]:
        steps = []
        for update in map(self._numbered, updates):
            begins = self.maps.follow(update)
            keyframe = self._record(update)
            steps.append(Step(update, keyframe if update.map_id == self.maps.current else None, begins))
            each(steps[-1])
        return steps

    def _numbered(self, update: Update) -> Update:
        """Of a backend that was reset: indices and maps go on from those before."""
        first, first_map, join = self._first_index, self._first_map, update.join
        if not first_map:
            return update
        return dataclasses.replace(
            update,
            index=update.index + first,
            corrections={i + first: T for i, T in update.corrections.items()},
            map_id=update.map_id + first_map,
            join=join and dataclasses.replace(join, kept=join.kept + first_map, moved=join.moved + first_map),
        )

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
