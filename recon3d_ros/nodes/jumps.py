# SPDX-License-Identifier: Apache-2.0
"""ROS time that goes back: a bag begins again, or a simulator is reset."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration

from recon3d_ros.nodes.lifecycle import ManagedNode

#: Steps back that are smaller are not noticed: clocks of real sensors are set now and then.
_SMALLEST = Duration(seconds=-0.1)

#: Seconds of the wall during which messages of the time before may still arrive.
_ON_THEIR_WAY = 2.0


class TimeJumps:
    """Calls `then` when ROS time goes back or changes its source, from configure to cleanup; `then` must be quick.

    Topics overtake each other: messages of the time before may come after the clock of the new one. `is_old` tells them.
    count: jumps that were followed.
    """

    def __init__(self, node: ManagedNode, then: Callable[[], None]) -> None:
        self.count = 0
        self._clock = node.get_clock()
        self._then = then
        self._before = 0
        self._until = 0.0
        self._arrived: set[str] = set()
        threshold = JumpThreshold(min_forward=None, min_backward=_SMALLEST)
        handle = self._clock.create_jump_callback(threshold, post_callback=self._on_jump)
        node.configured.callback(handle.unregister)

    def is_old(self, kind: str, stamp_ns: int) -> bool:
        """Whether a message with this stamp was sent before the last jump. Of each kind, the first that was not is the last
        that is asked for."""
        if time.monotonic() > self._until or kind in self._arrived:
            return False
        old = abs(stamp_ns - self._before) < abs(stamp_ns - self._clock.now().nanoseconds)
        if not old:
            self._arrived.add(kind)
        return old

    def _on_jump(self, jump: TimeJump) -> None:
        self._before = self._clock.now().nanoseconds - jump.delta.nanoseconds
        self._until = time.monotonic() + _ON_THEIR_WAY
        self._arrived.clear()
        self._then()
        self.count += 1
