# SPDX-License-Identifier: Apache-2.0
"""The mesher thread: keyframes in, changed mesh blocks out at a bounded rate. Runs beside the pose path, never in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Keyframe, MeshBlock, Pose
from recon3d_ros.mapping.export import remove_small_components
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.runtime.metrics import Metrics
from recon3d_ros.runtime.queues import BoundedQueue

log = logging.getLogger(__name__)

BlockSink = Callable[[list[MeshBlock]], None]
#: A keyframe is opened in the mesher thread and released when it has been integrated.
KeyframeLease = AbstractContextManager[Keyframe]


class MesherLoop:
    """Owns a `Mesher` and its thread. `put` never blocks live (`realtime`); offline it waits for room."""

    def __init__(self, params: MeshParams, realtime: bool, sink: BlockSink | None = None) -> None:
        self.mesher = Mesher(params)
        self.metrics = Metrics()
        self._params = params
        self._sink = sink
        self._queue: BoundedQueue[Callable[[], None]] = BoundedQueue(params.queue, drop_oldest=realtime)
        self._lock = threading.Lock()
        # Of its own, so that the pose path never waits for an integration.
        self._corrections_lock = threading.Lock()
        self._corrections: dict[int, Pose] = {}
        self._republish = False
        self._published = 0.0
        self._rebuild_from = 0.0
        self._thread = threading.Thread(target=self._run, name="mesher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Keyframes in the queue."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Keyframes given up because the mesher was behind."""
        return self._queue.dropped

    def put(self, keyframe: Keyframe) -> None:
        """Hand over a keyframe of this process, by reference."""
        self.put_lease(lambda: nullcontext(keyframe))

    def put_lease(self, lease: Callable[[], KeyframeLease]) -> None:
        """Hand over a keyframe that is opened when its turn comes, such as one in shared memory."""
        self._queue.put(lambda: self._integrate(lease))

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
            with self._corrections_lock:
                self._corrections.clear()
            self.mesher.reset()
            then()

    def drain(self) -> None:
        """Wait until all that was put is integrated, and follow the last corrections."""
        done = threading.Event()
        self._queue.put(done.set)
        done.wait()
        with self._lock:
            self._correct(always=True)

    def finish(self) -> None:
        """Integrate what waits, follow the last corrections, publish once more, and stop the thread."""
        self._queue.close()
        self._thread.join()
        with self._lock:
            self._correct(always=True)
        self._publish()

    def close(self) -> None:
        """Stop at once; what waits is forgotten."""
        self._queue.clear()
        self._queue.close()
        self._thread.join()

    def surface(self) -> MeshBlock:
        """The whole surface, welded, without small loose pieces."""
        with self._lock:
            mesh = self.mesher.surface()
        return remove_small_components(mesh, self._params.min_component)

    def _run(self) -> None:
        period = 1.0 / self._params.publish_rate
        while True:
            work = self._queue.get(timeout=period)
            if work is not None:
                work()
            elif self._queue.closed:
                return
            if time.monotonic() - self._published >= period:
                self._publish()

    def _integrate(self, lease: Callable[[], KeyframeLease]) -> None:
        try:
            with self.metrics.stage("integrate"), lease() as keyframe, self._lock:
                self.mesher.integrate(keyframe)
        except Exception as error:  # a broken keyframe costs itself, never the mesher
            self.metrics.drops[f"keyframe {getattr(error, 'reason', 'failed')}"] += 1
            log.warning("keyframe not meshed: %s", error)

    def _publish(self) -> None:
        self._published = time.monotonic()
        if self._sink is None:
            return
        with self.metrics.stage("extract"), self._lock:
            self._correct(always=False)
            everything, self._republish = self._republish, False
            blocks = self.mesher.changed()
            if everything:
                blocks = [b for b in blocks if not len(b.triangles)] + self.mesher.all_blocks()
            if blocks:
                with self.metrics.stage("publish"):
                    self._sink(blocks)

    def _correct(self, always: bool) -> None:
        """Follow corrected poses. A rebuild takes longer the longer the flight; live it gets a tenth of the time."""
        with self._corrections_lock:
            corrections, self._corrections = self._corrections, {}
        self.mesher.correct(corrections)
        start = time.monotonic()
        if always or (start >= self._rebuild_from and not len(self._queue)):
            with self.metrics.stage("rebuild"):
                self.mesher.rebuild()
            self._rebuild_from = start + 10.0 * (time.monotonic() - start)
