# SPDX-License-Identifier: Apache-2.0
"""The mesher on synthetic flights. One in a room: integration, extraction of what changed and marker bytes, each against
the way they replace, on the same keyframes in turn. One through room after room, the map growing all the time: does the
cost of a keyframe stay flat, what does a voxel cost in memory, and how long does it take to save and load the map?

Times are those of the calling thread on a processor, so that other work on the machine counts little; on a GPU, of the
clock. One JSON line per part and voxel size. With Open3D installed, its VoxelBlockGrid runs beside; with ROS 2, messages
are also built from objects. Bars: integration at most 0.6 of VoxelBlockGrid at 2 cm, changed regions at most 0.15 of its
full extraction at the end, marker bytes at most 1/100 of message objects; the last 20 keyframes of the long flight at most
1.15 of keyframes 5 to 25, 8 MB per million voxels."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError, require
from recon3d_ros.core.geometry import inverse, transform
from recon3d_ros.core.types import Frame, Keyframe, MeshBlock, Scale
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.warm_up import warm_up
from recon3d_ros.ros.marker_cdr import MarkerWriter
from recon3d_ros.runtime.archive import read_archive, write_archive
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight
from recon3d_ros.synth.sensor import Faults

TRUNCATION = 4.0
FAR = 8.0
NOISE = 0.003
NAIVE_TRIANGLES = 5_000
ROUND = 25  # views of a room
ROOM = 16.0  # from one room to the next, metres
FLIGHT_VOXEL = 0.03
MAX_BLOCKS = 100_000

T = TypeVar("T")


class VoxelBlockGrid:
    """The same work by Open3D, with the block size and truncation of ours."""

    def __init__(self, voxel_size: float) -> None:
        import open3d

        self._o3d: Any = open3d
        core = open3d.core
        self._grid = open3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (core.float32, core.float32, core.float32),
            ((1), (1), (3)),
            voxel_size,
            8,
            20_000,
        )

    def integrate(self, frame: Frame) -> None:
        """One frame at its prior pose."""
        assert frame.depth is not None and frame.prior is not None and frame.camera is not None
        image, core = self._o3d.t.geometry.Image, self._o3d.core
        depth = image(core.Tensor(np.nan_to_num(frame.depth)))
        colour = image(core.Tensor(frame.image.astype(np.float32) / 255))
        K, T_cam_map = core.Tensor(frame.camera.K), core.Tensor(inverse(frame.prior))
        blocks = self._grid.compute_unique_block_coordinates(depth, K, T_cam_map, 1.0, FAR, TRUNCATION)
        self._grid.integrate(blocks, depth, colour, K, T_cam_map, 1.0, FAR, TRUNCATION)

    def extract(self) -> None:
        """The whole mesh."""
        self._grid.extract_triangle_mesh(weight_threshold=1.5)


class Timer:
    """Milliseconds of calls: of the calling thread, or with a GPU of the clock until the GPU is done too."""

    def __init__(self, device: str) -> None:
        self._now, self._wait = time.thread_time, lambda: None
        if device == "cuda":
            cupy = require("cupy", extra="cuda")
            self._now, self._wait = time.perf_counter, cupy.cuda.Device().synchronize

    def __call__(self, times: list[float], call: Callable[[], T]) -> T:
        """The result of a call; its milliseconds are appended."""
        start = self._now()
        result = call()
        self._wait()
        times.append(1e3 * (self._now() - start))
        return result


def frames(number: int, fps: float = 10.0) -> Iterator[Frame]:
    """A flight through the room with a little depth noise."""
    options = FlightOptions(frames=number, fps=fps, depth=True, prior=True, faults=Faults(depth_noise=NOISE))
    return iter(SyntheticFlight("room", "orbit", options))


def rooms(number: int) -> Iterator[Keyframe]:
    """Round after round, each in a room of its own and with the same views: the last 20 of 400 see what 5 to 25 saw."""
    views = list(frames(ROUND, fps=ROUND / 40))
    for index in range(number):
        frame = views[index % ROUND]
        assert frame.prior is not None
        pose = frame.prior.copy()
        pose[0, 3] += ROOM * (index // ROUND)
        yield keyframe_of(index, dataclasses.replace(frame, prior=pose))


def keyframe_of(index: int, frame: Frame) -> Keyframe:
    """All pixels of a frame as points in the map."""
    assert frame.depth is not None and frame.prior is not None and frame.camera is not None
    known = np.isfinite(frame.depth)
    rays = np.dstack([frame.camera.rays(), np.ones(known.shape)])[known]
    points = transform(frame.prior, rays * frame.depth[known][:, None]).astype(np.float32)
    pixels = frame.image[known]
    return Keyframe(index, frame.stamp_ns, frame.prior, frame.camera, points, pixels, scale=Scale.SENSOR)


def measure(timed: Timer, device: str, voxel_size: float, number: int, open3d: bool, ros: bool) -> bool:
    """One flight at one voxel size; True if every bar that applies is met."""
    mesher = make_mesher(device, voxel_size)
    grid = VoxelBlockGrid(voxel_size) if open3d else None
    ours: dict[str, list[float]] = {"integrate": [], "extract": []}
    theirs: dict[str, list[float]] = {"integrate": [], "extract": []}
    triangles = []
    blocks: list[MeshBlock] = []
    for index, frame in enumerate(frames(number)):
        keyframe = keyframe_of(index, frame)
        while mesher.prepare():  # as its thread does between keyframes
            pass
        timed(ours["integrate"], partial(mesher.integrate, keyframe))
        blocks = timed(ours["extract"], mesher.changed)
        triangles.append(sum(len(block.triangles) for block in blocks))
        if grid is not None:
            timed(theirs["integrate"], partial(grid.integrate, frame))
    if grid is not None:
        for _ in range(5):
            timed(theirs["extract"], grid.extract)
    about = {"voxel_size": voxel_size, "keyframes": number, "device": device}
    size = {"blocks": mesher.blocks}
    changed = {"triangles": int(np.median(triangles))}
    bars = {"integrate": 0.6, "extract": 0.15} if voxel_size == 0.02 else {}
    met = [
        report("integrate", about | size, ours["integrate"], theirs["integrate"], bars),
        report("extract", about | changed, ours["extract"], theirs["extract"], bars),
        report_markers(timed, about, blocks, ros),
    ]
    return all(met)


def make_mesher(device: str, voxel_size: float) -> Mesher:
    """A mesher that integrates every keyframe, keeps no depth and never has to drop a block."""
    params = MeshParams(
        device=device,
        voxel_size=voxel_size,
        truncation=TRUNCATION,
        duplicate_share=0.0,
        depth_memory=0,
        max_blocks=MAX_BLOCKS,
    )
    return Mesher(params)


def measure_flight(timed: Timer, device: str, number: int) -> bool:
    """Fly through room after room and print the line; True if cost and memory keep their bars."""
    mesher = make_mesher(device, FLIGHT_VOXEL)
    times: dict[str, list[float]] = {"integrate": [], "extract": []}
    resident = resident_mb()
    for keyframe in rooms(number):
        timed(times["integrate"], partial(mesher.integrate, keyframe))
        timed(times["extract"], mesher.changed)
    line: dict[str, Any] = {
        "bench": "mesher",
        "part": "flight",
        "voxel_size": FLIGHT_VOXEL,
        "keyframes": number,
    }
    line |= {"device": device, "blocks": mesher.blocks, "rss_growth_mb": round(resident_mb() - resident)}
    growth = []
    for part, ms in times.items():
        first, last = float(np.median(ms[5:25])), float(np.median(ms[-20:]))
        growth.append(last / first)
        line[part] = {
            "first_ms": round(first, 2),
            "last_ms": round(last, 2),
            "last_to_first": round(growth[-1], 2),
        }
    per_million = mesher.memory_mb / (mesher.blocks * 512 / 1e6)
    line |= {"mb_per_million_voxels": round(per_million, 2), "bars": {"last_to_first": 1.15, "mb": 8.0}}
    print(json.dumps(line), flush=True)
    measure_save(mesher, device)
    return max(growth) <= 1.15 and per_million <= 8.0


def measure_save(mesher: Mesher, device: str) -> None:
    """Save the surface, load it, and print the line; seconds by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "surface.npz", make_mesher(device, FLIGHT_VOXEL)
        start, work = time.perf_counter(), mesher.saving()
        while True:
            try:
                next(work)
            except StopIteration as end:
                copied, arrays = time.perf_counter(), end.value
                break
        write_archive(path, "surface", arrays)
        written = time.perf_counter()
        other.resume(read_archive(path, "surface"))
        loaded = time.perf_counter()
        line = {"bench": "mesher", "part": "save", "blocks": other.blocks}
        line |= {"memory_mb": round(mesher.memory_mb), "file_mb": round(path.stat().st_size / 1e6)}
        line |= {"copy_s": round(copied - start, 2), "write_s": round(written - copied, 2)}
        print(json.dumps(line | {"load_s": round(loaded - written, 2)}), flush=True)


