# SPDX-License-Identifier: Apache-2.0
"""A source through the pipeline and the mesher as fast as it goes: every frame is used and nothing is dropped."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from recon3d_ros.backends import registry
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import ReconError
from recon3d_ros.runtime.mesher import MesherLoop
from recon3d_ros.runtime.metrics import peak_rss_mb
from recon3d_ros.runtime.pipeline import Pipeline, Step, demand
from recon3d_ros.runtime.results import Results, pipeline_report, pipeline_results
from recon3d_ros.runtime.saved_map import SURFACE, SavedMap
from recon3d_ros.runtime.sources.base import Source
from recon3d_ros.runtime.surfaces import Surfaces
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore

log = logging.getLogger(__name__)


class OfflineRun:
    """Runs one source. `stop` may be set from anywhere (a signal): the run then ends after the current frame, with all
    it has computed. Raises InputError when the backend does not fit the source."""

    def __init__(self, source: Source, config: Config) -> None:
        self.source = source
        self.config = config
        self.stop = threading.Event()
        saved = SavedMap.read(config.map, config.backend) if config.map else None
        if saved is not None:
            self.backend, why = saved.backend, "of the saved map"
        else:
            self.backend, why = registry.choose(config.backend, source.has_depth, config)
        log.info("backend %s (%s)", self.backend, why)
        reconstructor = registry.create(self.backend, config)
        demand(reconstructor, self.backend, source.has_depth)
        self.pipeline = Pipeline(
            config, reconstructor, KeyframeStore(HeapArena(), config.store, config.cloud)
        )
        self.mesher = MesherLoop(config.mesh, realtime=False)
        self.surfaces = Surfaces(self.mesher)
        if saved is not None:
            saved.resume(self.pipeline)
            self.mesher.resume(Path(config.map) / SURFACE)

    def run(
        self, on_step: Callable[[Step], None] = lambda _: None, on_frame: Callable[[], None] = lambda: None
    ) -> None:
        """Take all frames. `on_step` sees every answer, `on_frame` is called after every frame (progress)."""
        for frame in self.source:
            self._pass_on(self.pipeline.step(frame), on_step)
            on_frame()
            if self.stop.is_set():
                break
        self._pass_on(self.pipeline.finish(), on_step)
        self.mesher.finish()

    def results(self) -> Results:
        """What was computed so far."""
        mesh = self.surfaces.of(next(iter(self.pipeline.trajectories())))
        pipeline, mesher = self.pipeline, self.mesher
        drops = {**self.source.skipped, **mesher.metrics.drops, "mesher behind": mesher.dropped}
        report = pipeline_report(pipeline, self.source.describe(), self.backend, peak_rss_mb(), drops)
        report = dataclasses.replace(
            report,
            triangles=len(mesh.triangles),
            voxel_size=mesher.mesher.voxel_size,
            stage_ms={**report.stage_ms, **mesher.metrics.stages},
            interrupted=self.stop.is_set(),
        )
        return dataclasses.replace(pipeline_results(pipeline, report), mesh=mesh)

    def save_map(self, folder: Path) -> list[str]:
        """Save the map, to go on with it another time; returns what failed."""
        try:
            SavedMap.of(self.pipeline, self.backend).write(folder)
            self.mesher.save(folder / SURFACE)
        except ReconError as error:
            return [f"the map is not saved: {error}"]
        return []

    def close(self) -> None:
        """Stop threads and free memory."""
        self.mesher.close()
        self.pipeline.reconstructor.close()
        self.pipeline.store.close()

    def _pass_on(self, steps: list[Step], on_step: Callable[[Step], None]) -> None:
        for step in steps:
            self.surfaces.follow(step)
            if step.update.corrections:
                self.mesher.correct(step.update.corrections)
            if step.keyframe is not None:
                self.mesher.put(step.keyframe)
            on_step(step)
