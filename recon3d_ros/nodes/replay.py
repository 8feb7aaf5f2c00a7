# SPDX-License-Identifier: Apache-2.0
"""The program `replay`: plays a bag into live topics, with /clock, once somebody listens. Needs no rosbag2."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from recon3d_ros.core.errors import InputError, require
from recon3d_ros.nodes import process
from recon3d_ros.nodes.flags import add_replay_flags
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import message_type
from recon3d_ros.runtime.sources.bag_reader import Bag

#: Written by ROS itself while it recorded, or made by the player.
_NOT_PLAYED = ("/clock", "/rosout", "/parameter_events")
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_TICK = 0.01


class Player(Node):
    """Publishes the messages of a bag as they were stored, in their rhythm. `play` runs in a thread of its own.

    Raises InputError for what cannot be played.
    """

    def __init__(self, path: Path, rate: float, patience: float) -> None:
        self._cleanup = ExitStack()
        super().__init__("replay")
        self._rate = rate
        self._patience = patience
        self._halted = threading.Event()
        self._reader = require("rosbags.rosbag2", extra="ros").Reader(Bag(path).path)
        self._reader.open()
        self._cleanup.callback(self._reader.close)
        self._clock_publisher = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self._topics: dict[str, Publisher[Any]] = {}
        unknown = []
        for connection in self._reader.connections:
            message = message_type(connection.msgtype)
            if connection.topic in _NOT_PLAYED or connection.topic in self._topics:
                continue
            if message is None:
                unknown.append(f"{connection.topic} ({connection.msgtype})")
                continue
            profile = _profile(connection)
            self._topics[connection.topic] = self.create_publisher(message, connection.topic, profile)
        if unknown:
            self.get_logger().warning(f"not played, their types are not installed: {', '.join(unknown)}")
        if not self._topics:
            raise InputError(f"bag {path} has no topic that can be played")

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return float(self._reader.duration * 1e-9)

    def play(self, progress: Callable[[float], object]) -> bool:
        """Wait for subscribers, then play once. `progress` gets the seconds of the recording played. False when nobody
        listens, or the player was halted."""
        if not self._wait_for_subscribers():
            return False
        latest, count, start, first = 0.0, 0, time.perf_counter(), None
        for topic, stamp_ns, data in self._stored():
            first = stamp_ns if first is None else first
            due = start + (stamp_ns - first) * 1e-9 / self._rate
            if not self._sleep_until(due, stamp_ns):
                return False
            self._topics[topic].publish(data)
            latest, count = max(latest, time.perf_counter() - due), count + 1
            progress((stamp_ns - first) * 1e-9)
        for publisher in self._topics.values():
            publisher.wait_for_all_acked(Duration(seconds=2.0))
        elapsed = time.perf_counter() - start
        self.get_logger().info(
            f"played {count} messages in {elapsed:.1f} s, the latest {latest * 1e3:.0f} ms late"
        )
        return True

    def halt(self) -> None:
        """End `play` soon."""
        self._halted.set()

    def destroy_node(self) -> None:
        """Close the bag too."""
        self._cleanup.close()
        super().destroy_node()

    def _stored(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time of recording and stored bytes; a bag that breaks off ends there."""
        wanted = [c for c in self._reader.connections if c.topic in self._topics]
        stream = self._reader.messages(wanted)
        while True:
            try:
                connection, stamp_ns, data = next(stream)
            except StopIteration:
                return
            except Exception as error:  # a damaged file raises whatever its storage raises
                self.get_logger().error(f"the bag is damaged from here on: {error}")
                return
            yield connection.topic, stamp_ns, bytes(data)

    def _sleep_until(self, due: float, stamp_ns: int) -> bool:
        """Sleep with /clock ticking up to `stamp_ns`, the bag's time at `due`; False when halted."""
        while True:
            left = due - time.perf_counter()
            if left > _TICK:
                self._tick(stamp_ns - round(left * self._rate * 1e9))
            if self._halted.wait(min(max(left, 0.0), _TICK)):
                return False
            if left <= _TICK:
                self._tick(stamp_ns)
                return True

    def _tick(self, now_ns: int) -> None:
        self._clock_publisher.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))

    def _wait_for_subscribers(self) -> bool:
        """True once every image topic and its camera_info is listened to, or some are and the patience is at an end."""
        wanted = {topic for topic, p in self._topics.items() if _is_camera(p.msg_type)} or set(self._topics)
        end = time.monotonic() + self._patience
        while time.monotonic() < end and not self._halted.wait(0.05):
            unheard = [t for t in wanted if self._topics[t].get_subscription_count() == 0]
            if not unheard:
                return True
        if self._halted.is_set():
            return False
        names = ", ".join(sorted(self._topics[t].topic_name for t in unheard))
        if len(unheard) == len(wanted):
            self.get_logger().error(
                f"nobody subscribed to {names} within {self._patience:g} s: start a node first (recon3d slam), or rename "
                "topics (--ros-args -r /recorded:=/wanted)"
            )
            return False
        self.get_logger().warning(f"nobody subscribes to {names}: playing all the same")
        return True


def _is_camera(message: type) -> bool:
    return message.__name__ in ("Image", "CompressedImage", "CameraInfo")


def _profile(connection: Any) -> QoSProfile:
    """Reliable, which suits every subscriber; kept for late ones where the recorded publisher did so."""
    offered = connection.ext.offered_qos_profiles
    latched = bool(offered) and all(o.durability.name == "TRANSIENT_LOCAL" for o in offered)
    if latched or connection.topic == "/tf_static":
        return qos.TF_STATIC
    return qos.PLAYED_IMAGES if connection.msgtype in _IMAGES else qos.PLAYED


def play(args: argparse.Namespace, ros_arguments: Sequence[str] | None = None) -> int:
    """Play `args.bag` until its end or a signal; returns the exit code."""

    def make(stop: process.Stop) -> process.Session:
        player = Player(args.bag, args.rate, args.wait)
        thread = threading.Thread(target=_play, args=(player, args, stop), name="player")
        thread.start()

        def finish() -> list[str]:
            player.halt()
            thread.join()
            return []

        return process.Session([player], finish)

    return process.run(make, ros_arguments)


def _play(player: Player, args: argparse.Namespace, stop: process.Stop) -> None:
    code = 1
    try:
        while True:
            with tqdm(
                total=round(player.seconds, 1), unit="s", desc="replay", disable=args.quiet or None
            ) as bar:
                done = player.play(lambda seconds: bar.update(seconds - bar.n))
            code = 0 if done else 1
            if not (done and args.loop):
                break
    finally:
        stop.request(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the bag named on the command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = argparse.ArgumentParser(prog="replay", description=__doc__)
    add_replay_flags(flags)
    return play(flags.parse_args(remove_ros_args(["replay", *given])[1:]), given)


if __name__ == "__main__":
    sys.exit(main())
