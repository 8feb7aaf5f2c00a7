# SPDX-License-Identifier: Apache-2.0
"""Looking at the ROS graph: who publishes what, in words that help when nothing arrives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from recon3d_ros.ros.environment import check_environment
from recon3d_ros.ros.qos import describe

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
_CAMERA_TYPES = (IMAGE, COMPRESSED, "sensor_msgs/msg/CameraInfo")


def publishers(node: Node, topic: str, message: str = "") -> list[TopicEndpointInfo]:
    """Publishers of a topic as the node calls it (relative names and remappings hold), of one message type if given."""
    found = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return [p for p in found if not message or p.topic_type == message]


@dataclass(frozen=True, eq=False)
class Offer:
    """A topic that somebody publishes, under its full name."""

    topic: str
    compressed: bool
    publishers: Sequence[TopicEndpointInfo]


def find_images(node: Node, topic: str, transport: str, suffix: str = "compressed") -> Offer | None:
    """Publishers of an image topic, raw or compressed, None if there is none.

    transport: `raw`, `compressed`, or `auto`: raw where both are offered, since it needs no decoding. suffix: of the
    compressed topic, which lies below the raw one; `topic` itself may be a compressed one as well.
    """
    name = node.resolve_topic_name(topic)
    if transport != "compressed":
        found = publishers(node, name, IMAGE)
        if found:
            return Offer(name, False, found)
    if transport != "raw":
        for candidate in (name, node.resolve_topic_name(f"{topic}/{suffix}"), f"{name}/{suffix}"):
            found = publishers(node, candidate, COMPRESSED)
            if found:
                return Offer(candidate, True, found)
    return None


def describe_topic(node: Node, topic: str) -> list[str]:
    """Lines on a topic: its full name, and its publishers with their QoS, or that there is none; then its transports."""
    name = node.resolve_topic_name(topic)
    transports = (f"{name}/{suffix}" for suffix in ("compressed", "compressedDepth"))
    names = [name] + [t for t in transports if publishers(node, t)]
    return [f"{n}: {'; '.join(map(_describe, publishers(node, n))) or 'no publisher'}" for n in names]


def camera_topics(node: Node) -> list[str]:
    """Topics in the graph that carry images or camera information, sorted."""
    return sorted(
        topic for topic, types in node.get_topic_names_and_types() if set(types) & set(_CAMERA_TYPES)
    )


def describe_graph(wait: float) -> Iterable[str]:
    """Lines on the camera topics of the graph around this machine, after `wait` seconds of discovery."""
    check_environment()
    context = Context()
    rclpy.init(context=context)
    node = Node("recon3d_doctor", context=context, enable_rosout=False, start_parameter_services=False)
    try:
        time.sleep(wait)
        topics = camera_topics(node)
        lines = [line for topic in topics for line in describe_topic(node, topic)]
        return lines or ["no camera topic in the ROS graph"]
    finally:
        node.destroy_node()
        context.try_shutdown()


def incompatible(node: Node, topic: str) -> str:
    """One line on a topic some of whose publishers and subscribers cannot talk: which, and what they offer and ask."""
    pairs = [
        f"{_name(p)} offers {describe(p.qos_profile)}, {_name(s)} asks {describe(s.qos_profile)}"
        for p in node.get_publishers_info_by_topic(topic)
        for s in node.get_subscriptions_info_by_topic(topic)
        if qos_check_compatible(p.qos_profile, s.qos_profile)[0] == QoSCompatibility.ERROR
    ]
    return (
        f"{topic}: QoS does not fit, nothing is received: {'; '.join(pairs) or 'one of them has gone'}. Change one of the "
        f"two; here: -p qos_overrides.{topic}.publisher.reliability:=reliable, or .subscription."
    )


def _name(endpoint: TopicEndpointInfo) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _describe(publisher: TopicEndpointInfo) -> str:
    return f"{_name(publisher)} ({publisher.topic_type}, {describe(publisher.qos_profile)})"