def resident_mb() -> float:
    """Memory of this process that is in use now, 10^6 bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(
    part: str, about: dict[str, Any], ours: list[float], theirs: list[float], bars: dict[str, float]
) -> bool:
    """Print the line of a part; True unless there is a bar and it is missed."""
    steady = ours[5:]  # the first ones grow the map from nothing
    line = {"bench": "mesher", "part": part, **about}
    line["ms"] = round(float(np.median(steady)), 2)
    line["p95_ms"] = round(float(np.percentile(steady, 95)), 2)
    ratio = None
    if theirs:
        ratio = float(np.median(steady) / np.median(theirs))
        line |= {"voxel_block_grid_ms": round(float(np.median(theirs)), 2), "ratio": round(ratio, 3)}
        line["bar"] = bars.get(part)
    print(json.dumps(line), flush=True)
    return ratio is None or ratio <= bars.get(part, ratio)


def report_markers(timed: Timer, about: dict[str, Any], blocks: list[MeshBlock], ros: bool) -> bool:
    """Print the line of the markers of one set of regions; True unless the bar is missed."""
    writer = MarkerWriter()
    ends = np.cumsum([len(block.triangles) for block in blocks])
    times: list[float] = []
    for _ in range(21):
        timed(times, lambda: list(writer.write(blocks, 0, "map")))
    per_10k = float(np.median(times)) * 10_000 / ends[-1]
    line = {"bench": "mesher", "part": "markers", **about, "regions": len(blocks), "triangles": int(ends[-1])}
    line["ms_per_10k"] = round(per_10k, 3)
    ratio = None
    if ros:
        some = int(np.searchsorted(ends, NAIVE_TRIANGLES))
        naive: list[float] = []
        timed(naive, partial(naive_message, blocks[: some + 1]))
        objects_10k = naive[0] * 10_000 / ends[some]
        ratio = per_10k / objects_10k
        line |= {"objects_ms_per_10k": round(objects_10k, 1), "ratio": round(ratio, 4), "bar": 0.01}
    print(json.dumps(line), flush=True)
    return ratio is None or ratio <= 0.01


def naive_message(blocks: list[MeshBlock]) -> bytes:
    """The message built from one object per vertex and serialised."""
    from geometry_msgs.msg import Point
    from rclpy.serialization import serialize_message
    from std_msgs.msg import ColorRGBA
    from visualization_msgs.msg import Marker, MarkerArray

    message = MarkerArray()
    for number, block in enumerate(blocks):
        marker = Marker(ns="mesh", id=number, type=Marker.TRIANGLE_LIST)
        for i in block.triangles.ravel():
            x, y, z = map(float, block.vertices[i])
            r, g, b = map(float, block.colours[i])
            marker.points.append(Point(x=x, y=y, z=z))
            marker.colors.append(ColorRGBA(r=r / 255, g=g / 255, b=b / 255, a=1.0))
        message.markers.append(marker)
    return serialize_message(message)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keyframes", type=int, default=60)
    parser.add_argument("--voxel-sizes", type=float, nargs="+", default=[0.05, 0.02], help="metres")
    parser.add_argument("--flight", type=int, default=400, help="keyframes of the long flight, 0: none")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    try:
        timed = Timer(arguments.device)
    except InputError as error:
        parser.error(str(error))
    os.environ["OMP_NUM_THREADS"] = "1"  # read when Open3D is imported
    warm_up(MeshParams(device=arguments.device))
    MarkerWriter.warm_up()
    open3d, ros = (importlib.util.find_spec(module) is not None for module in ("open3d", "rclpy"))
    where = (timed, arguments.device)
    met = [measure(*where, size, arguments.keyframes, open3d, ros) for size in arguments.voxel_sizes]
    if arguments.flight:
        met.append(measure_flight(*where, arguments.flight))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
