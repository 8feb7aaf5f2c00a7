# SPDX-License-Identifier: Apache-2.0
"""Quality of service of every topic, and inputs that adapt to what their publishers offer."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo


def _profile(depth: int, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


#: Results of one frame or one keyframe.
OUTPUT = _profile(10)
#: Results that a viewer which joins late must see: the newest one is kept for it.
LATCHED = _profile(1, latched=True)
#: Notices of keyframes: a burst of corrections must not push an addition out, and a mesher that starts late takes what the
#: store still holds.
NOTICES = _profile(100, latched=True)
#: Mesh messages: as many are in flight before the publisher waits for them, and a late joiner gets as many.
MESH = _profile(16, latched=True)
TF = _profile(100)
TF_STATIC = _profile(100, latched=True)
CLOCK = _profile(1, reliable=False)
#: Every message counts.
OBSERVED = _profile(1000)
#: Topics of a recording: bursts are kept for subscribers that are slow to take them, of images fewer.
PLAYED = _profile(100)
PLAYED_IMAGES = _profile(20)


def input_profile(asked: str, offered: Sequence[TopicEndpointInfo], depth: int) -> QoSProfile:
    """The profile of a subscription to sensor data that connects to all publishers `offered`.

    asked: `reliable`, `best_effort`, or `auto`: reliable when all of them are, since a reliable subscription never
    connects to a best effort publisher. depth: messages kept while the node is busy. What all of them keep for those who
    join late (a camera_info sent once) is asked for.
    """
    reliable = asked == "reliable"
    if asked == "auto":
        reliable = bool(offered) and all(
            o.qos_profile.reliability == ReliabilityPolicy.RELIABLE for o in offered
        )
    latched = bool(offered) and all(
        o.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offered
    )
    return _profile(depth, reliable, latched)


def describe(profile: QoSProfile) -> str:
    """Reliability and durability in words."""
    words = (profile.reliability.name, profile.durability.name)
    return ", ".join(word.lower().replace("_", " ") for word in words)
