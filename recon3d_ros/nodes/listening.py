# SPDX-License-Identifier: Apache-2.0
"""A topic of a sensor beside the camera: its type is that of whoever publishes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from recon3d_ros.core.errors import MissingDependency
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros.graph import publishers
from recon3d_ros.ros.qos import input_profile

#: Messages that may wait: some sensors send in bursts.
_KEPT = 200


IsOld = Callable[[str, int], bool]


class _Takes(Protocol):
    def add(self, stamp_ns: int, value: Any, /) -> bool: ...


@dataclass(frozen=True)
class Kind:
    """A message type as the graph names it, how its class is imported, and who takes the messages."""

    name: str
    load: Callable[[], Any]
    take: Callable[[Any], None]


class Listener:
    """Subscribes to a topic once one of the kinds, the first ones first, is published on it.

    kind: the one in use. counts: messages and look-ups that gave nothing, by reason; name stands in the reasons. is_old:
    whether a message of that name with this stamp is of the time before a jump.
    """

    def __init__(
        self, node: ManagedNode, topic: str, name: str, kinds: tuple[Kind, ...], is_old: IsOld
    ) -> None:
        self.kind: Kind | None = None
        self.counts: Counter[str] = Counter()
        self._node = node
        self._topic = topic
        self._name = name
        self._is_old = is_old
        self._kinds = kinds
        self._log = node.get_logger()

    def begin(self) -> None:
        """The node was activated: nothing is subscribed."""
        self.kind = None

    def source(self) -> str:
        """The type that is heard, or that there is none."""
        return self.kind.name if self.kind else "not published"

    def look(self) -> None:
        """See whether somebody publishes by now, and subscribe."""
        if self.kind is not None:
            return
        found = publishers(self._node, self._topic)
        types = {publisher.topic_type for publisher in found}
        kind = next((kind for kind in self._kinds if kind.name in types), None)
        if kind is not None:
            self._subscribe(kind)
        elif types:
            self._log.warning(
                f"{self._node.resolve_topic_name(self._topic)} is of type {', '.join(sorted(types))}, and is not used: "
                f"publish {' or '.join(kind.name for kind in self._kinds)}",
                throttle_duration_sec=10.0,
            )

    def add(self, history: _Takes, stamp_ns: int, value: Any) -> None:
        """Put into a history what came with a message; a stamp that is none, old or not rising is counted."""
        if stamp_ns <= 0:
            self.counts[f"{self._name} without stamp"] += 1
        elif self._is_old(self._name, stamp_ns):
            self.counts[f"{self._name} from before time jumped"] += 1
        elif not history.add(stamp_ns, value):
            self.counts[f"{self._name} backwards"] += 1

    def _subscribe(self, kind: Kind) -> None:
        try:
            message = kind.load()
        except MissingDependency as error:
            self._log.warning(str(error), throttle_duration_sec=30.0)
            return
        # Best effort connects to every publisher.
        profile = input_profile("best_effort", (), _KEPT)
        self._node.add_subscription(message, self._topic, kind.take, profile)
        self.kind = kind
        self._log.info(f"subscribed: {self._node.resolve_topic_name(self._topic)} ({kind.name})")
