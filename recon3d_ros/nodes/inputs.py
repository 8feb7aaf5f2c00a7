# SPDX-License-Identifier: Apache-2.0
"""What comes in: image, camera_info and depth as the graph offers them, put together into captures."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import load_camera
from recon3d_ros.core.config import InputParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.messages import camera_from_info, camera_info_topic, is_rectified, stamp_ns
from recon3d_ros.nodes.capture import Capture
from recon3d_ros.nodes.image_choice import ImageChoice
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.worker import total
from recon3d_ros.ros.graph import Offer, describe_topic, find_images, publishers
from recon3d_ros.ros.qos import input_profile
from recon3d_ros.runtime.sync import Pair, Synchroniser

#: Messages that may arrive at once: callbacks are short, but the interpreter is not always free.
_BURST = 10
#: `input.camera` for images that nothing is known of.
_GUESS = "guess"


class CameraInput:
    """Subscribes when publishers are there, so that transport and QoS fit them. Images wait for the first camera_info,
    unless `input.camera` stands for it.

    counts: messages that led to no capture, by reason. is_old: whether a message of a kind (image, depth) with this stamp
    is of the time before a jump. Raises InputError where the file `input.camera` is no calibration.
    """

    def __init__(
        self,
        node: ManagedNode,
        params: InputParams,
        needs_depth: bool,
        sink: Callable[[Capture], None],
        is_old: Callable[[str, int], bool] = lambda kind, stamp_ns: False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.received = 0
        self._node = node
        self._params = params
        self._sink = sink
        self._is_old = is_old
        self._log = node.get_logger()
        self._choice = ImageChoice(node, params)
        self._sync: Synchroniser[Any, Any] = Synchroniser(round(params.sync * 1e9))
        self._waiting: deque[Pair[Any, Any]] = deque()
        self._subscriptions: list[Any] = []
        # Until publishers are found, topics by the names that the user may remap.
        self._topics = {kind: kind for kind in ("image", "camera_info", *(["depth"] if needs_depth else []))}
        self._heard: dict[str, float] = {}
        self._since = time.monotonic()
        self._cameras: dict[str, Camera | None] = {}
        self._has_depth = False
        self._file = self._calibration(rectified=False)

    @property
    def drops(self) -> Counter[str]:
        """Messages that led to no capture or found no partner, by reason."""
        return total(self.counts, self._sync.counts)

    @property
    def is_open(self) -> bool:
        """True once subscribed."""
        return bool(self._subscriptions)

    @property
    def calibration(self) -> str:
        """What the camera of the images is known from: `camera_info`, `file`, `guessed`, or `none yet`."""
        if "camera_info" not in self._cameras:
            return "none yet"
        camera = self._cameras["camera_info"]
        return "guessed" if camera is None else "file" if camera is self._file else "camera_info"

    def image_offer(self) -> Offer | None:
        """Who publishes the images to be taken, None while nobody does."""
        return self._choice.offer()

    def depth_offer(self) -> Offer | None:
        """Who publishes depth images, None while nobody does."""
        return find_images(self._node, "depth", "auto", "compressedDepth")

    def open(self, image: Offer, depth: Offer | None) -> None:
        """Subscribe to the images of `image`, the camera_info beside them and, if given, the depth of `depth`."""
        self._has_depth = depth is not None
        self._topics = {}
        self._choice.say(image)
        self._subscribe_images("image", image, self._on_image)
        info = self._info_topic(image)
        self._file = self._calibration(is_rectified(image.topic))
        if self._params.camera and not publishers(self._node, info):
            self._cameras["camera_info"] = self._file
            self._log.info(f"nobody publishes {info}: input.camera is used ({self._params.camera})")
        else:
            self._subscribe_info("camera_info", info, is_rectified(image.topic))
        if depth is not None:
            self._subscribe_images("depth", depth, self._on_depth)
            depth_info = camera_info_topic(depth.topic)
            if depth_info != info and publishers(self._node, depth_info):
                self._subscribe_info("depth camera_info", depth_info, is_rectified(depth.topic))
        self._log.info("subscribed: " + ", ".join(f"{kind} {topic}" for kind, topic in self._topics.items()))
        self._since = time.monotonic()

    def close(self) -> None:
        """Unsubscribe, and hand over the images that still wait for depth."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._hand_over(self._sync.flush())

    def reset(self) -> None:
        """Forget what waits."""
        self._sync.reset()
        self._waiting.clear()

    def silence(self) -> str | None:
        """What to tell the user when nothing came for `input.wait` seconds on a topic that is needed; None when all is
        well. Of camera_info one message is enough."""
        now, wait = time.monotonic(), self._params.wait
        missing = [
            kind
            for kind in self._topics
            if now - self._heard.get(kind, self._since) > wait and kind not in self._cameras
        ]
        if not missing:
            return None
        lines = [line for kind in missing for line in describe_topic(self._node, self._topics[kind])]
        remedy = " Without camera_info: -p input.camera:=FILE (or guess)." if "camera_info" in missing else ""
        return (
            f"did not receive {', '.join(missing)} for {wait:g} s. Is it published, and do names (-r {missing[0]}:=/...) "
            f"and QoS fit?{remedy} Waiting for\n  " + "\n  ".join(lines)
        )

    def _calibration(self, rectified: bool) -> Camera | None:
        """The camera of the file `input.camera`, None where none is given."""
        path = self._params.camera
        return None if path in ("", _GUESS) else load_camera(path, rectified)

    def _subscribe_images(self, kind: str, offer: Offer, callback: Callable[[Any], None]) -> None:
        depth = max(self._params.queue, _BURST)
        profile = input_profile(self._params.reliability, offer.publishers, depth)
        message = CompressedImage if offer.compressed else Image
        self._topics[kind] = offer.topic
        self._subscriptions.append(self._node.add_subscription(message, offer.topic, callback, profile))

    def _subscribe_info(self, kind: str, topic: str, rectified: bool) -> None:
        profile = input_profile("auto", publishers(self._node, topic), _BURST)
        self._topics[kind] = topic

        def on_info(message: CameraInfo) -> None:
            self._on_info(kind, message, rectified)

        self._subscriptions.append(self._node.add_subscription(CameraInfo, topic, on_info, profile))

    def _info_topic(self, image: Offer) -> str:
        """The topic `camera_info`; where nobody publishes that, the one beside the images."""
        named, beside = self._node.resolve_topic_name("camera_info"), camera_info_topic(image.topic)
        return named if publishers(self._node, named) or not publishers(self._node, beside) else beside

    def _on_info(self, kind: str, message: CameraInfo, rectified: bool) -> None:
        try:
            camera = camera_from_info(message, rectified)
        except InputError as error:
            self.counts["camera_info invalid"] += 1
            self._log.error(f"{kind}: {error}", throttle_duration_sec=5.0)
            return
        if camera is None and kind == "camera_info":
            camera = self._file
        if camera is None and kind not in self._cameras:
            self._log.warning(
                f"{self._topics[kind]} is not calibrated (k[0] is 0): the focal length is guessed; "
                "give a calibration with -p input.camera:=FILE"
            )
        self._heard[kind] = time.monotonic()
        self._cameras[kind] = camera
        self._release()

    def _on_image(self, message: Any) -> None:
        self.received += 1
        stamp = self._stamp("image", message)
        if stamp and self._has_depth:
            self._hand_over(self._sync.add_image(stamp, message))
        elif stamp:
            self._hand_over([Pair(stamp, message, None)])

    def _on_depth(self, message: Any) -> None:
        stamp = self._stamp("depth", message)
        if stamp:
            self._hand_over(self._sync.add_depth(stamp, message))

    def _stamp(self, kind: str, message: Any) -> int:
        self._heard[kind] = time.monotonic()
        stamp = stamp_ns(message)
        if stamp <= 0:
            self.counts[f"{kind} without stamp"] += 1
        elif self._is_old(kind, stamp):
            self.counts[f"{kind} from before time jumped"] += 1
            return 0
        return max(stamp, 0)

    def _hand_over(self, pairs: list[Pair[Any, Any]]) -> None:
        self._waiting.extend(pairs)
        self._release()
        while len(self._waiting) > self._params.queue:
            self._waiting.popleft()
            self.counts["no camera_info"] += 1

    def _release(self) -> None:
        """Let go what waits, once every camera_info is known."""
        if not all(kind in self._cameras for kind in self._topics if kind.endswith("camera_info")):
            return
        camera, depth_camera = self._cameras["camera_info"], self._cameras.get("depth camera_info")
        while self._waiting:
            pair = self._waiting.popleft()
            self._sink(
                Capture(pair.stamp_ns, pair.image, pair.depth, camera, depth_camera, time.perf_counter())
            )
