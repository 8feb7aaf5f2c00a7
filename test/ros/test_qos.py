# SPDX-License-Identifier: Apache-2.0
"""Inputs connect to whatever their publishers offer."""

import time

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.node import Node  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from recon3d_ros.ros.graph import camera_topics, describe_graph, describe_topic, find_images, publishers  # noqa: E402
from recon3d_ros.ros.qos import input_profile  # noqa: E402

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.fixture
def node():
    rclpy.init(args=["test", "--ros-args", "-r", "image:=/cam/image_raw"])
    yield Node("tested")
    rclpy.try_shutdown()


def until(condition):
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("offered", "expected"), [((RELIABLE, RELIABLE), RELIABLE), ((RELIABLE, BEST_EFFORT), BEST_EFFORT)]
)
def test_a_subscription_matches_all_publishers(node, offered, expected):
    senders = [node.create_publisher(Image, "image", QoSProfile(depth=5, reliability=r)) for r in offered]
    assert until(lambda: len(publishers(node, "image")) == 2)
    profile = input_profile("auto", publishers(node, "image"), 5)
    assert profile.reliability == expected and profile.depth == 5
    node.create_subscription(Image, "image", lambda _: None, profile)
    assert until(lambda: all(s.get_subscription_count() == 1 for s in senders))


def test_what_is_sent_once_and_kept_is_asked_for(node):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_publisher(Image, "image", latched)
    assert until(lambda: publishers(node, "image"))
    assert input_profile("auto", publishers(node, "image"), 5).durability == DurabilityPolicy.TRANSIENT_LOCAL


def test_raw_is_preferred_and_compressed_is_found_below_the_remapped_name(node):
    assert find_images(node, "image", "auto") is None
    node.create_publisher(CompressedImage, "/cam/image_raw/compressed", 5)
    assert until(lambda: find_images(node, "image", "auto"))
    offer = find_images(node, "image", "auto")
    assert (offer.topic, offer.compressed) == ("/cam/image_raw/compressed", True)
    assert find_images(node, "image", "raw") is None
    node.create_publisher(Image, "/cam/image_raw", 5)
    assert until(lambda: not find_images(node, "image", "auto").compressed)
    assert find_images(node, "image", "compressed").compressed


def test_a_topic_is_described_by_name_publishers_and_qos(node):
    assert describe_topic(node, "image") == ["/cam/image_raw: no publisher"]
    node.create_publisher(
        CompressedImage, "/cam/image_raw/compressed", QoSProfile(depth=5, reliability=BEST_EFFORT)
    )
    assert until(lambda: camera_topics(node) == ["/cam/image_raw/compressed"])
    assert describe_topic(node, "image")[1] == (
        "/cam/image_raw/compressed: /tested (sensor_msgs/msg/CompressedImage, best effort, volatile)"
    )


def test_the_graph_is_described_from_outside(node):
    assert list(describe_graph(wait=0.3)) == ["no camera topic in the ROS graph"]
    node.create_publisher(Image, "image", 5)
    expected = [
        "/cam/image_raw: /tested (sensor_msgs/msg/Image, reliable, volatile)",
        "/cam/image_raw is taken where no image topic is given (the only image topic)",
    ]
    assert until(lambda: list(describe_graph(wait=0.5)) == expected)
