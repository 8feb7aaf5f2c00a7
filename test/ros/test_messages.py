# SPDX-License-Identifier: Apache-2.0
"""The generated messages, over real DDS."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from rclpy.node import Node  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from recon3d_ros.ros.messages import Keyframe, Status, TFMessage  # noqa: E402

OFFICIAL_TF_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"

# A second process: sends every keyframe back with its sequence raised by one.
ECHO = """
import rclpy
from recon3d_ros.ros.messages import Keyframe

rclpy.init()
node = rclpy.create_node("echo")
publisher = node.create_publisher(Keyframe, "back", 10)

def answer(message):
    message.sequence += 1
    publisher.publish(message)

node.create_subscription(Keyframe, "there", answer, 10)
rclpy.spin(node)
"""


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("messages_test", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def spin_until(node: Node, condition: Callable[[], object], seconds: float = 20.0) -> bool:
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    return bool(condition())


def example_keyframe() -> Keyframe:
    message = Keyframe(
        action=Keyframe.UPDATE, id=2**40 + 7, sequence=41, width=640, height=480, point_count=1234
    )
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 123_456_789
    message.header.frame_id = "map"
    message.pose.position.z = -2.5
    message.intrinsics = np.array([500.0, 501.0, 319.5, 239.5])
    message.bbox_min = np.array([-1, -2, 0.5], np.float32)
    message.bbox_max = np.array([1, 2, 9], np.float32)
    message.has_confidence = True
    message.shm_name, message.shm_size, message.generation = "recon3d_1_0", 3_000_000_000, 9
    message.scale_state = "unknown"
    return message


def test_tf_message_has_the_type_hash_of_the_official_one(node: Node) -> None:
    node.create_publisher(TFMessage, "/tf", 10)
    assert spin_until(node, lambda: node.count_publishers("/tf") > 0)
    (endpoint,) = node.get_publishers_info_by_topic("/tf")
    assert endpoint.topic_type == "tf2_msgs/msg/TFMessage"
    assert str(endpoint.topic_type_hash) == OFFICIAL_TF_HASH


def test_a_keyframe_comes_back_unchanged_from_another_process(node: Node) -> None:
    answers: list[Keyframe] = []
    publisher = node.create_publisher(Keyframe, "there", 10)
    node.create_subscription(Keyframe, "back", answers.append, 10)
    sent = example_keyframe()
    process = subprocess.Popen([sys.executable, "-c", ECHO])

    def answered() -> list[Keyframe]:
        publisher.publish(sent)  # again and again: one sent before both ends know each other is lost
        return answers

    try:
        assert spin_until(node, answered)
    finally:
        process.terminate()
        process.wait(10)
    sent.sequence += 1
    assert answers[0] == sent


def test_a_status_keeps_its_drop_counts_on_the_wire() -> None:
    status = Status(drop_reasons=["stale", "dark"], drop_counts=[3, 1], fps=29.5, memory_mb=412.0)
    received = deserialize_message(serialize_message(status), Status)
    assert dict(zip(received.drop_reasons, received.drop_counts, strict=True)) == {"stale": 3, "dark": 1}
    assert received == status
