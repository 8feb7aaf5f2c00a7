# SPDX-License-Identifier: Apache-2.0
"""Drone and ground station on one machine: two network namespaces joined by a virtual cable, each with a /dev/shm of its
own, so that nothing but the cable connects them. `slam` and a replayed flight run on the drone, a listener on the ground.
Prints one JSON line a topic (messages published and received, bytes) and one for the cable. Needs root and iproute2; the
kernel of the machine must allow network namespaces.

    sudo .venv/bin/python bench/two_hosts.py [--link 20mbit] [--frames 60] [--size 640x480] [--set name=value ...]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

DRONE, GROUND = "r3d-drone", "r3d-ground"
READY = "listening"
#: Topic -> type; what a ground station shows.
TOPICS = {
    "/reconstructor/pose": "geometry_msgs/msg/PoseStamped",
    "/reconstructor/odometry": "nav_msgs/msg/Odometry",
    "/reconstructor/path": "nav_msgs/msg/Path",
    "/reconstructor/cloud": "sensor_msgs/msg/PointCloud2",
    "/mesher/mesh": "visualization_msgs/msg/MarkerArray",
    "/tf": "tf2_msgs/msg/TFMessage",
}
#: What lasts for late joiners.
LATCHED = ("/reconstructor/path", "/mesher/mesh")


def main() -> int:
    """Set up, fly, compare, clean up."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    flags.add_argument(
        "--link", metavar="RATE", help="limit of the cable, such as 20mbit (tc); default: none"
    )
    flags.add_argument("--frames", type=int, default=60, help="length of the flight (default: 60)")
    flags.add_argument("--size", default="640x480", help="of the images (default: 640x480)")
    flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of slam")
    flags.add_argument(
        "--two", action="store_true", help="reconstructor and mesher in two processes, not slam"
    )
    args = flags.parse_args()
    if os.geteuid() != 0:
        flags.error("network namespaces need root")
    with ExitStack() as cleanup, tempfile.TemporaryDirectory() as scratch:
        bag = record(Path(scratch) / "flight", args.frames, args.size)
        connect(cleanup, args.link)
        before = carried()
        began = time.monotonic()
        report, received = fly(bag, Path(scratch) / "out", args.set, args.two)
        seconds = time.monotonic() - began
        for topic, (messages, size, span) in received.items():
            line = {
                "topic": topic,
                "published": report["published"].get(topic),
                "received": messages,
                "bytes": size,
                "span_s": round(span, 1),
            }
            print(json.dumps(line))
        cable: dict[str, Any] = {
            "cable_bytes": carried() - before,
            "seconds": round(seconds, 1),
            "link": args.link,
        }
        cable["latency_ms"] = report["latency_ms"]  # image arrived -> pose sent, on the drone
        print(json.dumps(cable))
    return 0


def record(bag: Path, frames: int, size: str) -> Path:
    """A synthetic flight with depth."""
    from recon3d_ros.runtime.bag_writer import write_bag
    from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

    width, height = map(int, size.split("x"))
    options = FlightOptions(frames=frames, camera=camera_of(width, height, 70.0), depth=True)
    write_bag(bag, SyntheticFlight("room", "forward", options), with_depth=True)
    return bag


def connect(cleanup: ExitStack, link: str | None) -> None:
    """Two namespaces and the cable between them."""
    for name in (DRONE, GROUND):
        if name in ip("netns", "list").split():
            ip("netns", "delete", name)  # a run was killed
        ip("netns", "add", name)
        cleanup.callback(ip, "netns", "delete", name)
    ip("link", "add", "cable", "netns", DRONE, "type", "veth", "peer", "name", "cable", "netns", GROUND)
    for number, name in enumerate((DRONE, GROUND), start=1):
        ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "cable", "up")
        ip("-n", name, "route", "add", "224.0.0.0/4", "dev", "cable")  # discovery is by multicast
    if link:
        limit = ["tbf", "rate", link, "burst", "64kb", "latency", "200ms"]
        subprocess.run(["tc", "-n", DRONE, "qdisc", "add", "dev", "cable", "root", *limit], check=True)


