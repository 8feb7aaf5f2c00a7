# SPDX-License-Identifier: Apache-2.0
"""The life of a managed node (design.ros2.org, "Managed nodes"): what exists in which state, and how a failure ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from recon3d_ros.core.errors import ReconError
from recon3d_ros.ros.graph import incompatible

_DONE, _FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.ERROR


class ManagedNode(LifecycleNode):
    """Derived classes say what `configure`, `activate` and `deactivate` do. What they make with `add_*` goes by itself:
    publishers and services at cleanup, subscriptions and timers at deactivation; so does what they leave to the stacks
    `configured` and `active`.

    A step that raises leads through error processing, which frees everything, to `unconfigured`; failure: what it raised.
    under_way: names of services that work in the background. arguments: for this node alone, as they stand behind
    --ros-args; they come before those of the process.
    """

    def __init__(self, name: str, arguments: Sequence[str] = ()) -> None:
        self.configured, self.active = ExitStack(), ExitStack()
        self.failure: Exception | None = None
        self.under_way: set[str] = set()
        self._is_destroyed = False
        super().__init__(
            name,
            cli_args=["--ros-args", *arguments] if arguments else None,
            automatically_declare_parameters_from_overrides=True,
        )

    def configure(self) -> None:
        """Load models, get memory, make publishers and services."""

    def activate(self) -> None:
        """Begin to listen."""

    def deactivate(self) -> None:
        """What must be done before the node falls silent."""

    @property
    def state(self) -> str:
        """Of the life of the node, such as `inactive`."""
        return "finalized" if self._is_destroyed else str(self._state_machine.current_state[1])

    @property
    def is_active(self) -> bool:
        """True while the node listens and speaks."""
        return self.state == "active"

    @property
    def is_configured(self) -> bool:
        """True while models, memory and publishers are there."""
        return self.state in ("inactive", "active", "activating", "deactivating")

    def start(self) -> None:
        """Do what a manager would ask for: configure and activate. Raises what failed."""
        for step in (self.trigger_configure, self.trigger_activate):
            if step() is not _DONE:
                raise self.failure or RuntimeError(f"{self.get_name()} did not start")

    def fail(self, error: Exception) -> None:
        """Give up while active: error processing frees everything."""
        self.failure = error
        self.trigger_deactivate()

    def destroy_node(self) -> None:
        """Free everything, whatever the state."""
        self._free()
        super().destroy_node()
        if not self._is_destroyed:
            self._is_destroyed = True
            self._state_machine.destroy_when_not_in_use()  # while it lives, others see the node

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.failure = None
        return self._do(self.configure, partial(super().on_configure, state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        # Publishers first: what `activate` begins may publish.
        return self._do(partial(super().on_activate, state), self.activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.failure is not None:
            return self._failed(self.failure)
        return self._do(self.deactivate, self.active.close, partial(super().on_deactivate, state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._do(partial(super().on_cleanup, state), self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._do(partial(super().on_shutdown, state), self._free)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._do(self._free)

    def add_publisher(
        self, message: Any, topic: str, profile: QoSProfile, events: PublisherEventCallbacks | None = None
    ) -> LifecyclePublisher[Any]:
        """A publisher that is silent while the node is not active."""
        events = events or PublisherEventCallbacks()
        events.incompatible_qos = lambda _: self._warn(self.resolve_topic_name(topic))
        publisher = self.create_lifecycle_publisher(
            message,
            topic,
            copy(profile),  # overrides are written into it
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.configured.callback(self.destroy_lifecycle_publisher, publisher)
        return publisher

    def add_service(
        self, kind: Any, name: str, callback: Callable[..., Any], group: CallbackGroup | None = None
    ) -> None:
        """A service that exists while the node is configured."""
        service = self.create_service(kind, name, callback, callback_group=group)
        self.configured.callback(self.destroy_service, service)

    def add_subscription(
        self, message: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> Subscription[Any]:
        """A subscription that exists while the node is active."""
        subscription = self.create_subscription(
            message,
            topic,
            callback,
            copy(profile),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda _: self._warn(self.resolve_topic_name(topic))
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.active.callback(self.destroy_subscription, subscription)
        return subscription

    def add_timer(self, period: float, callback: Callable[[], None]) -> None:
        """A timer that runs while the node is active, by the wall: with use_sim_time and a clock that stands still, this is
        when a look around is needed most."""
        timer = self.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.active.callback(self.destroy_timer, timer)

    def _do(self, *steps: Callable[[], Any]) -> TransitionCallbackReturn:
        try:
            for step in steps:
                step()
        except Exception as error:  # rclpy would say nothing of it
            return self._failed(error)
        return _DONE

    def _failed(self, error: Exception) -> TransitionCallbackReturn:
        self.failure = error
        text = str(error) if isinstance(error, ReconError) else f"{type(error).__name__}: {error}"
        self.get_logger().error(f"{text}; the node is unconfigured now")
        return _FAILED

    def _free(self) -> None:
        self.active.close()
        self.configured.close()

    def _warn(self, topic: str) -> None:
        self.get_logger().warning(incompatible(self, topic))
