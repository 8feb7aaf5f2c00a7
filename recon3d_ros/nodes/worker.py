# SPDX-License-Identifier: Apache-2.0
"""The thread that reconstructs: what was captured in, steps of the pipeline out. Knows nothing of ROS."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.types import Frame, Tracking
from recon3d_ros.nodes.capture import Aids, Capture, Decoder
from recon3d_ros.runtime.metrics import HISTORY, Percentiles, peak_rss_mb, stage_values
from recon3d_ros.runtime.pipeline import Pipeline, Step
from recon3d_ros.runtime.queues import BoundedQueue
from recon3d_ros.runtime.results import Results, pipeline_report, pipeline_results
from recon3d_ros.runtime.saved_map import SavedMap

log = logging.getLogger(__name__)

#: Frames over which the rate is taken.
_RECENT = 50

#: Seconds after which a thread without work looks whether time has jumped.
_LOOK = 0.25


def total(*counts: Mapping[str, int]) -> Counter[str]:
    """The sum of counters, while other threads go on counting; what is zero is left out."""
    out: Counter[str] = Counter()
    for each in counts:
        out.update(dict(each))  # copied at once, before it changes
    return +out


@dataclass(frozen=True)
class State:
    """What the status says of the worker. fps: over the last frames. latency_ms: arrival to published, of the newest."""

    stamp_ns: int
    tracking: Tracking
    scale: str
    gravity: str
    reason: str
    frames: int
    tracked: int
    keyframes: int
    points: int
    fps: float
    latency_ms: float
    queue: int


class LiveRun:
    """Owns a pipeline and its thread. `on_step` is called in that thread with each step and the frame that brought it,
    `on_reset` between the last step of a map and the first of the next.

    When frames come faster than they are worked on, the oldest waits in vain: it is dropped and counted. refused: the error
    with which the backend said that no frame will ever do.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        on_step: Callable[[Step, Frame | None], None],
        on_reset: Callable[[], None] = lambda: None,
        aids: Aids = Aids(),  # noqa: B008 - immutable
    ) -> None:
        self.pipeline = pipeline
        self.latency_ms: deque[float] = deque(maxlen=HISTORY)
        #: Each with the number of time jumps before it.
        self.queue: BoundedQueue[tuple[int, Capture]] = BoundedQueue(config.input.queue, drop_oldest=True)
        self._config = config
        self._on_step = on_step
        self._on_reset = on_reset
        self._lock = threading.Lock()
        self._decoder = Decoder(aids, pipeline.metrics.drops, config.frames.optical)
        self._done: deque[float] = deque(maxlen=_RECENT)
        self._stamp_ns = self._tracked = self._points = 0
        self._reason = ""
        self._jumps = self._jumps_followed = 0
        self.done = 0
        self._on_time_jump = ""
        self.refused: InputError | None = None
        self._thread = threading.Thread(target=self._run, name="reconstructor", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> Counter[str]:
        """Frames given up, by reason."""
        return total(self.pipeline.metrics.drops, {"worker behind": self.queue.dropped})

    def state(self) -> State:
        """Where the worker is; callable from any thread, it never waits."""
        pipeline, done = self.pipeline, list(self._done)
        span = done[-1] - done[0] if len(done) > 1 else 0.0
        return State(
            stamp_ns=self._stamp_ns,
            tracking=pipeline.tracking,
            scale=pipeline.scale.value,
            gravity=pipeline.gravity.value,
            reason=self._reason,
            frames=pipeline.frames,
            tracked=self._tracked,
            keyframes=len(pipeline.keyframes),
            points=self._points,
            fps=(len(done) - 1) / span if span else 0.0,
            latency_ms=self.latency_ms[-1] if self.latency_ms else 0.0,
            queue=len(self.queue),
        )

    def values(self) -> dict[str, object]:
        """Further values for diagnostics; callable from any thread, it never waits."""
        latency, pipeline = Percentiles.of(list(self.latency_ms)), self.pipeline
        clouds = list(pipeline.maps.clouds.values())
        return {
            "queue_max": self.queue.high_water,
            "keyframe_reason": self._reason,
            "map_id": pipeline.maps.current,
            "latency_p50_ms": f"{latency.p50:.1f}",
            "latency_p95_ms": f"{latency.p95:.1f}",
            "store_mb": f"{pipeline.store.nbytes / 1e6:.1f}",
            "map_mb": f"{sum(cloud.nbytes for cloud in clouds) / 1e6:.1f}",
            **stage_values(pipeline.metrics.stages),
        }

    def put(self, capture: Capture) -> None:
        """Hand over what was captured; never blocks."""
        self.queue.put((self._jumps, capture))

    def reset(self) -> None:
        """Begin a new map; what waits is forgotten."""
        self.queue.clear()
        with self._lock:
            self._begin_anew()

    def jump(self, policy: str) -> None:
        """Time went back: what waits is forgotten; what `policy` (parameter `on_time_jump`) says is done before the next
        frame. Never blocks."""
        self._on_time_jump = policy
        self._jumps += 1
        self.queue.clear()

    def rest(self) -> None:
        """Forget what waits, and wait for the step under way."""
        self.queue.clear()
        with self._lock:
            pass

    def finish(self) -> None:
        """Work off what waits and what the backend still owes, and stop the thread."""
        self.queue.close()
        self._thread.join()
        with self._lock:
            self.pipeline.finish(lambda step: self._pass_on(step, None))

    def results(self, source: str, backend: str, drops: Counter[str]) -> Results:
        """All that was reconstructed so far, without a mesh; `drops` are added to those counted here."""
        with self._lock:
            pipeline = self.pipeline
            report = pipeline_report(
                pipeline, source, backend, peak_rss_mb(), dict(drops + self.drops - pipeline.metrics.drops)
            )
            report = dataclasses.replace(report, latency_ms=Percentiles.of(self.latency_ms))
            return dataclasses.replace(pipeline_results(pipeline, report), config=self._config)

    def saved(self, backend: str) -> SavedMap:
        """The map as it is now. Raises InputError where there is none that one could go on with."""
        with self._lock:
            return SavedMap.of(self.pipeline, backend)

    def resume(self, saved: SavedMap) -> None:
        """Go on with a saved map; what waits is forgotten."""
        self.queue.clear()
        with self._lock:
            saved.resume(self.pipeline)
            self._forget()
            self._on_reset()

    def close(self) -> None:
        """Stop the thread and free the backend and the store. May be called more than once."""
        self.queue.clear()
        self.queue.close()
        self._thread.join()
        self.pipeline.reconstructor.close()
        self.pipeline.store.close()

    def _run(self) -> None:
        while True:
            item = self.queue.get(_LOOK)
            if item is None and self.queue.closed and not len(self.queue):
                return
            try:
                with self._lock:
                    self._turn(item)
            except InputError as error:  # no frame will ever do
                self.refused = error
                return
            except Exception:  # one frame costs itself, never the flight
                self.pipeline.metrics.drops["internal error"] += 1
                log.exception("frame %s failed", item and item[1].stamp_ns)

    def _turn(self, item: tuple[int, Capture] | None) -> None:
        """Follow a jump of time if there was one, then take the next frame, if it is of the time since."""
        jumps = self._jumps
        if self._jumps_followed != jumps:
            self._jumps_followed = jumps
            self._follow_jump(self._on_time_jump)
        if item is not None and item[0] == jumps:
            self._take(item[1], jumps)

    def _follow_jump(self, policy: str) -> None:
        self._done.clear()
        if policy == "continue":
            self.pipeline.begin_time()
        elif policy == "new_map":
            self.pipeline.begin_map()
            self._points, self._reason = 0, ""
            self._on_reset()
        else:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.pipeline.reset()
        self._forget()
        self._on_reset()

    def _forget(self) -> None:
        self._tracked = self._points = 0
        self._reason = ""

    def _take(self, capture: Capture, jumps: int) -> None:
        metrics = self.pipeline.metrics
        metrics.add("wait", (time.perf_counter() - capture.arrived) * 1e3)
        try:
            with metrics.stage("decode"):
                frame = self._decoder.frame(capture)
        except FrameError as error:
            metrics.drops[error.reason] += 1
            self._decoder.warn(error)
            return

        def pass_on(step: Step) -> None:
            with metrics.stage("outputs"):
                # A pose stamped with a time that is over by now would lie in the future.
                self._pass_on(step if self._jumps == jumps else _without_pose(step), frame)

        self.pipeline.step(frame, pass_on)
        now = time.perf_counter()
        self.latency_ms.append((now - capture.arrived) * 1e3)
        self._done.append(now)
        self.done += 1
        self._stamp_ns = capture.stamp_ns

    def _pass_on(self, step: Step, frame: Frame | None) -> None:
        update = step.update
        self._tracked += not update.revises and update.T_map_cam is not None
        if update.is_keyframe and update.reason:
            self._reason = update.reason
        if step.keyframe is not None:
            self._points = len(self.pipeline.cloud)
        self._on_step(step, frame)


def _without_pose(step: Step) -> Step:
    """With the keyframe, if any, but no pose to publish."""
    return dataclasses.replace(step, update=dataclasses.replace(step.update, revises=True))
