# SPDX-License-Identifier: Apache-2.0
"""A camera of 640x480 at 15 Hz through real topics: one process or two? How long from the stamp of an image until its pose
arrives, and which share of a core does each process take?

`slam`, and `reconstructor` with `mesher`, take turns. This process plays the camera and listens to the poses; the flight
goes forth and back, so that the camera moves all the time. One JSON line for each arrangement."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from recon3d_ros.cli.processes import Processes
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.core.types import Frame
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import byte_array, header
from recon3d_ros.ros.environment import check_environment
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight

ARRANGEMENTS = {"composed": ("slam",), "two processes": ("reconstructor", "mesher")}


@dataclass
class Measured:
    """Of all turns of one arrangement."""

    seconds: float = 0.0
    images: int = 0
    latency_ms: list[float] = field(default_factory=list)
    queue_max: int = 0
    cpu: Counter[str] = field(default_factory=Counter)
    peak_mb: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    keyframes: int = 0
    triangles: int = 0


class CameraDriver(Node):
    """Publishes a flight with the stamps of now, and notes when poses and diagnostics come back."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__("camera")
        self.frames = frames
        self.sent = 0
        self.latency_ms: list[float] = []
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.images = self.create_publisher(Image, "image", qos.PLAYED_IMAGES)
        self.infos = self.create_publisher(CameraInfo, "camera_info", qos.PLAYED)
        self.create_subscription(PoseStamped, "reconstructor/pose", self.on_pose, qos.PLAYED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, qos.PLAYED)

    def on_pose(self, message: PoseStamped) -> None:
        self.latency_ms.append((time.time_ns() - stamp_ns(message)) * 1e-6)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name.partition(":")[0]] = {v.key: v.value for v in status.values}

    def begin(self) -> None:
        """Forget what an earlier turn brought."""
        self.sent, self.latency_ms, self.diagnostics = 0, [], {}

    def fly(self, rate: float, seconds: float) -> None:
        """Publish at `rate` for `seconds`."""
        there_and_back = self.frames + self.frames[-2:0:-1]
        start = time.perf_counter()
        for i in range(round(rate * seconds)):
            time.sleep(max(0.0, start + i / rate - time.perf_counter()))
            self.publish(there_and_back[i % len(there_and_back)])

    def publish(self, frame: Frame) -> None:
        camera, stamp = frame.camera, time.time_ns()
        assert camera is not None
        self.infos.publish(info_message(camera, stamp))
        image = Image(height=camera.height, width=camera.width, encoding="rgb8", step=3 * camera.width)
        image.header, image.data = header(stamp, "camera"), byte_array(frame.image)
        self.images.publish(image)
        self.sent += 1


def info_message(camera: Camera, stamp: int) -> CameraInfo:
    """The calibration as a driver publishes it."""
    message = CameraInfo(header=header(stamp, "camera"), width=camera.width, height=camera.height)
    message.distortion_model, message.k = "plumb_bob", camera.K.reshape(-1)
    return message


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Poll a function; TimeoutError with `what` when it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


@contextmanager
def spinning(node: Node):  # type: ignore[no-untyped-def]
    """Callbacks of the node run in a thread of their own meanwhile."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended: Future[None] = Future()
    thread = threading.Thread(target=executor.spin_until_future_complete, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set_result(None)
        thread.join()
        executor.shutdown()


def take_turn(
    measured: Measured, camera: CameraDriver, programs: tuple[str, ...], rate: float, seconds: float
) -> None:
    """Fly once through newly started programs, and add what was measured."""
    camera.begin()
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "log.txt") as processes:
        flags = ("--ros-args", "-p", "backend:=geometric")
        running = {name: processes.start(name, *flags) for name in programs}
        wait_until(camera.images.get_subscription_count, 120, f"{programs[0]} does not subscribe")
        wait_until(lambda: {"reconstructor", "mesher"} <= camera.diagnostics.keys(), 120, "no diagnostics")
        before = {name: program.cpu_seconds() for name, program in running.items()}
        camera.fly(rate, seconds)
        measured.cpu.update({name: program.cpu_seconds() - before[name] for name, program in running.items()})
        told = camera.diagnostics
        wait_until(
            lambda: int(told["reconstructor"]["frames"]) + dropped(told) >= camera.sent,
            60,
            "frames are missing",
        )
        for name, program in running.items():
            node = "mesher" if name == "mesher" else "reconstructor"
            measured.peak_mb[name] = max(measured.peak_mb[name], int(told[node]["memory_mb"]))
            program.stop(60)
        wait_until(lambda: not camera.images.get_subscription_count(), 60, f"{programs[0]} did not go")
    reasons = {
        k.partition(": ")[2]: int(v) for k, v in told["reconstructor"].items() if k.startswith("dropped: ")
    }
    measured.drops.update(reasons)
    measured.seconds += seconds
    measured.images += camera.sent
    measured.latency_ms += camera.latency_ms
    measured.queue_max = max(measured.queue_max, int(told["reconstructor"]["queue_max"]))
    measured.keyframes += int(told["reconstructor"]["keyframes"])
    measured.triangles = int(told["mesher"]["triangles"])


def dropped(told: dict[str, dict[str, str]]) -> int:
    """Images given up, as the reconstructor counts them."""
    return int(told["reconstructor"]["dropped"])


def line(name: str, measured: Measured, size: tuple[int, int], rate: float) -> dict[str, object]:
    """What is printed."""
    p50, p95, top = np.percentile(measured.latency_ms, [50, 95, 100]).round(1).tolist()
    return {
        "bench": "node",
        "arrangement": name,
        "cores": len(os.sched_getaffinity(0)),
        "size": f"{size[0]}x{size[1]}",
        "hz": rate,
        "seconds": measured.seconds,
        "images": measured.images,
        "poses": len(measured.latency_ms),
        "latency_ms": {"p50": p50, "p95": p95, "max": top},
        "queue_max": measured.queue_max,
        "drops": dict(measured.drops),
        "keyframes": measured.keyframes,
        "triangles": measured.triangles,
        "cpu_share_of_a_core": {n: round(s / measured.seconds, 2) for n, s in measured.cpu.items()},
        "resident_mb": dict(measured.peak_mb),
    }


def main() -> None:
    """Render, fly in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=15.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a turn")
    parser.add_argument("--turns", type=int, default=2, help="turns of each arrangement")
    parser.add_argument("--frames", type=int, default=150, help="rendered frames, flown forth and back")
    args = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    flight = SyntheticFlight(options=FlightOptions(frames=args.frames, fps=args.rate))
    frames = list(tqdm(flight, desc="render"))
    assert frames[0].camera is not None
    check_environment()
    rclpy.init()
    camera = CameraDriver(frames)
    measured = {name: Measured() for name in ARRANGEMENTS}
    with spinning(camera):
        for name in list(ARRANGEMENTS) * args.turns:
            take_turn(measured[name], camera, ARRANGEMENTS[name], args.rate, args.seconds)
    for name, one in measured.items():
        print(json.dumps(line(name, one, frames[0].camera.size, args.rate)))
    camera.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
