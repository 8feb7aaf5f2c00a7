# SPDX-License-Identifier: Apache-2.0
"""A camera of 640x480 at 15 Hz for a minute through real topics: does `slam` keep up on this machine?

One process plays the camera and listens to the poses, the other is `slam`. The flight goes forth and back, so that the
camera moves all the time. Latency: from publishing an image to receiving its pose. One JSON line."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

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

CORES = os.cpu_count() or 1


class Camera15Hz(Node):
    """Publishes a flight with the stamps of now, and notes when poses and diagnostics come back."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__("camera")
        self.frames = frames
        self.sent: dict[int, float] = {}
        self.latency_ms: list[float] = []
        self.queues: list[int] = []
        self.diagnostics: dict[str, str] = {}
        self.images = self.create_publisher(Image, "image", qos.PLAYED_IMAGES)
        self.infos = self.create_publisher(CameraInfo, "camera_info", qos.PLAYED)
        self.create_subscription(PoseStamped, "reconstructor/pose", self.on_pose, qos.PLAYED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, qos.PLAYED)

    def on_pose(self, message: PoseStamped) -> None:
        self.latency_ms.append((time.perf_counter() - self.sent[stamp_ns(message)]) * 1e3)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith("reconstructor"):
                self.diagnostics = {v.key: v.value for v in status.values}
                self.queues.append(int(self.diagnostics["queue"]))

    def fly(self, rate: float, seconds: float) -> None:
        """Publish at `rate` for `seconds`."""
        there_and_back = self.frames + self.frames[-2:0:-1]
        start = time.perf_counter()
        for i in range(round(rate * seconds)):
            time.sleep(max(0.0, start + i / rate - time.perf_counter()))
            self.publish(there_and_back[i % len(there_and_back)], time.time_ns())

    def publish(self, frame: Frame, stamp: int) -> None:
        head, camera = header(stamp, "camera"), frame.camera
        assert camera is not None
        self.infos.publish(info_message(camera, stamp))
        image = Image(
            header=head, height=camera.height, width=camera.width, encoding="rgb8", step=3 * camera.width
        )
        image.data = byte_array(frame.image)
        self.sent[stamp] = time.perf_counter()
        self.images.publish(image)


def info_message(camera: Camera, stamp: int) -> CameraInfo:
    """The calibration as a driver publishes it."""
    message = CameraInfo(header=header(stamp, "camera"), width=camera.width, height=camera.height)
    message.distortion_model, message.k = "plumb_bob", camera.K.reshape(-1)
    return message


def machine_busy() -> float:
    """CPU seconds that all processes of this machine have used."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Poll a function; TimeoutError with `what` when it stays false."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def run(frames: list[Frame], rate: float, seconds: float, folder: Path) -> dict[str, object]:
    """Fly through a `slam` process; returns what was measured."""
    camera = Camera15Hz(frames)
    executor = SingleThreadedExecutor()
    executor.add_node(camera)
    ended: Future[None] = Future()
    spinning = threading.Thread(target=executor.spin_until_future_complete, args=(ended,), daemon=True)
    spinning.start()
    with Processes(folder / "log.txt") as processes:
        slam = processes.start("slam", "--ros-args", "-p", f"output:={folder}")
        wait_until(
            camera.images.get_subscription_count, 120, f"slam does not subscribe: {folder / 'log.txt'}"
        )
        busy, own = machine_busy(), slam.cpu_seconds() + time.process_time()
        camera.fly(rate, seconds)
        busy, own = machine_busy() - busy, slam.cpu_seconds() + time.process_time() - own
        wait_until(lambda: camera.queues[-1:] == [0], 60, "the queue does not drain")
        slam.stop(120)
    ended.set_result(None)
    spinning.join()
    executor.shutdown()
    report = json.loads((folder / "report.json").read_text())
    p50, p95, top = np.percentile(camera.latency_ms, [50, 95, 100]).round(1).tolist()
    half = len(camera.queues) // 2
    return {
        "bench": "live",
        "cores": CORES,
        "size": "{}x{}".format(*frames[0].camera.size),  # type: ignore[union-attr]
        "hz": rate,
        "images": len(camera.sent),
        "poses": len(camera.latency_ms),
        "latency_ms": {"p50": p50, "p95": p95, "max": top},
        "queue_max": int(camera.diagnostics["queue_max"]),
        "queue_mean_by_half": [
            round(float(np.mean(q)), 2) for q in (camera.queues[:half], camera.queues[half:])
        ],
        "drops": report["drops"],
        "keyframes": report["keyframes"],
        "triangles": report["triangles"],
        "peak_rss_mb": report["peak_rss_mb"],
        "cpu_share": {
            "this": round(own / seconds / CORES, 2),
            "others": round((busy - own) / seconds / CORES, 2),
        },
    }


def main() -> None:
    """Render, fly, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=15.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=150, help="rendered frames, flown forth and back")
    args = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    flight = SyntheticFlight(options=FlightOptions(frames=args.frames, fps=args.rate))
    frames = list(tqdm(flight, desc="render"))
    check_environment()
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(frames, args.rate, args.seconds, Path(folder))))
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
