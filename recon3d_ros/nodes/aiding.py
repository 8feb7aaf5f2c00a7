# SPDX-License-Identifier: Apache-2.0
"""The sensors beside the camera: poses, positions, gravity, and the transforms between their frames."""

from __future__ import annotations

from collections import Counter

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.nodes.capture import Aids, nothing
from recon3d_ros.nodes.fix import PositionInput
from recon3d_ros.nodes.imu import GravityInput
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.listening import IsOld
from recon3d_ros.nodes.prior import PosePrior
from recon3d_ros.nodes.worker import total
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.ros.tf import Transforms


class AidingInputs:
    """Topics that are listened to where they are published and the parameters do not say otherwise; aids: what they know.

    transforms: of /tf_static, and of /tf where something may move against the camera.
    """

    def __init__(self, node: ManagedNode, config: Config, is_old: IsOld) -> None:
        if config.input.prior_frame and not config.prior:
            raise InputError("input.prior_frame is set, but no prior is asked for: add -p prior:=true")
        self._node = node
        self._config = config
        self.transforms = Transforms(config.frames.named, _own_worlds(config), is_old)
        self.prior = PosePrior(node, config, self.transforms, is_old) if config.prior else None
        self._gravity = GravityInput(node, config, self.transforms, is_old) if config.scale.imu else None
        self._position = PositionInput(node, is_old) if config.scale.gps else None
        self._inputs = [i for i in (self.prior, self._gravity, self._position) if i is not None]
        self.aids = Aids(*(i.at if i else nothing for i in (self.prior, self._position, self._gravity)))

    @property
    def counts(self) -> Counter[str]:
        """Messages and look-ups that gave nothing, by reason."""
        return total(self.transforms.counts, *(each.counts for each in self._inputs))

    def prior_has_no_tf(self) -> bool:
        """Whether poses from outside are of a kind that comes without its transform on /tf."""
        return self.prior is not None and self.prior.has_no_tf

    def values(self) -> dict[str, object]:
        """What of it is heard, for the diagnostics."""
        heard = {"prior": self.prior, "fix": self._position, "imu": self._gravity}
        return {name: each.source() if each else "off" for name, each in heard.items()}

    def listen(self) -> None:
        """The node was activated: subscribe, as topics appear, until it is deactivated."""
        config = self._config
        self._node.add_subscription(TFMessage, "/tf_static", self.transforms.add, qos.TF_STATIC)
        if config.prior or config.frames.base:
            self._node.add_subscription(TFMessage, "/tf", self.transforms.add_moving, qos.TF)
        for each in self._inputs:
            each.begin()
        self.look()

    def look(self) -> None:
        """Subscribe to what is published by now."""
        for each in self._inputs:
            each.look()

    def reset(self) -> None:
        """Forget what was heard: time went back."""
        self.transforms.forget_moving()
        for each in self._inputs:
            each.reset()


def _own_worlds(config: Config) -> set[str]:
    """Frames below which this node places others: what it says itself must not come back as knowledge."""
    frames = config.frames
    return {frames.named(frame) for frame in (frames.map, frames.odom)} - {
        frames.named(config.input.prior_frame)
    }
