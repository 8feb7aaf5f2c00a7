# SPDX-License-Identifier: Apache-2.0
"""The program `observer`: counts the messages of topics as they arrive in a process of its own. Used by the demo."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from recon3d_ros.nodes import process
from recon3d_ros.nodes.flags import OBSERVER_READY
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.runtime.results import write_text

#: Topic -> its type.
TOPICS = {
    "/reconstructor/pose": PoseStamped,
    "/reconstructor/cloud": PointCloud2,
    "/mesher/mesh": MarkerArray,
    "/tf": TFMessage,
}


class Observer(Node):
    """`counts`: messages by topic. They are taken as bytes, since a mesh takes longer to unpack than to send."""

    def __init__(self) -> None:
        super().__init__("observer")
        self.counts: Counter[str] = Counter({topic: 0 for topic in TOPICS})
        for topic, message in TOPICS.items():
            self.create_subscription(message, topic, self._counter(topic), qos.OBSERVED, raw=True)
        self._ready = self.create_timer(0.1, self._look)

    def _counter(self, topic: str):  # type: ignore[no-untyped-def]
        def count(_: bytes) -> None:
            self.counts[topic] += 1

        return count

    def _look(self) -> None:
        if all(self.count_publishers(topic) for topic in TOPICS):
            self._ready.cancel()
            self.get_logger().info(OBSERVER_READY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count until a signal, then write the counts to the JSON file named on the command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = argparse.ArgumentParser(prog="observer", description=__doc__)
    flags.add_argument("file", type=Path, help="where the counts are written at the end")
    args = flags.parse_args(remove_ros_args(["observer", *given])[1:])

    def make(stop: process.Stop) -> process.Session:
        observer = Observer()

        def finish() -> list[str]:
            write_text(args.file, json.dumps(observer.counts))
            return []

        return process.Session([observer], finish)

    return process.run(make, given)


if __name__ == "__main__":
    sys.exit(main())
