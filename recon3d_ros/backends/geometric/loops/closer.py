# SPDX-License-Identifier: Apache-2.0
"""Runs the search for loops in a thread of its own: keyframes in, closed loops out. Poses never wait for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.loops.landmarks import landmarks
from recon3d_ros.backends.geometric.loops.search import LoopSearch, Snapshot
from recon3d_ros.backends.geometric.loops.vlad import describe
from recon3d_ros.backends.geometric.map import RECENT, Map, View
from recon3d_ros.backends.geometric.matching import Features, detect
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.threads import give_way
from recon3d_ros.core.types import Arrays, Image

log = logging.getLogger(__name__)

#: A keyframe that shares more of its tracks with the last one offered shows nothing new.
_SHARED = 0.6
#: Keyframes that may wait before one is dropped, live; frames after which the answer to one is waited for, offline.
_QUEUE, _DELAY = 4, 10
#: Change of the scale of a keyframe from which on it is counted.
_RESCALED = 0.01


@dataclass(frozen=True, eq=False)
class _Offer:
    """A keyframe: its view, SIFT keypoints where these are known, points in depths z [M] at centred pixels `at` [M,2], the
    map, taken: loops closed before."""

    view: View
    features: Features | None
    at: Array
    z: Array
    now: Snapshot
    taken: int


class LoopCloser:
    """Loops of one map.

    realtime: `offer` drops keyframes when the thread is behind, and `take` gives what is there. Else what `take` gives
    depends on the frames alone: it is the answer to keyframes a fixed number of frames ago, and it waits for that.
    dropped, failed: keyframes lost to a full queue and to errors. rescaled: keyframes whose scale a loop changed by more
    than 1 %. search: what was found.
    """

    def __init__(self, world: Map, enabled: bool, realtime: bool) -> None:
        self.map, self.enabled, self.realtime = world, enabled, realtime
        self.search = LoopSearch()
        self.dropped = self.failed = self.rescaled = 0
        self._changed = threading.Condition()
        self._searching = threading.Lock()
        self._offers: deque[_Offer] = deque()
        self._busy: _Offer | None = None
        #: The frame that closed a loop, and the loop, until it is taken; meanwhile nothing else is looked for.
        self._found: tuple[int, Closing] | None = None
        #: By how much the newest part of the map grew at each loop that was taken.
        self._growths: list[float] = []
        self._latest = -1
        self._ids: Ints = np.empty(0, np.int64)
        self._stopped = False
        self._thread: threading.Thread | None = None

    def offer(self) -> None:
        """Hand over the new keyframes of the map. Never waits."""
        if not self.enabled or not self.map.focal_settled:
            return
        new = [k for k in self.map.keyframes[-RECENT:] if k.index > self._latest]
        for keyframe in new:
            self._latest = keyframe.index
            shared = np.isin(keyframe.ids, self._ids).mean() if len(keyframe.ids) else 1.0
            if keyframe.view is None or not keyframe.baseline or shared > _SHARED:
                continue
            self._ids = keyframe.ids
            self._add(
                _Offer(
                    keyframe.view,
                    vars(keyframe.view).get("features"),
                    *self.map.depths(keyframe),
                    _snapshot(self.map),
                    len(self._growths),
                )
            )

    def take(self, now: int) -> Closing | None:
        """The loop to close before frame `now`. The caller bends the map at once."""
        if self._thread is None:
            return None
        with self._changed:
            if not self.realtime:
                self._changed.wait_for(lambda: self._stopped or self._oldest() > now - _DELAY)
            if self._found is None or (not self.realtime and self._found[0] > now - _DELAY):
                return None
            return self._take(self._found[1])

    def finish(self) -> Closing | None:
        """No keyframe follows: wait, and use all that was found once more."""
        if self._thread is None:
            return None
        with self._changed:
            self._wait()
            closing = self._found[1] if self._found is not None else self.search.finish(_snapshot(self.map))
            return None if closing is None else self._take(closing)

    def grow(self, scale: float) -> None:
        """The map was carried through a similarity of this scale. A loop that was not taken yet is forgotten."""
        with self._changed:
            self._wait()
            self._found = None
            self.search.grow(scale)

    def absorb(self, other: LoopCloser) -> None:
        """Take over what the closer of an absorbed map knows. Loops that were not taken yet are forgotten."""
        other.grow(1.0)
        self.grow(1.0)
        self.search.absorb(other.search)
        self._latest = max(self._latest, other._latest)
        self.dropped += other.dropped
        self.failed += other.failed
        other.close()

    def saved(self) -> Arrays:
        """What is known of the keyframes."""
        with self._searching:
            return self.search.saved()

    def resume(self, arrays: Arrays, lens: Lens) -> None:
        """Know the keyframes of a saved map, which is in `map` already."""
        self.search.resume(arrays, lens)
        self._latest = self.map.keyframes[-1].index
        self._ids = self.map.keyframes[-1].ids

    def alike(self, grey: Image, best: int = 3) -> list[int]:
        """Indices of up to `best` keyframes that look most like an image; none while few are known."""
        if not self.realtime:
            with self._changed:
                self._wait()
        if not len(self.search.places):
            return []
        return self.search.places.rank(describe(grey), best=best)

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _add(self, offer: _Offer) -> None:
        with self._changed:
            if self.realtime and len(self._offers) >= _QUEUE:
                self.dropped += 1
                return
            self._offers.append(offer)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="loops", daemon=True)
                self._thread.start()

    def _oldest(self) -> float:
        """The oldest frame that is not done."""
        waiting = ([] if self._busy is None else [self._busy]) + list(self._offers)[:1]
        return waiting[0].view.index if waiting else np.inf

    def _wait(self) -> None:
        self._changed.wait_for(lambda: self._stopped or (self._busy is None and not self._offers))

    def _take(self, closing: Closing) -> Closing:
        with self._searching:
            self.search.closed(closing)
        self._found = None
        self.rescaled += sum(abs(closing.scale(i) - 1.0) > _RESCALED for i in closing.moves)
        self._growths.append(closing.scale(self.map.keyframes[-1].index))
        return closing

    def _run(self) -> None:
        give_way()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or bool(self._offers))
                if self._stopped:
                    return
                self._busy = offer = self._offers.popleft()
            try:
                self._look_up(offer)
            except Exception as error:
                log.warning("keyframe %d is not looked up: %s", offer.view.index, error, exc_info=True)
                self.failed += 1
            with self._changed:
                self._busy = None
                self._changed.notify_all()

    def _look_up(self, offer: _Offer) -> None:
        view = offer.view
        descriptors = describe(view.grey)
        features = offer.features or detect(view.grey, view.lens)
        marks = landmarks(view.index, features, view.lens, offer.at, offer.z)
        with self._searching:
            marks.grow(float(np.prod(self._growths[offer.taken :])))
            old = self._found is not None or offer.taken < len(self._growths)
            closing = self.search.step(marks, descriptors, None if old else offer.now)
            if closing is not None:
                self._found = view.index, closing


def loop_statistics(closers: Sequence[LoopCloser]) -> dict[str, float]:
    """Counters over all maps: loops found, sightings that were not believed, keyframes whose scale a loop changed so that
    their depth does not fit any more, keyframes that were not looked up."""
    return {
        "loops": sum(c.search.loops for c in closers),
        "loops_rejected": sum(c.search.rejected for c in closers),
        "loops_rescaled": sum(c.rescaled for c in closers),
        "loops_dropped": sum(c.dropped + c.failed for c in closers),
    }


def _snapshot(world: Map) -> Snapshot:
    keyframes = world.keyframes
    return Snapshot(
        [k.index for k in keyframes], [k.T_cam_map for k in keyframes], [k.ids for k in keyframes]
    )
