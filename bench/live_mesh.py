# SPDX-License-Identifier: Apache-2.0
"""How long after its keyframe does a piece of surface go out, live? And does the mesher ever hold up its neighbours?

A recording with depth is written to a bag; `replay` plays it in a process of its own, an observer takes the mesh in
another, and the nodes of `slam` run in this one. Latency: from the keyframe handed to the mesher to its regions published,
without the wait for the publishing timer. A heartbeat thread in this process wakes every millisecond and notes gaps,
while the mesher worked and while it did not; the same in a process of its own tells what the machine does by itself.
One JSON line. Bars: latency at most 20 ms (95 %), no gap above 5 ms while the mesher works."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from recon3d_ros.cli.processes import Processes, Program
from recon3d_ros.core.types import Frame
from recon3d_ros.nodes import process, slam
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.runtime.bag_writer import write_bag
from recon3d_ros.runtime.metrics import Metrics
from recon3d_ros.runtime.sources import open_source

LATENCY_BAR = 20.0
GAP_BAR = 5.0
CORES = os.cpu_count() or 1
BEAT = 1e-3
TOPICS = ("image:=/camera/image_raw", "camera_info:=/camera/camera_info", "depth:=/camera/depth/image_raw")


def beats(stopped: Callable[[], bool], working: Callable[[], bool]) -> dict[str, float]:
    """Beat until `stopped`; the gaps in milliseconds: 99.9 %, longest, longest with `working` at either end."""
    gaps, during = [0.0], [0.0]
    last, was = time.perf_counter(), working()
    while not stopped():
        time.sleep(BEAT)
        now, works = time.perf_counter(), working()
        gaps.append(1e3 * (now - last))
        if was or works:
            during.append(gaps[-1])
        last, was = now, works
    line = {"p99.9": np.percentile(gaps, 99.9), "max": max(gaps), "max_while_meshing": max(during)}
    return {name: round(float(value), 1) for name, value in line.items()} | {"beats": len(gaps)}


def control(stop: Event, answer: multiprocessing.Queue[dict[str, float]]) -> None:
    """A heartbeat with a process to itself."""
    answer.put(beats(stop.is_set, lambda: False))


def registered(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames as if the images had been taken by the depth camera: a bag of ours holds one camera."""
    for frame in frames:
        yield replace(frame, camera=frame.depth_camera or frame.camera, depth_camera=None)


def machine_busy() -> float:
    """CPU seconds that all processes of this machine have used."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class WatchedMetrics(Metrics):
    """Metrics that tell whether a stage is under way, and also take the time of the thread on a processor."""

    working = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block of work under `name` by the clock, and under `name cpu` by the processor."""
        self.working += 1
        start = time.thread_time()
        try:
            with super().stage(name):
                yield
        finally:
            self.working -= 1
            self.add(f"{name} cpu", 1e3 * (time.thread_time() - start))


class Bench:
    """The live nodes, watched while a bag is played to them."""

    def __init__(self, bag: Path, rate: float, processes: Processes) -> None:
        self._bag, self._rate, self._processes = bag, rate, processes
        self._observer = processes.start("observer", str(bag.parent / "counts.json"))
        self.result: dict[str, object] = {}

    def make(self, stop: process.Stop) -> process.Session:
        """The nodes of `slam`, and the thread that plays and measures."""
        self._mesher = MesherNode(follow=False)
        self._reconstructor = ReconstructorNode(consumer=self._mesher)
        threading.Thread(target=self._measure, args=(stop,), daemon=True).start()
        finish = lambda: slam.finish(self._reconstructor, self._mesher)  # noqa: E731
        return process.Session([self._reconstructor, self._mesher], finish)

    def _measure(self, stop: process.Stop) -> None:
        flags = (str(self._bag), "--rate", str(self._rate), "--quiet")
        watched = self._mesher.loop.metrics = WatchedMetrics()
        spawn = multiprocessing.get_context("spawn")
        ended, answer = spawn.Event(), spawn.Queue()
        alone = spawn.Process(target=control, args=(ended, answer))
        try:
            alone.start()
            replay = self._processes.start("replay", *flags)
            start, busy, own = time.perf_counter(), machine_busy(), self._cpu_seconds()
            gaps = beats(lambda: not replay.is_running, lambda: watched.working > 0)
            seconds = (time.perf_counter() - start) * CORES
            busy, own = machine_busy() - busy, self._cpu_seconds() - own
            shares = {"this": round(own / seconds, 2), "others": round((busy - own) / seconds, 2)}
            ended.set()
            self._report(replay, gaps, answer.get(timeout=20), shares)
            alone.join()
        finally:
            ended.set()
            stop.request(0 if self.result else 1)

    def _cpu_seconds(self) -> float:
        """Processor time of the nodes and the observer so far."""
        return time.process_time() + self._observer.cpu_seconds()

    def _report(
        self, replay: Program, gaps: dict[str, float], machine: dict[str, float], shares: dict[str, float]
    ) -> None:
        replay.wait(20)
        loop = self._mesher.loop
        stages = {name: vars(times) for name, times in loop.metrics.stages.items()}
        self.result = {
            "bench": "live_mesh",
            "cores": CORES,
            "cpu_share": shares,
            "voxel_size": loop.mesher.voxel_size,
            "images": self._reconstructor.input.received,
            "keyframes": loop.mesher.keyframes,
            "triangles": loop.mesher.triangles,
            "messages": dict(self._mesher.published),
            "drops": dict(self._mesher.drops()),
            "latency_ms": stages.pop("to_mesh", None),
            "latency_bar": LATENCY_BAR,
            "stage_ms": stages,
            "heartbeat_ms": gaps,
            "heartbeat_alone_ms": machine,
            "gap_bar": GAP_BAR,
        }


def main() -> int:
    """Write the bag, run the nodes, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "recording", type=Path, help="folder with images and depth, such as 7scenes-redkitchen"
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 as recorded")
    parser.add_argument("--voxel-size", type=float, default=0.02, help="metres")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME:=VALUE", help="more parameters")
    args = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    given = ["backend:=rgbd", f"mesh.voxel_size:={args.voxel_size}", *args.set]
    parameters = [word for text in given for word in ("-p", text)]
    renamed = [word for text in TOPICS for word in ("-r", text)]
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        frames = [frame for frame, _ in zip(open_source(args.recording), range(args.frames), strict=False)]
        write_bag(bag, registered(frames), with_depth=True)
        with Processes(Path(folder) / "log.txt") as processes:
            bench = Bench(bag, args.rate, processes)
            code = process.run(bench.make, ["--ros-args", *parameters, *renamed])
    if bench.result:
        print(json.dumps(bench.result))
    return code


if __name__ == "__main__":
    sys.exit(main())
