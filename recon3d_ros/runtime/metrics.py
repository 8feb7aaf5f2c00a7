# SPDX-License-Identifier: Apache-2.0
"""Counters and timers of a run, read by the report, the status topic and diagnostics."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

#: Durations kept per stage: the percentiles are those of the most recent ones, so that a long flight stays bounded.
HISTORY = 20_000


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, milliseconds: Iterable[float]) -> Percentiles:
        """Percentiles of durations; zeros when there are none."""
        values = np.fromiter(milliseconds, dtype=np.float64)
        if not len(values):
            return cls(0.0, 0.0, 0.0)
        p50, p95, top = np.percentile(values, [50, 95, 100])
        return cls(round(float(p50), 3), round(float(p95), 3), round(float(top), 3))


class Metrics:
    """`drops` counts frames and keyframes given up, by reason; `stage` times a block under a name. Times may be read while
    other threads add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.drops: Counter[str] = Counter()
        self.latency_ms: deque[float] = deque(maxlen=HISTORY)
        self._stages: dict[str, deque[float]] = {}
        self._first = self._last = 0.0
        self._answers = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block of work under `name`, wall clock."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - start) * 1e3)

    def add(self, name: str, milliseconds: float) -> None:
        """Add one duration to a stage."""
        with self._lock:
            self._stages.setdefault(name, deque(maxlen=HISTORY)).append(milliseconds)

    def answered(self, milliseconds: float) -> None:
        """One frame is done, `milliseconds` after it came."""
        now = time.perf_counter()
        if not self._answers:
            self._first = now - milliseconds * 1e-3
        self._last = now
        self._answers += 1
        self.latency_ms.append(milliseconds)

    @property
    def fps(self) -> float:
        """Frames done per second of wall time, from the first frame's arrival to the last one's end."""
        return self._answers / (self._last - self._first) if self._last > self._first else 0.0

    @property
    def latency(self) -> Percentiles:
        """From arrival to answer."""
        return Percentiles.of(self.latency_ms)

    @property
    def stages(self) -> dict[str, Percentiles]:
        """Stage name -> percentiles."""
        with self._lock:
            copies = {name: list(values) for name, values in self._stages.items()}
        return {name: Percentiles.of(values) for name, values in copies.items()}


def stage_values(stages: Mapping[str, Percentiles]) -> dict[str, str]:
    """Diagnostic values of the latency of each stage, milliseconds: NAME_ms the median, NAME_p95_ms."""
    out = {}
    for name, stage in stages.items():
        out[f"{name}_ms"], out[f"{name}_p95_ms"] = f"{stage.p50:.1f}", f"{stage.p95:.1f}"
    return out


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
