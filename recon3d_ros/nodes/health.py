# SPDX-License-Identifier: Apache-2.0
"""Status and diagnostics of a node, once a second."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import Status

PERIOD = 1.0


@dataclass(frozen=True)
class Health:
    """What a node says of itself. part: what of the node it is about. problem: one line, empty when all is well.
    status: without header and name of the node. values: further values for diagnostics."""

    part: str
    status: Status
    drops: Counter[str]
    problem: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


class HealthPublisher:
    """Publishes what `ask` says on ~/status and /diagnostics; `start` once the node is active."""

    def __init__(self, node: ManagedNode, ask: Callable[[], Health]) -> None:
        self._node = node
        self._ask = ask
        self._status = node.add_publisher(Status, "~/status", qos.OUTPUT)
        self._diagnostics = node.add_publisher(DiagnosticArray, "/diagnostics", qos.OUTPUT)

    def start(self) -> None:
        """Once a second until the node is deactivated."""
        self._node.add_timer(PERIOD, self.publish)

    def publish(self) -> None:
        """Send both now."""
        health = self._ask()
        reasons = sorted(reason for reason, count in health.drops.items() if count)
        status = health.status
        status.node = self._node.get_fully_qualified_name()
        status.drop_reasons = reasons
        status.drop_counts = [health.drops[reason] for reason in reasons]
        status.dropped = sum(health.drops.values())
        status.memory_mb = resident_mb()
        self._status.publish(status)
        self._diagnostics.publish(self._array(health))

    def _array(self, health: Health) -> DiagnosticArray:
        s = health.status
        values: dict[str, object] = {
            "frames": s.frames,
            "fps": f"{s.fps:.2f}",
            "latency_ms": f"{s.latency_ms:.1f}",
            "queue": s.queue,
            "keyframes": s.keyframes,
            "dropped": s.dropped,
            **{f"dropped: {r}": n for r, n in zip(s.drop_reasons, s.drop_counts, strict=True)},
            "scale": s.scale_state,
            "gravity": s.gravity_state,
            "memory_mb": f"{s.memory_mb:.0f}",
            **health.values,
        }
        line = DiagnosticStatus(
            level=DiagnosticStatus.WARN if health.problem else DiagnosticStatus.OK,
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: {health.part}",
            message=health.problem or "ok",
            hardware_id=socket.gethostname(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[line])
        array.header.stamp = self._node.get_clock().now().to_msg()
        return array


def resident_mb() -> float:
    """Resident memory of this process now, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20
