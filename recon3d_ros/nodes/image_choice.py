# SPDX-License-Identifier: Apache-2.0
"""Which image topic a node takes: `image`, under whatever name the user gave it, else the only camera of the graph."""

from __future__ import annotations

from rclpy.node import Node

from recon3d_ros.core.config import InputParams
from recon3d_ros.core.messages import base_topic
from recon3d_ros.ros.graph import Offer, describe_choice, find_cameras, find_images, image_topics


class ImageChoice:
    """Looks at the graph; what was chosen, and that a choice is needed, is said in the log."""

    def __init__(self, node: Node, params: InputParams) -> None:
        self._node = node
        self._params = params
        self._log = node.get_logger()
        self._name = node.resolve_topic_name("image")
        self._is_given = self._name != f"{node.get_namespace().rstrip('/')}/image"

    def offer(self) -> Offer | None:
        """Who publishes the images, None while nobody does. Where `image` was not remapped and nobody publishes it, the
        only camera of the graph; of several none is taken, and a warning names them."""
        offer = find_images(self._node, "image", self._params.transport)
        if offer is not None or self._is_given:
            return offer
        cameras = find_cameras(self._node)
        if len(cameras) == 1:
            return find_images(self._node, cameras[0], self._params.transport)
        if cameras:
            self._log.warning(
                f"nobody publishes {self._name}; {describe_choice(cameras)[0]}",
                throttle_duration_sec=self._params.wait,
            )
        return None

    def say(self, image: Offer) -> None:
        """Tell the user which topic was taken in place of the one asked for, and what else is there."""
        chosen = base_topic(image.topic)
        if chosen == base_topic(self._name):
            return
        others = [topic for topic in image_topics(self._node) if base_topic(topic) != chosen]
        self._log.info(
            f"nobody publishes {self._name}: {describe_choice([image.topic])[0]}; also there: {', '.join(others) or '-'}"
        )
