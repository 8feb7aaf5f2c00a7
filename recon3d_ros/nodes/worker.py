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
from recon3d_ros.nodes.capture import Capture, Decoder, PriorAt, no_prior
from recon3d_ros.runtime.metrics import HISTORY, Percentiles, peak_rss_mb
from recon3d_ros.runtime.pipeline import Pipeline, Step
from recon3d_ros.runtime.queues import BoundedQueue
from recon3d_ros.runtime.results import Results, pipeline_report, pipeline_results

log = logging.getLogger(__name__)

#: Frames over which the rate is taken.
_RECENT = 50


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
        prior_at: PriorAt = no_prior,
    ) -> None:
        self.pipeline = pipeline
        self.latency_ms: deque[float] = deque(maxlen=HISTORY)
        self.queue: BoundedQueue[Capture] = BoundedQueue(config.input.queue, drop_oldest=True)
        self._config = config
        self._on_step = on_step
        self._on_reset = on_reset
        self._lock = threading.Lock()
        self._decoder = Decoder(prior_at, pipeline.metrics.drops)
        self._done: deque[float] = deque(maxlen=_RECENT)
        self._stamp_ns = self._tracked = self._points = 0
        self._reason = ""
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

    def put(self, capture: Capture) -> None:
        """Hand over what was captured; never blocks."""
        self.queue.put(capture)

    def reset(self) -> None:
        """Begin a new map; what waits is forgotten."""
        self.queue.clear()
        with self._lock:
            self.pipeline.reset()
            self._tracked = self._points = 0
            self._reason = ""
            self._on_reset()

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
            for step in self.pipeline.finish():
                self._pass_on(step, None)

    def results(self, source: str, backend: str, drops: Counter[str]) -> Results:
        """All that was reconstructed so far, without a mesh; `drops` are added to those counted here."""
        with self._lock:
            pipeline = self.pipeline
            report = pipeline_report(
                pipeline, source, backend, peak_rss_mb(), dict(drops + self.drops - pipeline.metrics.drops)
            )
            report = dataclasses.replace(report, latency_ms=Percentiles.of(self.latency_ms))
            return dataclasses.replace(pipeline_results(pipeline, report), config=self._config)

    def close(self) -> None:
        """Stop the thread and free the backend and the store. May be called more than once."""
        self.queue.clear()
        self.queue.close()
        self._thread.join()
        self.pipeline.reconstructor.close()
        self.pipeline.store.close()

    def _run(self) -> None:
        while True:
            capture = self.queue.get()
            if capture is None:
                return
            try:
                with self._lock:
                    self._take(capture)
            except InputError as error:  # no frame will ever do
                self.refused = error
                return
            except Exception:  # one frame costs itself, never the flight
                self.pipeline.metrics.drops["internal error"] += 1
                log.exception("frame %d failed", capture.stamp_ns)

    def _take(self, capture: Capture) -> None:
        metrics = self.pipeline.metrics
        metrics.add("wait", (time.perf_counter() - capture.arrived) * 1e3)
        try:
            with metrics.stage("decode"):
                frame = self._decoder.frame(capture)
        except FrameError as error:
            metrics.drops[error.reason] += 1
            log.debug("frame %d skipped: %s", capture.stamp_ns, error)
            return
        steps = self.pipeline.step(frame)
        with metrics.stage("outputs"):
            for step in steps:
                self._pass_on(step, frame)
        now = time.perf_counter()
        self.latency_ms.append((now - capture.arrived) * 1e3)
        self._done.append(now)
        self._stamp_ns = capture.stamp_ns

    def _pass_on(self, step: Step, frame: Frame | None) -> None:
        update = step.update
        self._tracked += not update.revises and update.T_map_cam is not None
        if update.is_keyframe and update.reason:
            self._reason = update.reason
        if step.keyframe is not None:
            self._points = len(self.pipeline.cloud)
        self._on_step(step, frame)
