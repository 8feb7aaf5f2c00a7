# SPDX-License-Identifier: Apache-2.0
"""A backend in a pipeline, and frames given to it as a camera would."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from recon3d_ros.backends import registry
from recon3d_ros.core.config import Config
from recon3d_ros.core.types import Frame
from recon3d_ros.runtime.pipeline import Pipeline, Step
from recon3d_ros.runtime.warm_up import warm_up
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore


@contextmanager
def pipeline_of(config: Config, realtime: bool) -> Iterator[Pipeline]:
    """The pipeline of `config.backend`, its kernels compiled. realtime: depth that comes too late is dropped, as live; else
    it is waited for."""
    warm_up(config.backend, config)
    reconstructor = registry.create(config.backend, config, realtime)
    store = KeyframeStore(HeapArena(), config.store, config.cloud)
    try:
        yield Pipeline(config, reconstructor, store)
    finally:
        reconstructor.close()
        store.close()


def paced(pipeline: Pipeline, frames: Iterable[Frame], hz: float) -> Iterator[list[Step]]:
    """The answers to each frame, one every 1/hz seconds or as soon as it is done (hz 0), then what is owed at the end."""
    for frame in frames:
        begin = time.perf_counter()
        yield pipeline.step(frame)
        if hz:
            time.sleep(max(0.0, begin + 1 / hz - time.perf_counter()))
    yield pipeline.finish()
