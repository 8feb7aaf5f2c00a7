# SPDX-License-Identifier: Apache-2.0
"""The geometric backend on a synthetic survey of three minutes that passes its start twice (two rounds over a terrain),
with and without loop closing: one JSON line. The drift is that of the tracker, made larger by noise in the images.

drift_m: by how much the last seconds are off, seen from the first ones; ratio: with over without loops, bar 1/5. Memory
at one and at three minutes, bar 1.2; p95 of a frame in the last minute over that in the first, bar 1.2. Frames are rendered
one by one and given at `--hz`, so that memory and times are those of the backend."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass

import numpy as np
from paced import paced, pipeline_of

from recon3d_ros.core.align import umeyama
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import transform
from recon3d_ros.core.params import build
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight
from recon3d_ros.synth.sensor import Faults

FPS, MINUTE = 10, 600
#: Frames whose error is the drift, and those that say where the map is.
END, START = 30, 100


@dataclass(frozen=True, eq=False)
class Flown:
    """positions [N,3] of the frames tracked; milliseconds [N] of each step; rss_mb [N] resident memory after it."""

    tracked: list[int]
    positions: np.ndarray
    milliseconds: np.ndarray
    rss_mb: np.ndarray
    statistics: dict[str, float]


def fly(flight: SyntheticFlight, loops: bool, hz: float) -> Flown:
    """The whole flight through a pipeline."""
    config = build(Config, {"backend": "geometric", "geometric.loops": loops})
    with pipeline_of(config, realtime=hz > 0) as pipeline:
        rss = [resident_mb() for _ in paced(pipeline, flight, hz)]
        poses, statistics = pipeline.reconstructor.poses(), pipeline.reconstructor.statistics()
        milliseconds = np.array(pipeline.metrics.latency_ms)
    positions = np.array([T[:3, 3] for T in poses.values()])
    return Flown(list(poses), positions, milliseconds, np.array(rss), statistics)


def resident_mb() -> float:
    """Memory that the process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def drift(flown: Flown, truth: np.ndarray) -> float:
    """Metres by which the end is off when the start is laid on the truth."""
    true = truth[flown.tracked]
    S = umeyama(flown.positions[:START], true[:START])
    errors = np.linalg.norm(transform(S, flown.positions) - true, axis=1)
    return float(errors[-END:].mean())


def measure(flight: SyntheticFlight, hz: float) -> dict:
    """One line."""
    truth = flight.truth.poses[:, :3, 3]
    free, closed = fly(flight, False, hz), fly(flight, True, hz)
    before, after = drift(free, truth), drift(closed, truth)
    first, last = closed.milliseconds[START : START + MINUTE], closed.milliseconds[-MINUTE:]
    p95 = [float(np.percentile(part, 95)) for part in (first, last)]
    at = min(MINUTE, len(closed.rss_mb) - 1)
    return {
        "bench": "survey",
        "frames": len(flight),
        "path_m": round(float(np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()), 1),
        "tracked": len(closed.tracked),
        "keyframes": closed.statistics["keyframes"],
        "loops": closed.statistics["loops"],
        "drift_m": {"without": round(before, 3), "with": round(after, 3)},
        "drift_ratio": round(after / before, 3),
        "rss_mb": {"minute": round(closed.rss_mb[at]), "end": round(closed.rss_mb[-1])},
        "rss_ratio": round(closed.rss_mb[-1] / closed.rss_mb[at], 3),
        "p95_ms": {"first": round(p95[0], 1), "last": round(p95[1], 1)},
        "p95_ratio": round(p95[1] / p95[0], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1800)
    parser.add_argument("--noise", type=float, default=6.0, help="of the images, grey levels")
    parser.add_argument("--hz", type=float, default=10.0, help="frames a second; 0: as fast as it goes")
    args = parser.parse_args()
    options = FlightOptions(frames=args.frames, fps=FPS, faults=Faults(noise=args.noise))
    print(json.dumps(measure(SyntheticFlight("terrain", "forward", options), args.hz)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
