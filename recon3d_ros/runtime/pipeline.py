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
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError, StoreError
from recon3d_ros.core.packing import part_of, within
from recon3d_ros.core.trajectory import Trajectory, recorded
from recon3d_ros.core.types import Arrays, Frame, Gravity, Keyframe, Pose, Scale, Tracking, Update
from recon3d_ros.mapping.cloud import CloudMap
from recon3d_ros.mapping.splat import median_depth
from recon3d_ros.runtime.frame_checks import FrameChecks
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
        self._forget()

    def _forget(self) -> None:
        self.store.reset()
        self.maps = MapBook(self.config.cloud)
        self.keyframes: dict[int, KeyframeRecord] = {}
        self.frames = 0
        self.tracking = Tracking.INITIALISING
        self.scale = Scale.UNKNOWN
        self.gravity = Gravity.UNKNOWN
        self._stamps: dict[int, int] = {}
        self._checks = FrameChecks(self.reconstructor.capabilities, self.metrics.drops)
        self._poses_before: dict[int, Pose] = {}
        self._first_index = self._first_map = 0

    def begin_time(self) -> None:
        """Time went back: stamps may begin anew, all else goes on."""
        self._checks.begin_time()

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

    def saved(self) -> Arrays:
        """What is needed to go on with the map that the camera is in. Raises InputError where that cannot be."""
        number, arrays = self.reconstructor.saved()
        cloud = self.maps.clouds.get(number + self._first_map, CloudMap(self.config.cloud))
        return {
            "first_index": np.array(self._first_index),
            **within("backend", arrays),
            **within("cloud", cloud.saved()),
        }

    def resume(self, arrays: Arrays) -> None:
        """Begin with a saved map: the camera has to find its place there, and what it sees is added. Frames, keyframes and
        trajectories are those from now on; the cloud is that of all. What raises changes nothing."""
        cloud, first_index = CloudMap(self.config.cloud), int(arrays["first_index"])
        cloud.resume(part_of("cloud", arrays))
        self.reconstructor.resume(part_of("backend", arrays))
        self._forget()
        self._first_index = first_index
        self.maps.clouds[self.maps.current] = cloud

    def step(self, frame: Frame, each: Callable[[Step], None] = lambda step: None) -> list[Step]:
        """Take one frame; return what became known. `each` is called with a step as soon as its keyframe is stored: of many
        that become known at once the first ones are not held any more at the end."""
        start = time.perf_counter()
        try:
            updates = self.reconstructor.step(self._checks.checked(frame))
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
        if not (first or first_map):
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


def demand(reconstructor: Reconstructor, name: str, has_depth: bool) -> None:
    """Raise InputError if the backend cannot work on a source with or without depth."""
    if reconstructor.capabilities.needs_depth and not has_depth:
        raise InputError(
            f"backend '{name}' needs depth images and the source has none: use --backend geometric"
        )
