# SPDX-License-Identifier: Apache-2.0
"""The mesher thread: keyframes in, changed mesh blocks out at a bounded rate. Runs beside the pose path, never in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Arrays, Keyframe, MeshBlock, Pose
from recon3d_ros.mapping.components import remove_small_components
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.weld import joined
from recon3d_ros.runtime.archive import read_archive, write_archive
from recon3d_ros.runtime.metrics import Metrics
from recon3d_ros.runtime.pace import MeshPace
from recon3d_ros.runtime.queues import BoundedQueue

log = logging.getLogger(__name__)

#: Seconds of a rebuild after which the queue is looked at again; the step under way, at most a keyframe, is ended first.
SLICE = 0.005

#: Regions extracted at once. After a rebuild the whole map may have changed; keyframes go in between.
REGIONS = 300

#: Seconds between the steps of a save, in which the mesher's thread gets the lock: it goes to whoever asks at that moment.
PAUSE = 0.001

_KIND = "surface"

BlockSink = Callable[[list[MeshBlock]], None]
#: A keyframe is opened in the mesher thread and released when it has been integrated.
KeyframeLease = AbstractContextManager[Keyframe]


class MesherLoop:
    """Owns a `Mesher` and its thread. `put` never blocks live (`realtime`); offline it waits for room."""

    def __init__(self, params: MeshParams, realtime: bool, sink: BlockSink | None = None) -> None:
        # Offline nothing hurries, and what is a duplicate would depend on when rebuilds happened to run.
        self.mesher = Mesher(params if realtime else replace(params, duplicate_share=0.0))
        self.metrics = Metrics()
        self._params = params
        self._realtime = realtime
        self._sink = sink
        self._queue: BoundedQueue[Callable[[], None]] = BoundedQueue(params.queue, drop_oldest=realtime)
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        # Of its own, so that the pose path never waits for an integration.
        self._corrections_lock = threading.Lock()
        self._corrections: dict[int, Pose] = {}
        self._republish = False
        self._unpublished: list[float] = []  # milliseconds that keyframes took until they were integrated
        self._publishing = 0.0  # milliseconds spent so far on publishing what they changed
        self._published = 0.0
        self._rebuild_from = 0.0
        self._rebuild_took = 0.0
        self._pace = MeshPace(params)
        self._thread = threading.Thread(target=self._run, name="mesher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Keyframes in the queue."""
        return len(self._queue)

    @property
    def waiting_most(self) -> int:
        """The longest the queue ever was."""
        return self._queue.high_water

    @property
    def dropped(self) -> int:
        """Keyframes given up because the mesher was behind."""
        return self._queue.dropped

    def put(self, keyframe: Keyframe) -> None:
        """Hand over a keyframe of this process, by reference."""
        self.put_lease(lambda: nullcontext(keyframe))

    def put_lease(self, lease: Callable[[], KeyframeLease]) -> None:
        """Hand over a keyframe that is opened when its turn comes, such as one in shared memory."""
        came = time.perf_counter()
        self._queue.put(lambda: self._integrate(lease, came))

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Newer poses of older keyframes; the surface follows in the mesher thread."""
        with self._corrections_lock:
            self._corrections.update(poses)

    def republish(self) -> None:
        """Send every block again at the next turn: a late joiner asked."""
        self._republish = True

    def reset(self, then: Callable[[], None] = lambda: None) -> None:
        """Forget the surface and what waits; `then` is called before the sink gets anything of the next one."""
        self._queue.clear()
        with self._lock:
            self.mesher.reset()
            self._begin(then)

    def drain(self) -> None:
        """Wait until all that was put is integrated, and follow the last corrections."""
        done = threading.Event()
        self._queue.put(done.set)
        done.wait()
        with self._lock:
            self._rebuild_all()

    def finish(self) -> None:
        """Integrate what waits, follow the last corrections, publish once more, and stop the thread."""
        self._queue.close()
        self._thread.join()
        with self._lock:
            self._rebuild_all()
        self._publish(most=None)

    def close(self) -> None:
        """Stop at once; what waits is forgotten."""
        self._queue.clear()
        self._queue.close()
        self._thread.join()

    def surface(self) -> MeshBlock:
        """The whole surface, welded, without small loose pieces."""
        with self._lock:
            parts = self.mesher.all_blocks(spilled=True)
        # Without the lock: this takes longer than the extraction, and keyframes go on meanwhile.
        return remove_small_components(joined(parts), self._params.min_component)

    def save(self, path: Path) -> None:
        """Write the surface to a file that `resume` takes, in the calling thread; keyframes go on meanwhile. It follows the
        corrections that came so far, since later it cannot. Raises InputError without a surface, and when the disk refuses;
        an older file then stays."""
        with self._saving:
            work = self._save_steps()
            while True:
                with self._lock:
                    try:
                        next(work)
                    except StopIteration as end:
                        arrays: Arrays = end.value
                        break
                time.sleep(PAUSE)
            write_archive(path, _KIND, arrays)

    def resume(self, path: Path, then: Callable[[], None] = lambda: None) -> None:
        """Go on with a surface that was saved, instead of what is there and waits; `then` is called before the sink gets
        anything of it. Raises InputError, and goes on as before, for a file that cannot be used (see `Mesher.resume`)."""
        arrays = read_archive(path, _KIND)
        with self._lock:
            self.mesher.resume(arrays)
            self._begin(then)

    def _run(self) -> None:
        period = 1.0 / self._params.publish_rate
        while True:
            busy = self.mesher.rebuilding or self.mesher.waiting
            work = self._queue.get(timeout=0.0 if busy else period)
            if work is not None:
                work()
            elif self._queue.closed:
                return
            if self._is_due(period):
                self._publish(REGIONS)
            self._rebuild_slice()
            while not self.waiting and self._prepare():
                pass

    def _begin(self, then: Callable[[], None]) -> None:
        """Another surface is there now."""
        self._queue.clear()
        with self._corrections_lock:
            self._corrections.clear()
        self._pace = MeshPace(self._params)
        then()

    def _save_steps(self) -> Generator[None, None, Arrays]:
        for _ in range(2):  # a rebuild that was under way may have passed over the newest corrections
            self._take_corrections()
            while self.mesher.rebuild_step(exactly=not self._realtime) and self.mesher.rebuilding:
                yield
        return (yield from self.mesher.saving())

    def _integrate(self, lease: Callable[[], KeyframeLease], came: float) -> None:
        try:
            with self.metrics.stage("integrate"), lease() as keyframe, self._lock:
                self._pace.add(keyframe)
                self.mesher.integrate(keyframe)
            self._unpublished.append((time.perf_counter() - came) * 1e3)
        except Exception as error:  # a broken keyframe costs itself, never the mesher
            self.metrics.drops[f"keyframe {getattr(error, 'reason', 'failed')}"] += 1
            log.warning("keyframe not meshed: %s", error)

    def _is_due(self, period: float) -> bool:
        """Whether to publish now: after the period, that of the camera's speed where it is longer; what is left of the last
        time, and a late joiner, wait for the rate alone."""
        age = time.monotonic() - self._published
        if self.mesher.waiting:
            return True
        return age >= (period if self._republish else max(period, self._pace.period))

    def _publish(self, most: int | None) -> None:
        self._published = time.monotonic()
        if self._sink is None:
            self._unpublished.clear()
            return
        start = time.perf_counter()
        with self.metrics.stage("extract"), self._lock:
            everything, self._republish = self._republish, False
            blocks = self.mesher.changed(None if everything else most)
            if everything:
                blocks = [b for b in blocks if not len(b.triangles)] + self.mesher.all_blocks()
            if blocks:
                with self.metrics.stage("publish"):
                    self._sink(blocks)
        self._count_latency((time.perf_counter() - start) * 1e3)

    def _count_latency(self, publishing: float) -> None:
        """Note as stage `to_mesh` how long keyframes took from `put` until all of theirs was published, in one piece or
        several, without their wait for the timer."""
        self._publishing += publishing
        if self.mesher.waiting:
            return
        for integrated in self._unpublished:
            self.metrics.add("to_mesh", integrated + self._publishing)
        self._publishing = 0.0
        self._unpublished.clear()

    def _prepare(self) -> bool:
        with self._lock:
            return self.mesher.prepare()

    def _rebuild_slice(self) -> None:
        """Follow corrected poses for a moment. Live, rebuilds get a tenth of the time."""
        with self._lock:
            self._take_corrections()
            start = time.monotonic()
            if not self.mesher.rebuilding and (start < self._rebuild_from or not self.mesher.moved):
                return
            with self.metrics.stage("rebuild"):
                while self.mesher.rebuild_step() and time.monotonic() - start < SLICE:
                    if not self.mesher.rebuilding:
                        break
            self._rebuild_took += time.monotonic() - start
            if not self.mesher.rebuilding:
                self._rebuild_from = time.monotonic() + 9.0 * self._rebuild_took
                self._rebuild_took = 0.0

    def _rebuild_all(self) -> None:
        """Follow corrected poses to the end."""
        self._take_corrections()
        with self.metrics.stage("rebuild"):
            # Offline the result shall not depend on when rebuilds happened to run.
            self.mesher.rebuild(exactly=not self._realtime)

    def _take_corrections(self) -> None:
        with self._corrections_lock:
            corrections, self._corrections = self._corrections, {}
        if corrections:
            self.mesher.correct(corrections)
