# SPDX-License-Identifier: Apache-2.0
"""The part of `recon3d doctor --graph` that is about running nodes, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recon3d_ros.ros.findings import LinkSeen, NodeSeen, Survey, TopicSeen

_LEVELS = ("ok", "warning", "error", "stale")
#: Diagnostic values that are shown, where a node has them.
_SHOWN = (
    "tracking", "scale", "gravity", "fps_in", "fps_out", "latency_p95_ms", "queue", "queue_max", "dropped", "keyframes",
    "triangles", "memory_mb", "store_mb", "map_mb", "mesh_mb", "gpu_mb",
)  # fmt: skip


def table(seen: Survey) -> Iterator[str]:
    """Lines on nodes, inputs, transforms and problems."""
    if not seen.nodes:
        yield "no recon3d node in the ROS graph"
        return
    for node in seen.nodes:
        yield from _node(node)
    yield from map(_topic, seen.topics)
    yield from map(_link, seen.links)
    for problem in seen.problems:
        yield f"problem  {problem}"


def _node(node: NodeSeen) -> Iterator[str]:
    level = max((d.level for d in node.diagnoses), default=0)
    yield f"{_LEVELS[min(level, 3)]:8} {node.name:20} {node.lifecycle or 'no answer'}"
    for diagnosis in node.diagnoses:
        values = diagnosis.values
        shown = [f"{key} {values[key]}" for key in _SHOWN if values.get(key)]
        shown += [f"{key} {value}" for key, value in values.items() if key.startswith("dropped: ")]
        yield f"{'':8} {'':20} {diagnosis.message}"
        yield f"{'':8} {'':20} {', '.join(shown)}"


def _topic(topic: TopicSeen) -> str:
    offered = "; ".join(topic.publishers) or "no publisher"
    rate = f"{topic.hz:.1f} Hz" if topic.publishers else ""
    return f"input    {topic.name:20} {rate:9} {offered} -> {', '.join(topic.readers)}"


def _link(link: LinkSeen) -> str:
    return f"tf       {f'{link.parent} -> {link.child}':30} {', '.join(link.publishers)}"
