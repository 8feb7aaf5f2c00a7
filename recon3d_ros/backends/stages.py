# SPDX-License-Identifier: Apache-2.0
"""Times of the stages of a frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median


class Stages:
    """Keeps the latest durations of each stage."""

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._times: dict[str, deque[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the body as one run of the stage `name`."""
        begin = time.perf_counter()
        yield
        self._times.setdefault(name, deque(maxlen=self._kept)).append(time.perf_counter() - begin)

    def medians_ms(self) -> dict[str, float]:
        """Median duration of each stage in milliseconds, as `<name>_ms`."""
        return {f"{name}_ms": 1e3 * median(times) for name, times in self._times.items()}
