# SPDX-License-Identifier: Apache-2.0
"""Positions of the receiver from the topic `fix` (GPS)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import NavSatFix

from recon3d_ros.core.geodesy import LocalFrame, is_fix, position_between
from recon3d_ros.core.history import History
from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.listening import IsOld, Kind, Listener

#: Fixes kept.
_KEPT = 50


class PositionInput:
    """`at` is called by the worker, messages come in callbacks. counts: messages that gave no position, by reason."""

    def __init__(self, node: ManagedNode, is_old: IsOld) -> None:
        self._world = LocalFrame()
        self.positions: History[NDArray[np.float64]] = History(_KEPT)
        kind = Kind("sensor_msgs/msg/NavSatFix", lambda: NavSatFix, self._on_fix)
        self._listener = Listener(node, "fix", "fix", (kind,), is_old)
        self.counts, self.source = self._listener.counts, self._listener.source
        self.begin, self.look = self._listener.begin, self._listener.look

    def reset(self) -> None:
        """Forget all positions, not where the first one was: time went back."""
        self.positions.clear()

    def at(self, stamp_ns: int, camera_frame: str) -> NDArray[np.float64] | None:
        """Metres [3] east, north, up of the first fix: of the antenna, which is taken for the camera's place. None without
        fixes around the stamp."""
        fixes = self.positions.last_two(stamp_ns)
        return None if fixes is None else position_between(*fixes, stamp_ns)

    def _on_fix(self, message: NavSatFix) -> None:
        place = message.latitude, message.longitude, message.altitude
        if message.status.status < 0 or not is_fix(*place):
            self.counts["no fix"] += 1
        else:
            self._listener.add(self.positions, stamp_ns(message), self._world.position(*place))
