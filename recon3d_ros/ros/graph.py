# SPDX-License-Identifier: Apache-2.0
"""Looking at the ROS graph: who publishes what, in words that help when nothing arrives."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from recon3d_ros.core.messages import base_topic, is_depth_topic, one_per_image
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


def offered(node: Node, kinds: Collection[str]) -> list[str]:
    """Topics of these types in the node's namespace that others publish, sorted."""
    own = (node.get_namespace(), node.get_name())
    below = node.get_namespace().rstrip("/") + "/"
    return sorted(
        topic
        for topic, types in node.get_topic_names_and_types()
        if set(types) & set(kinds) and topic.startswith(below)
        if any((p.node_namespace, p.node_name) != own for p in publishers(node, topic))
    )


def image_topics(node: Node) -> list[str]:
    """Topics in the node's namespace on which others publish images, one for each image."""
    return one_per_image(offered(node, (IMAGE, COMPRESSED)))


def find_cameras(node: Node) -> list[str]:
    """Those of `image_topics` that do not hold depth by their name. Encodings are not known before an image came."""
    return [topic for topic in image_topics(node) if not is_depth_topic(topic)]


def describe_choice(cameras: Sequence[str]) -> list[str]:
    """Lines on which image topic a node takes that was given none."""
    if not cameras:
        return []
    if len(cameras) == 1:
        return [f"{cameras[0]} is taken where no image topic is given (the only image topic)"]
    return [
        "several image topics: choose one with " + " or ".join(f"-r image:={base_topic(t)}" for t in cameras)
    ]


def describe_topic(node: Node, topic: str) -> list[str]:
    """Lines on a topic: its full name, and its publishers with their QoS, or that there is none; then its transports."""
    name = node.resolve_topic_name(topic)
    transports = (f"{name}/{suffix}" for suffix in ("compressed", "compressedDepth"))
    names = [name] + [t for t in transports if publishers(node, t)]
    return [f"{n}: {'; '.join(map(describe_endpoint, publishers(node, n))) or 'no publisher'}" for n in names]


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
        return lines + describe_choice(find_cameras(node)) or ["no camera topic in the ROS graph"]
    finally:
        node.destroy_node()
        context.try_shutdown()


def incompatible_pairs(node: Node, topic: str) -> list[str]:
    """What publishers of a topic offer and subscribers ask, for each two of them that cannot talk."""
    return [
        f"{endpoint_name(p)} offers {describe(p.qos_profile)}, {endpoint_name(s)} asks {describe(s.qos_profile)}"
        for p in node.get_publishers_info_by_topic(topic)
        for s in node.get_subscriptions_info_by_topic(topic)
        if qos_check_compatible(p.qos_profile, s.qos_profile)[0] == QoSCompatibility.ERROR
    ]


def incompatible(node: Node, topic: str) -> str:
    """One line on a topic some of whose publishers and subscribers cannot talk: which, and what they offer and ask."""
    pairs = "; ".join(incompatible_pairs(node, topic)) or "one of them has gone"
    return (
        f"{topic}: QoS does not fit, nothing is received: {pairs}. Change one of the two; here: "
        f"-p qos_overrides.{topic}.publisher.reliability:=reliable, or .subscription."
    )


def endpoint_name(endpoint: TopicEndpointInfo) -> str:
    """Full name of the node that publishes or subscribes."""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def describe_endpoint(publisher: TopicEndpointInfo) -> str:
    """Who publishes, the type, and the QoS."""
    return f"{endpoint_name(publisher)} ({publisher.topic_type}, {describe(publisher.qos_profile)})"
