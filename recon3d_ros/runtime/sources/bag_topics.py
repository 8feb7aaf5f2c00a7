# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are used: those asked for, else the only one of its kind; the choice is said, and where it is not
clear the candidates are listed."""

from __future__ import annotations

from dataclasses import dataclass

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.image_messages import is_depth_message
from recon3d_ros.core.messages import base_topic, is_depth_topic, one_per_image
from recon3d_ros.runtime.sources.bag_reader import Bag

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"


@dataclass(frozen=True)
class Choice:
    """A topic, and in words (with a space before them) why it was taken; "" when it was asked for."""

    topic: str
    why: str


def choose_image(bag: Bag, wanted: str | None) -> Choice:
    """The image topic asked for, else the only colour image topic. Raises InputError with the candidates."""
    topics = bag.topics_of(*IMAGE_TYPES)
    if wanted:
        return Choice(_asked_for(bag, wanted, topics, "image"), "")
    if not topics:
        raise InputError(
            f"the bag has no images (sensor_msgs Image or CompressedImage); its topics: {bag.listing()}"
        )
    candidates = [t for t in one_per_image(topics) if not _is_depth(bag, t) and not is_depth_topic(t)]
    colour = [t for t in candidates if not _is_mono(bag, t)]
    if len(colour) == 1:
        return Choice(colour[0], " (the only colour image topic)")
    if len(candidates) == 1:
        return Choice(candidates[0], " (the only image topic)")
    if not candidates:
        raise InputError(f"the bag has depth but no colour images; its topics: {bag.listing()}")
    raise InputError(
        f"the bag has several image topics: choose one with --image-topic: {', '.join(candidates)}"
    )


def choose_depth(bag: Bag, wanted: str | None) -> Choice | None:
    """The depth topic asked for ("none" for none), else the only one, of several the only one registered to the images;
    None where the bag has none. Raises InputError with the candidates."""
    if wanted == "none":
        return None
    topics = bag.topics_of(*IMAGE_TYPES)
    if wanted:
        return Choice(_asked_for(bag, wanted, topics, "depth"), "")
    candidates = [t for t in one_per_image(topics) if _is_depth(bag, t)]
    if len(candidates) <= 1:
        return Choice(candidates[0], " (the only depth topic)") if candidates else None
    registered = [t for t in candidates if "aligned" in t or "registered" in t]
    if len(registered) == 1:
        return Choice(registered[0], " (registered to the images)")
    raise InputError(
        f"the bag has several depth topics: choose one with --depth-topic: {', '.join(candidates)}"
    )


def choose_odometry(bag: Bag, wanted: str | None) -> str:
    """The odometry topic asked for, else the only one. Raises InputError with the candidates."""
    topics = bag.topics_of(ODOMETRY_TYPE)
    if wanted:
        return _asked_for(bag, wanted, topics, "odometry")
    if len(topics) == 1:
        return topics[0]
    if not topics:
        raise InputError(
            f"the bag has no odometry to take as prior: run without it; its topics: {bag.listing()}"
        )
    raise InputError(f"the bag has several odometry topics, and a prior needs one: {', '.join(topics)}")


def _asked_for(bag: Bag, wanted: str, topics: list[str], kind: str) -> str:
    wanted = "/" + wanted.lstrip("/")
    if wanted in topics:
        return wanted
    transported = [t for t in topics if base_topic(t) == wanted]
    if transported:
        return transported[0]
    found = f"its {kind} topics: {', '.join(topics)}" if topics else f"its topics: {bag.listing()}"
    raise InputError(f"the bag has no {kind} topic {wanted}; {found}")


def _is_depth(bag: Bag, topic: str) -> bool:
    message = bag.first(topic)
    return message is not None and is_depth_message(message)


def _is_mono(bag: Bag, topic: str) -> bool:
    message = bag.first(topic)
    encoding = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
    return encoding.startswith(("mono", "8UC1"))
