# SPDX-License-Identifier: Apache-2.0
"""Status and diagnostics of a node, once a second."""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import Status

PERIOD = 1.0

#: Seconds over which rates are taken.
_RECENT = 5


@dataclass(frozen=True)
class Health:
    """What a node says of itself. part: what of the node it is about. status: without header and name of the node. drops:
    inputs left out, by reason. received, done: inputs that came, and those worked on, so far. harmless: reasons in `drops`
    that are no loss. error, warning: one line each, empty when all is well. values: further values for diagnostics."""

    part: str
    status: Status
    drops: Counter[str]
    received: int
    done: int
    harmless: frozenset[str] = frozenset()
    error: str = ""
    warning: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


class HealthPublisher:
    """Publishes what `ask` says on ~/status and /diagnostics; `start` once the node is active."""

    def __init__(self, node: ManagedNode, ask: Callable[[], Health]) -> None:
        self._node = node
        self._ask = ask
        self._lost: Counter[str] = Counter()
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_RECENT + 1)
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
        level, message = self._verdict(health)
        line = DiagnosticStatus(
            level=level,
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: {health.part}",
            message=message,
            hardware_id=socket.gethostname(),
            values=[KeyValue(key=key, value=str(value)) for key, value in self._values(health).items()],
        )
        array = DiagnosticArray(status=[line])
        array.header.stamp = self._node.get_clock().now().to_msg()
        return array

    def _verdict(self, health: Health) -> tuple[bytes, str]:
        """Level and message: the worst there is."""
        lost = Counter({r: n for r, n in health.drops.items() if r not in health.harmless})
        new, self._lost = lost - self._lost, lost
        if health.error:
            return DiagnosticStatus.ERROR, health.error
        if new:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(new.items()))
            return DiagnosticStatus.WARN, f"dropped since the last second: {counts}"
        if health.warning:
            return DiagnosticStatus.WARN, health.warning
        return DiagnosticStatus.OK, "ok"

    def _values(self, health: Health) -> dict[str, object]:
        s, (fps_in, fps_out), gpu = health.status, self._rates(health), gpu_mb()
        return {
            "lifecycle": self._node.state,
            # Copied at once, before other threads change it.
            "under_way": ", ".join(sorted(tuple(self._node.under_way))) or "nothing",
            "frames": s.frames,
            "fps": f"{s.fps:.2f}",
            "fps_in": f"{fps_in:.2f}",
            "fps_out": f"{fps_out:.2f}",
            "latency_ms": f"{s.latency_ms:.1f}",
            "queue": s.queue,
            "keyframes": s.keyframes,
            "dropped": s.dropped,
            **{f"dropped: {r}": n for r, n in zip(s.drop_reasons, s.drop_counts, strict=True)},
            "scale": s.scale_state,
            "gravity": s.gravity_state,
            "memory_mb": f"{s.memory_mb:.0f}",
            **({} if gpu is None else {"gpu_mb": f"{gpu:.0f}"}),
            **health.values,
        }

    def _rates(self, health: Health) -> tuple[float, float]:
        """Inputs that came and that were worked on, per second, over the last seconds."""
        now = (time.monotonic(), health.received, health.done)
        if self._recent and (now[1] < self._recent[-1][1] or now[2] < self._recent[-1][2]):
            self._recent.clear()  # counted from the start again
        self._recent.append(now)
        seconds, *counts = (b - a for a, b in zip(self._recent[0], now, strict=True))
        received, done = (count / seconds if seconds else 0.0 for count in counts)
        return received, done


def resident_mb() -> float:
    """Resident memory of this process now, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def gpu_mb() -> float | None:
    """Memory that torch and cupy hold on GPUs for this process, MiB; None where neither is in use."""
    held = []
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_initialized():
        held.append(sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())))
    if cupy is not None:
        held.append(cupy.get_default_memory_pool().total_bytes())
    return sum(held) / 2**20 if held else None
