# SPDX-License-Identifier: Apache-2.0
"""The running nodes of this package as seen from outside: states, diagnostics, inputs, QoS and transforms."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.topic_endpoint_info import TopicEndpointInfo

from recon3d_ros.ros import qos
from recon3d_ros.ros.environment import check_environment
from recon3d_ros.ros.findings import Diagnosis, LinkSeen, NodeSeen, Survey, TopicSeen, problems
from recon3d_ros.ros.graph import describe_endpoint, endpoint_name, incompatible_pairs, publishers
from recon3d_ros.ros.messages import TFMessage, message_type

_STATUS = "recon3d_ros/msg/Status"
_GET_STATE = "lifecycle_msgs/srv/GetState"
#: What our managed nodes are called where they are not renamed.
_NAMES = ("reconstructor", "mesher")
#: Topics of ROS itself, and those that are looked at in another way.
_NOT_INPUTS = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static")
#: Name of an endpoint whose node is not known yet.
_UNKNOWN = "_NODE_NAME_UNKNOWN_"
#: Seconds between looks at the graph.
_LOOK = 0.2


def survey(seconds: float = 3.0, patience: float = 10.0) -> Survey:
    """Look and listen for so long, and up to `patience` for nodes that were found and say nothing yet: DDS takes seconds to
    connect now and then."""
    check_environment()
    context = Context()
    rclpy.init(context=context)
    node = Node("recon3d_doctor", context=context, enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        observer, start = _Observer(node), time.monotonic()
        while (age := time.monotonic() - start) < seconds or (age < patience and observer.is_waiting):
            observer.look()
            _spin(executor, _LOOK)
        return observer.result()
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


@dataclass
class _Arrivals:
    first: float = 0.0
    last: float = 0.0
    count: int = 0

    def add(self, _: bytes) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.count += 1

    @property
    def hz(self) -> float:
        return (self.count - 1) / (self.last - self.first) if self.count > 1 else 0.0


@dataclass
class _Observer:
    """Subscribes to all that is of interest, at each `look`; `result` once it has listened."""

    node: Node
    clients: dict[str, Client[Any, Any]] = field(default_factory=dict)
    states: dict[str, list[Future[Any]]] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)
    arrivals: dict[str, _Arrivals] = field(default_factory=dict)
    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    links: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.OBSERVED)
        self._listen(TFMessage, "/tf", partial(self._on_tf, "/tf"), qos.OBSERVED)
        self._listen(TFMessage, "/tf_static", partial(self._on_tf, "/tf_static"), qos.TF_STATIC)

    def look(self) -> None:
        """Take in what is in the graph by now."""
        self.inputs = {}
        for name in _own_nodes(self.node):
            self._ask_state(name)
            for topic in _topics(self.node.get_subscriber_names_and_types_by_node, name):
                if topic not in _NOT_INPUTS:
                    self.inputs.setdefault(topic, []).append(name)
        for topic in self.inputs:
            self._count(topic)

    @property
    def is_waiting(self) -> bool:
        """True while a node has not answered, or is active and has not said how it is."""
        states = {name: self._state(name) for name in _own_nodes(self.node)}
        return any(not s or (s == "active" and not self._diagnoses_of(name)) for name, s in states.items())

    def result(self) -> Survey:
        names = _own_nodes(self.node)
        nodes = [NodeSeen(name, self._state(name), self._diagnoses_of(name)) for name in names]
        topics = [self._topic(name, readers) for name, readers in sorted(self.inputs.items())]
        links = [LinkSeen(*link, sorted(names)) for link, names in sorted(self.links.items())]
        pairs = [
            f"{topic}: QoS does not fit: {pair}"
            for topic in sorted({topic for name in names for topic in self._all_topics(name)})
            for pair in incompatible_pairs(self.node, topic)
        ]
        return Survey(nodes, topics, links, [*problems(nodes, topics, links), *pairs])

    def _all_topics(self, name: str) -> list[str]:
        node = self.node
        looks = (node.get_subscriber_names_and_types_by_node, node.get_publisher_names_and_types_by_node)
        return [topic for look in looks for topic in _topics(look, name)]

    def _ask_state(self, name: str) -> None:
        """Until it answers: a question sent before both ends know each other is lost."""
        if name not in self.clients:
            self.clients[name] = self.node.create_client(GetState, f"{name}/get_state")
        if not self._state(name) and self.clients[name].service_is_ready():
            self.states.setdefault(name, []).append(self.clients[name].call_async(GetState.Request()))

    def _state(self, name: str) -> str:
        answers = (future.result() for future in self.states.get(name, ()) if future.done())
        return next((str(answer.current_state.label) for answer in answers), "")

    def _listen(self, message: Any, topic: str, callback: Callable[..., None], profile: QoSProfile) -> None:
        self.node.create_subscription(message, topic, callback, profile)

    def _count(self, topic: str) -> None:
        offered = publishers(self.node, topic)
        message = message_type(offered[0].topic_type) if offered else None
        if message is not None and topic not in self.arrivals:
            self.arrivals[topic] = _Arrivals()
            profile = qos.input_profile("auto", offered, 100)
            self.node.create_subscription(message, topic, self.arrivals[topic].add, profile, raw=True)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for s in message.status:
            values = {v.key: v.value for v in s.values}
            self.diagnoses[s.name] = Diagnosis(s.name, s.level[0], s.message, values)

    def _on_tf(self, topic: str, message: Any, info: Mapping[str, Any]) -> None:
        names = _senders(publishers(self.node, topic), info)
        for transform in message.transforms:
            link = (transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/"))
            self.links.setdefault(link, set()).update(names)

    def _diagnoses_of(self, name: str) -> list[Diagnosis]:
        return [d for key, d in sorted(self.diagnoses.items()) if key.partition(":")[0] == name.lstrip("/")]

    def _topic(self, name: str, readers: Sequence[str]) -> TopicSeen:
        offered = [describe_endpoint(p) for p in publishers(self.node, name)]
        return TopicSeen(name, offered, sorted(readers), self.arrivals.get(name, _Arrivals()).hz)


def _own_nodes(node: Node) -> list[str]:
    """Nodes that publish our status, and those not configured yet, which have nothing but their name."""
    topics = [topic for topic, types in node.get_topic_names_and_types() if _STATUS in types]
    named = {endpoint_name(p) for topic in topics for p in publishers(node, topic, _STATUS)}
    managed = {
        service.rpartition("/")[0]
        for service, types in node.get_service_names_and_types()
        if _GET_STATE in types and service.endswith("/get_state")
    }
    # Endpoints of a node that is just coming or going are there without it.
    known = {f"{namespace.rstrip('/')}/{name}" for name, namespace in node.get_node_names_and_namespaces()}
    return sorted(known & (named | {name for name in managed if name.rpartition("/")[2] in _NAMES}))


def _topics(look: Callable[[str, str], list[tuple[str, list[str]]]], name: str) -> list[str]:
    """Topics of a node by one of rclpy's looks at the graph; none for a node that has just gone."""
    namespace, _, own = name.rpartition("/")
    try:
        return [topic for topic, _ in look(own, namespace or "/")]
    except rclpy_implementation.NodeNameNonExistentError:
        return []


def _senders(offered: Sequence[TopicEndpointInfo], info: Mapping[str, Any]) -> set[str]:
    """Who sent a message; where the distribution does not say, one name for all who may have. Nobody while discovery does
    not know the name of the node yet."""
    gid = (info.get("publisher_gid") or {}).get("data")
    named = [p for p in offered if p.node_name != _UNKNOWN]
    sent = [p for p in offered if gid is not None and bytes(p.endpoint_gid) == bytes(gid)]
    if sent:
        return {endpoint_name(p) for p in sent if p in named}
    return {" or ".join(sorted(map(endpoint_name, named)))} if named else set()
