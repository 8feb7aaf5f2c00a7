# SPDX-License-Identifier: Apache-2.0
"""Kernels are compiled, or loaded from the cache, when they are first called. Live, the frames of those seconds would be
lost; so a small synthetic flight calls them before."""

from __future__ import annotations

import gc

from recon3d_ros.backends import registry
from recon3d_ros.core.config import Config
from recon3d_ros.mapping.warm_up import warm_up as warm_up_mesher
from recon3d_ros.runtime.pipeline import Pipeline
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

#: Long enough for a monocular start, a bundle adjustment and the dense depth of a keyframe.
_FRAMES = 16


def warm_up(backend: str, config: Config) -> None:
    """Call all kernels of a backend and of the pipeline around it: about a second, at the very first time a minute. A
    learned backend has none, and its weights are not loaded twice: there the depth of the flight does for the pipeline."""
    reconstructor = registry.create("rgbd" if backend in registry.LEARNED else backend, config)
    try:
        depth = reconstructor.capabilities.needs_depth
        options = FlightOptions(frames=_FRAMES, camera=camera_of(160, 120, 70.0), depth=depth)
        store = KeyframeStore(HeapArena(), config.store, config.cloud)
        pipeline = Pipeline(config, reconstructor, store)
        for frame in SyntheticFlight("building", "orbit", options):
            pipeline.step(frame)
        pipeline.finish()
    finally:
        reconstructor.close()
    # What the compiler leaves behind stays for good: unless it is set aside, each full collection walks it for 0.1 s.
    gc.collect()
    gc.freeze()


def warm_up_everything(config: Config) -> None:
    """Call the kernels of every backend and of the mesher."""
    for backend in registry.available():
        if backend not in registry.LEARNED:
            warm_up(backend, config)
    warm_up_mesher(config.mesh)
