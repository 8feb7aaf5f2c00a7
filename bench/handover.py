# SPDX-License-Identifier: Apache-2.0
"""A keyframe from one process to another: PointCloud2 over DDS against a notice and shared memory, in turn, side by side.

Latency from points that lie ready in the sender to a callback that has touched every page of them; the copy into the slot
counts. One JSON line per transport and size. Bar: at 500 000 points the notice takes at most a tenth of the message."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.core.types import Floats, Image, Keyframe, Scale
from recon3d_ros.ros.convert import cloud_message, keyframe_message
from recon3d_ros.ros.environment import share_directory
from recon3d_ros.ros.messages import Keyframe as KeyframeMessage
from recon3d_ros.store import layout
from recon3d_ros.store.reader import SegmentReader
from recon3d_ros.store.shared import SharedArena

BAR = 0.1
SLOTS = 8
WARM_UP = SLOTS + 2  # the first round through the slots makes their files
CAMERAS = {
    50_000: Camera(250, 200, 225.0, 225.0, 124.5, 99.5),
    500_000: Camera(800, 625, 720.0, 720.0, 399.5, 312.0),
}


class Sender(Node):
    """Publishes the same points either way. Stamps are of the monotonic clock, which the processes of a machine share."""

    def __init__(self) -> None:
        super().__init__("handover_sender")
        self.cloud = self.create_publisher(PointCloud2, "cloud", 5)
        self.keyframe = self.create_publisher(KeyframeMessage, "keyframe", 5)
        self.arena = SharedArena(slots=SLOTS, lease_timeout=2.0)
        self.generation = 0

    def run(self, messages: int) -> None:
        """Wait for the receiver, send, and tell it that this was all."""
        end = time.monotonic() + 20.0
        while not (self.cloud.get_subscription_count() and self.keyframe.get_subscription_count()):
            if time.monotonic() > end:
                raise TimeoutError("no receiver within 20 s")
            time.sleep(0.02)
        for count, camera in CAMERAS.items():
            rng = np.random.default_rng(count)
            points = rng.normal(size=(count, 3)).astype(np.float32)
            colours = rng.integers(0, 255, (count, 3), dtype=np.uint8)
            for _ in range(WARM_UP + messages):
                self.cloud.publish(cloud_message(points, colours, None, time.monotonic_ns(), "map"))
                time.sleep(0.2)
                self.send_notice(points, colours, camera)
                time.sleep(0.05)
        self.keyframe.publish(KeyframeMessage(action=KeyframeMessage.REMOVE))
        self.keyframe.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
        self.arena.close()

    def send_notice(self, points: Floats, colours: Image, camera: Camera) -> None:
        """Put the points into shared memory and say where they are."""
        stamp = time.monotonic_ns()
        self.generation += 1
        blocks = layout.Blocks.aligned(len(points))
        slot = self.arena.reserve(blocks.size, self.generation)
        slot_points, slot_colours, _ = layout.arrays(slot.memory, blocks)
        slot_points[:], slot_colours[:] = points, colours
        bounds = np.zeros(6, np.float32)  # a by-product of making the points
        layout.seal(slot.memory, layout.Header(1, stamp, np.eye(4), bounds, blocks))
        keyframe = Keyframe(1, stamp, np.eye(4), camera, slot_points, slot_colours, bbox=bounds)
        message = keyframe_message(keyframe, "map")
        message.shm_name, message.shm_size = slot.handle.shm_name, slot.handle.shm_size
        message.generation = self.generation
        self.keyframe.publish(message)


class Receiver(Node):
    """Measures how old the points are when it can look at them."""

    def __init__(self) -> None:
        super().__init__("handover_receiver")
        self.reader = SegmentReader()
        self.ages: dict[str, dict[int, list[float]]] = {"dds": {}, "handle": {}}
        self.finished = False
        self.create_subscription(PointCloud2, "cloud", self.on_cloud, 5)
        self.create_subscription(KeyframeMessage, "keyframe", self.on_keyframe, 5)

    def on_cloud(self, message: PointCloud2) -> None:
        touch(np.frombuffer(message.data, np.uint8))
        self.note("dds", message.width, message)

    def on_keyframe(self, message: KeyframeMessage) -> None:
        if message.action == KeyframeMessage.REMOVE:
            self.finished = True
            return
        place = message.shm_name, message.shm_size, message.generation
        camera = Camera(message.width, message.height, *message.intrinsics)
        with self.reader.read(*place, camera, Scale(message.scale_state)) as keyframe:
            touch(keyframe.points.reshape(-1).view(np.uint8))
            touch(keyframe.colours.reshape(-1))
            self.note("handle", len(keyframe.points), message)

    def note(self, way: str, count: int, message: PointCloud2 | KeyframeMessage) -> None:
        age = (time.monotonic_ns() - stamp_ns(message)) / 1e6
        self.ages[way].setdefault(count, []).append(age)

    def run(self, messages: int) -> None:
        """Receive until the sender has finished or is long overdue, then print the samples."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        end = time.monotonic() + 60.0 + len(CAMERAS) * messages
        while not self.finished and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        self.reader.close()
        print(json.dumps(self.ages))


def touch(memory: Image) -> int:
    """Look into every page."""
    return int(memory[::4096].sum())


def role(name: str, messages: int) -> None:
    """One process of the measurement."""
    rclpy.init()
    node = Sender() if name == "send" else Receiver()
    try:
        node.run(messages)
    finally:
        node.destroy_node()
        rclpy.shutdown()


def measure(transport: str, messages: int) -> bool:
    """Run both processes with one transport and print a line per size; True if the bar is met."""
    environment = os.environ | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    environment.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    environment.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    if transport == "profile":
        environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(share_directory() / "config" / "fastdds.xml")
    command = [sys.executable, __file__, "--messages", str(messages), "--role"]
    receiver = subprocess.Popen([*command, "receive"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([*command, "send"], env=environment, check=True)
        ages = json.loads(receiver.communicate(timeout=120)[0])
    finally:
        receiver.kill()
        receiver.wait()
    return all([report(transport, count, ages["dds"], ages["handle"]) for count in CAMERAS])


def report(transport: str, count: int, dds: dict[str, list[float]], handle: dict[str, list[float]]) -> bool:
    """Print the line of one size; True if its bar is met."""
    ways = {"dds": dds[str(count)][WARM_UP:], "handle": handle[str(count)][WARM_UP:]}
    line: dict[str, object] = {"bench": "handover", "transport": transport, "points": count}
    for way, ages in ways.items():
        median, p99 = np.percentile(ages, [50, 99])
        line[way] = {"median_ms": round(median, 2), "p99_ms": round(p99, 2), "received": len(ages)}
    ratio = float(np.median(ways["handle"]) / np.median(ways["dds"]))
    line["ratio"] = round(ratio, 4)
    if count == max(CAMERAS):
        line["bar"] = BAR
    print(json.dumps(line), flush=True)
    return count < max(CAMERAS) or ratio <= BAR


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50, help="per way and size")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        role(arguments.role, arguments.messages)
        return 0
    met = [measure(transport, arguments.messages) for transport in ("default", "profile")]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
