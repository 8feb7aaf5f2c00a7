# SPDX-License-Identifier: Apache-2.0
"""Dense depth of keyframes in a thread of its own: plane sweep, semi-global matching, and a check against the depth of the
keyframes before and after. One thread, because tracking and meshing want the other cores."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from recon3d_ros.backends.geometric.consistency import confirmed
from recon3d_ros.backends.geometric.dense_keyframe import DenseKeyframe, prepare
from recon3d_ros.backends.geometric.depth_window import DenseResult, DepthWindow, RawDepth
from recon3d_ros.backends.geometric.sgm import aggregate, winner
from recon3d_ros.backends.geometric.sweep import plane_sweep
from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.threads import give_way
from recon3d_ros.core.types import Pose

__all__ = ["DenseKeyframe", "DenseResult", "DenseWorker", "prepare"]

log = logging.getLogger(__name__)

#: Depth of less confidence is dropped before the check.
_MIN_CONFIDENCE = 0.05


@dataclass(frozen=True, eq=False)
class _Job:
    reference: DenseKeyframe
    T_map_cam: Pose
    neighbours: Sequence[tuple[DenseKeyframe, Pose]]
    depth_range: tuple[float, float]


class DenseWorker:
    """Keyframes in, their depth out, in the order of submission.

    A keyframe is checked against those submitted around it, four before and two after where there are, so its result comes
    when those after it have been computed. What is returned depends on what was submitted alone, never on timing.

    realtime: a keyframe that finds the queue full is dropped and counted; else `submit` waits. dropped, failed: how many
    keyframes were lost to a full queue and to errors.
    """

    def __init__(self, params: GeometricParams, realtime: bool) -> None:
        self.params, self.realtime = params, realtime
        self.dropped = 0
        self.failed = 0
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._results: list[DenseResult] = []
        self._busy = False
        self._closed = False
        self._window = DepthWindow()
        self._times: dict[str, deque[float]] = {}
        self._thread = threading.Thread(target=self._run, name="dense-depth", daemon=True)
        self._thread.start()

    def submit(
        self,
        reference: DenseKeyframe,
        T_map_cam: Pose,
        neighbours: Sequence[tuple[DenseKeyframe, Pose]],
        depth_range: tuple[float, float],
        patient: bool = False,
    ) -> None:
        """Ask for the depth of `reference`, seen from T_map_cam, within depth_range (nearest, farthest; map units), from
        the images of its neighbours and their poses T_map_neighbour. patient: wait for room in the queue in any case."""
        with self._changed:
            if self.realtime and not patient and len(self._jobs) >= self.params.depth_queue:
                self.dropped += 1
                return
            self._changed.wait_for(lambda: self._closed or len(self._jobs) < self.params.depth_queue)
            if self._closed:
                raise RuntimeError("the depth worker is closed")
            self._jobs.append(_Job(reference, T_map_cam, neighbours, depth_range))
            self._changed.notify_all()

    def results(self, wait: bool = False) -> list[DenseResult]:
        """Finished keyframes that were not returned before. With `wait`, of all that were submitted; the last ones are
        then checked against earlier ones alone."""
        with self._changed:
            if wait:
                self._changed.wait_for(self._idle)
                self._results += self._window.flush()
            out, self._results = self._results, []
        return out

    @property
    def full(self) -> bool:
        """True while no keyframe can be submitted without loss or wait."""
        with self._changed:
            return self.realtime and len(self._jobs) >= self.params.depth_queue

    @property
    def idle(self) -> bool:
        """True while nothing that was submitted is still computed."""
        with self._changed:
            return self._idle()

    def stage_ms(self) -> dict[str, float]:
        """Median duration in milliseconds of each stage of one keyframe, by names ending in `_ms`."""
        with self._changed:
            return {f"{name}_ms": 1e3 * median(times) for name, times in self._times.items()}

    def reset(self) -> None:
        """Forget all keyframes, finished or not; counters and times stay."""
        with self._changed:
            self._jobs.clear()
            self._changed.notify_all()
            self._changed.wait_for(self._idle)
            self._window = DepthWindow()
            self._results = []

    def close(self) -> None:
        """Give up what has not begun and stop the thread. May be called more than once."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join()

    def _idle(self) -> bool:
        return not self._jobs and not self._busy

    def _run(self) -> None:
        give_way()
        with self._failures("depth kernels do not compile"):
            _warm_up()
        while (job := self._next()) is not None:
            with self._failures(f"no depth for keyframe {job.reference.index}"):
                self._finish(self._raw(job))
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    @contextmanager
    def _failures(self, message: str) -> Iterator[None]:
        """Count and log an error in the body, so that the thread goes on."""
        try:
            yield
        except Exception as error:
            log.warning("%s: %s", message, error, exc_info=log.isEnabledFor(logging.DEBUG))
            with self._changed:
                self.failed += 1

    def _next(self) -> _Job | None:
        """Wait for the next job and take it; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._jobs))
            if self._closed:
                return None
            self._busy = True
            self._changed.notify_all()
            return self._jobs.popleft()

    def _raw(self, job: _Job) -> RawDepth:
        begin = time.perf_counter()
        near, far = job.depth_range
        if not 0 < near < far < np.inf:
            raise ValueError(f"depth range {near:g} .. {far:g}")
        inverse_depths = np.linspace(1 / far, 1 / near, self.params.depth_planes, dtype=np.float32)
        to_reference = [(n.grey, n.camera, inverse(T) @ job.T_map_cam) for n, T in job.neighbours]
        cost = plane_sweep(job.reference.grey, job.reference.camera, to_reference, inverse_depths)
        swept = time.perf_counter()
        plane, confidence = winner(aggregate(cost, job.reference.grey), cost)
        step = float(inverse_depths[1] - inverse_depths[0])
        depth = 1 / (inverse_depths[0] + plane * np.float32(step))
        depth[confidence < _MIN_CONFIDENCE] = np.nan
        self._time(depth_sweep=swept - begin, depth_sgm=time.perf_counter() - swept)
        return RawDepth(job.reference, job.T_map_cam, depth, confidence, step)

    def _finish(self, raw: RawDepth) -> None:
        begin = time.perf_counter()
        results = self._window.add(raw)
        self._time(depth_check=time.perf_counter() - begin)
        with self._changed:
            self._results += results

    def _time(self, **seconds: float) -> None:
        with self._changed:
            for name, value in seconds.items():
                self._times.setdefault(name, deque(maxlen=1000)).append(value)


def _warm_up() -> None:
    """Compile the kernels (seconds, when they are not cached yet) before the first keyframe needs them."""
    grey, camera = np.zeros((8, 8), np.uint8), Camera(8, 8, 8.0, 8.0, 3.5, 3.5)
    cost = plane_sweep(grey, camera, [(grey, camera, np.eye(4))], np.ones(16, np.float32))
    depth, _ = winner(aggregate(cost, grey), cost)
    confirmed(depth, 1.0, camera, [(depth, camera, np.eye(4))])