def ip(*words: str) -> str:
    """Output of `ip`."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def carried() -> int:
    """Bytes that the drone has sent over the cable so far."""
    (cable,) = json.loads(ip("-n", DRONE, "-json", "-statistics", "link", "show", "cable"))
    return int(cable["stats64"]["tx"]["bytes"])


def start(host: str, *command: str, **options: int) -> subprocess.Popen[str]:
    """A program on one of the hosts, with a /dev/shm of that host."""
    inside = f'mount -t tmpfs tmpfs /dev/shm && hostname {host} && exec "$@"'
    words = ["ip", "netns", "exec", host, "unshare", "--mount", "--uts", "sh", "-c", inside, "sh", *command]
    env = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    return subprocess.Popen([*words], env=env, text=True, **options)


def fly(
    bag: Path, out: Path, settings: list[str], two: bool
) -> tuple[dict[str, Any], dict[str, tuple[int, int, float]]]:
    """The report of the drone; messages and bytes received by topic, and the seconds from the first to the last."""
    listener = start(GROUND, sys.executable, __file__, "listen", stdout=subprocess.PIPE)
    assert listener.stdout is not None
    running = [listener]
    try:
        listener.stdout.readline()
        topics = {
            "image": "/camera/image_raw",
            "camera_info": "/camera/camera_info",
            "depth": "/camera/depth/image_raw",
        }
        given = "".join(f" -p {text.replace('=', ':=', 1)}" for text in settings)
        program = f"{sys.executable} -m recon3d_ros.nodes."
        slam = f"{program}{'reconstructor' if two else 'slam'} --ros-args -p output:={out} -p input.queue:=1000{given}"
        slam += "".join(f" -r {name}:={topic}" for name, topic in topics.items())
        if two:
            slam = f"{program}mesher --ros-args{given} & mesher=$!; {slam}"
        replay = f"{sys.executable} -m recon3d_ros.nodes.replay {bag} --quiet"
        # One shell for both: they share the memory of their host. Without job control slam would not take SIGINT.
        both = f"set -m; {slam} & pid=$!; {replay}; sleep 3; kill -INT $pid $mesher; wait"
        running.append(start(DRONE, "bash", "-c", both))
        running[-1].wait(600)
        listener.send_signal(signal.SIGINT)
        received = json.loads(listener.communicate(timeout=60)[0])
    finally:
        for process in running:
            process.kill()
    return json.loads((out / "report.json").read_text()), received


def listen() -> None:
    """Count messages and bytes until SIGINT. They are not unpacked."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from recon3d_ros.ros import qos
    from recon3d_ros.ros.environment import check_environment
    from recon3d_ros.ros.messages import message_type

    check_environment()
    rclpy.init(args=["ground"], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("ground")
    heard: dict[str, list[tuple[float, int]]] = {topic: [] for topic in TOPICS}

    def counter(topic: str):  # type: ignore[no-untyped-def]
        def count(data: bytes) -> None:
            heard[topic].append((time.monotonic(), len(data)))

        return count

    for topic, name in TOPICS.items():
        profile = qos.MESH if topic in LATCHED else qos.OBSERVED
        node.create_subscription(message_type(name), topic, counter(topic), profile, raw=True)
    ended: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: ended.append(number))
    print(READY, flush=True)
    while not ended:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps({topic: summary(messages) for topic, messages in heard.items()}))
    node.destroy_node()
    rclpy.shutdown()


def summary(messages: list[tuple[float, int]]) -> tuple[int, int, float]:
    """Number, bytes, seconds from the first to the last."""
    span = messages[-1][0] - messages[0][0] if messages else 0.0
    return len(messages), sum(size for _, size in messages), span


if __name__ == "__main__":
    if sys.argv[1:] == ["listen"]:
        listen()
    else:
        sys.exit(main())
