# SPDX-License-Identifier: Apache-2.0
"""What a survey of the ROS graph finds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """One status of /diagnostics. level: 0 ok, 1 warning, 2 error, 3 stale."""

    name: str
    level: int
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class NodeSeen:
    """lifecycle: the node's state; empty when it does not answer."""

    name: str
    lifecycle: str
    diagnoses: Sequence[Diagnosis]


@dataclass(frozen=True)
class TopicSeen:
    """An input of our nodes. publishers: name, type and QoS of each. hz: over the time of the survey."""

    name: str
    publishers: Sequence[str]
    readers: Sequence[str]
    hz: float


@dataclass(frozen=True)
class LinkSeen:
    """A transform parent -> child, and who publishes it."""

    parent: str
    child: str
    publishers: Sequence[str]


@dataclass(frozen=True)
class Survey:
    """What was seen. problems: one line each, empty when all is well."""

    nodes: Sequence[NodeSeen] = ()
    topics: Sequence[TopicSeen] = ()
    links: Sequence[LinkSeen] = ()
    problems: Sequence[str] = ()


def problems(nodes: Sequence[NodeSeen], topics: Sequence[TopicSeen], links: Sequence[LinkSeen]) -> list[str]:
    """One line for each thing that is wrong with them."""
    silent = [f"{n.name} does not answer" for n in nodes if not n.lifecycle]
    mute = [
        f"{n.name} is active and sends no diagnostics"
        for n in nodes
        if n.lifecycle == "active" and not n.diagnoses
    ]
    errors = [f"{d.name}: {d.message}" for n in nodes for d in n.diagnoses if d.level >= 2]
    empty = [f"{t.name}: no publisher" for t in topics if not t.publishers]
    parents: dict[str, list[LinkSeen]] = {}
    for link in links:
        parents.setdefault(link.child, []).append(link)
    torn = [
        f"frame '{child}' has {len(several)} parents: "
        + ", ".join(f"'{link.parent}' ({', '.join(link.publishers)})" for link in several)
        for child, several in parents.items()
        if len(several) > 1
    ]
    shared = [
        f"{link.parent} -> {link.child} is published by {' and '.join(link.publishers)}"
        for link in links
        if len(link.publishers) > 1
    ]
    return silent + mute + errors + empty + torn + shared
