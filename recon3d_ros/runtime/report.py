# SPDX-License-Identifier: Apache-2.0
"""What a run did, as a file for programs (report.json) and for people (report.md)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from recon3d_ros.runtime.metrics import Percentiles


@dataclass(frozen=True)
class Report:
    """frames: taken by the backend; tracked: of them with a pose; maps: the same by id of the map;
    drops: frames and keyframes given up, by reason.
    fps: frames per second of wall time. latency_ms: arrival to answer. ate_*, surface_*: only where truth is known, after
    `alignment` (sim3 or se3); surface errors in metres of the truth, voxel_m likewise.
    published, received: messages by topic, where a second process counted them."""

    source: str
    backend: str
    frames: int
    tracked: int
    keyframes: int
    fps: float
    latency_ms: Percentiles
    stage_ms: Mapping[str, Percentiles]
    peak_rss_mb: float
    scale_state: str
    points: int
    triangles: int
    voxel_size: float
    drops: Mapping[str, int] = field(default_factory=dict)
    backend_statistics: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, int] = field(default_factory=dict)
    gravity_state: str = "unknown"
    interrupted: bool = False
    alignment: str | None = None
    truth_path_m: float | None = None
    ate_m: float | None = None
    ate_percent_of_path: float | None = None
    rpe_m: float | None = None
    rpe_deg: float | None = None
    voxel_m: float | None = None
    surface_median_m: float | None = None
    surface_p90_m: float | None = None
    surface_median_voxels: float | None = None
    published: Mapping[str, int] | None = None
    received: Mapping[str, int] | None = None

    def to_json(self) -> str:
        """The report as JSON; what is not known is left out."""
        known = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return json.dumps(known, indent=2, default=float) + "\n"

    def to_markdown(self) -> str:
        """The report as Markdown tables."""
        rows = [("source", self.source), ("backend", self.backend)]
        rows += [("frames tracked", f"{self.tracked} of {self.frames}"), ("keyframes", str(self.keyframes))]
        if len(self.maps) > 1:
            rows.append(("maps", ", ".join(f"{number}: {n} frames" for number, n in self.maps.items())))
        rows += self._truth_rows()
        speed = f"{self.fps:.1f} frames/s, latency p50 {self.latency_ms.p50:.1f} ms, p95 {self.latency_ms.p95:.1f} ms"
        rows += [
            ("scale, gravity", f"{self.scale_state}, {self.gravity_state}"),
            ("mesh", f"{self.triangles:,} triangles, voxel {self.voxel_size:.4g}"),
            ("cloud", f"{self.points:,} points"),
            ("speed", speed),
            ("peak memory", f"{self.peak_rss_mb:.0f} MB"),
            ("given up", ", ".join(f"{n} {reason}" for reason, n in sorted(self.drops.items())) or "nothing"),
        ]
        if self.interrupted:
            rows.append(("ended", "interrupted; what was computed is kept"))
        text = "# Report\n\n| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
        text += "\n| stage | p50 ms | p95 ms | max ms |\n|---|---|---|---|\n"
        text += "".join(
            f"| {name} | {p.p50:.2f} | {p.p95:.2f} | {p.max:.2f} |\n" for name, p in self.stage_ms.items()
        )
        figures = {name: v for name, v in self.backend_statistics.items() if not name.endswith("_ms")}
        if figures:
            text += f"\n| {self.backend} | |\n|---|---|\n"
            text += "".join(f"| {name} | {value:.6g} |\n" for name, value in figures.items())
        if self.published is not None and self.received is not None:
            text += "\n| topic | published | received by another process |\n|---|---|---|\n"
            text += "".join(f"| {t} | {n} | {self.received.get(t, 0)} |\n" for t, n in self.published.items())
        return text

    def _truth_rows(self) -> list[tuple[str, str]]:
        rows = []
        if self.ate_m is not None and self.ate_percent_of_path is not None:
            percent = f"{self.ate_percent_of_path:.3g} % of {self.truth_path_m:.4g} m"
            rows.append(("trajectory error (ATE)", f"{self.ate_m:.4g} m, {percent} ({self.alignment})"))
        if self.surface_median_m is not None:
            median = f"median {self.surface_median_m:.3g} m ({self.surface_median_voxels:.2g} voxels)"
            rows.append(("surface error", f"{median}, p90 {self.surface_p90_m:.3g} m"))
        return rows
