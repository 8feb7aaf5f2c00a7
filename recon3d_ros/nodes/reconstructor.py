# SPDX-License-Identifier: Apache-2.0
"""The node `reconstructor`: images in; poses, TF, keyframes and clouds out."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from std_srvs.srv import SetBool, Trigger

from recon3d_ros.backends import registry
from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.core.types import Frame, Tracking
from recon3d_ros.nodes import process
from recon3d_ros.nodes.capture import Capture, no_prior
from recon3d_ros.nodes.health import Health, HealthPublisher
from recon3d_ros.nodes.inputs import CameraInput
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.outputs import Consumer, StepPublisher
from recon3d_ros.nodes.prior import OdometryPrior
from recon3d_ros.nodes.worker import LiveRun, total
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header
from recon3d_ros.ros.messages import Status, TFMessage
from recon3d_ros.ros.parameters import declare
from recon3d_ros.ros.tf import StaticTransforms
from recon3d_ros.runtime.pipeline import Pipeline, Step
from recon3d_ros.runtime.results import Results, prepare_folder, save
from recon3d_ros.runtime.warm_up import warm_up
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.store.shared import SharedArena

#: Parameters that may change while the node runs.
LIVE = ("output", "frames.publish_tf", "frames.publish_odom_tf", "cloud.stride")

#: Seconds between looks at the graph and at what arrived.
_LOOK = 0.25

Create = Callable[[str, Config, bool], Reconstructor]


class ReconstructorNode(ManagedNode):
    """With a `consumer`, keyframes stay in this process and are handed to it by reference; without one they lie in shared
    memory. `create` makes the backend. run, outputs and input exist while the node is configured."""

    run: LiveRun | None = None
    outputs: StepPublisher
    input: CameraInput

    def __init__(self, consumer: Consumer | None = None, create: Create = registry.create) -> None:
        super().__init__("reconstructor")
        self.config = declare(self, Config, LIVE, self._on_change)
        self._create = create
        self._consumer = consumer
        self._has_jumped = False
        if self.config.autostart:
            self.start()

    def configure(self) -> None:
        """Load the model, unless it depends on what will be offered, and offer topics and services."""
        if self.config.output:
            prepare_folder(self.config.output)
        params = self.config.input
        self._backend = self.config.backend
        self._counts: Counter[str] = Counter()
        self._is_paused = self._was_offered = False
        self._transforms = StaticTransforms()
        self.outputs = StepPublisher(self, self.config, self._transforms, self._consumer)
        self._prior = OdometryPrior(self, params, self._transforms) if self.config.prior else None
        self.input = CameraInput(self, params, self._backend == "rgbd", self._on_capture)
        self._health = HealthPublisher(self, self._ask)
        if self._backend != "auto":
            self._begin()
        self.add_service(Trigger, "~/reset", self._on_reset)
        self.add_service(SetBool, "~/pause", self._on_pause)
        self.add_service(Trigger, "~/save_map", self._on_save)

    def activate(self) -> None:
        """Listen to transforms, poses and the clock, and look out for a camera."""
        self.add_subscription(TFMessage, "/tf_static", self._transforms.add, qos.TF_STATIC)
        if self._prior is not None:
            self._prior.listen()
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-0.1))
        jumps = self.get_clock().create_jump_callback(backwards, post_callback=self._on_jump)
        self.active.callback(jumps.unregister)
        self._health.start()
        self.add_timer(_LOOK, self._look)

    def deactivate(self) -> None:
        """Let go of the camera; the map stays, and nothing comes of what still waits."""
        self.input.close()
        if self.run is not None:
            self.run.rest()

    def finish(self) -> None:
        """Work off what waits, and publish it."""
        if self.run is not None and self.is_active:
            self.input.close()
            self.run.finish()
            self._health.publish()
            self.outputs.flush()

    def results(self) -> Results | None:
        """All that was reconstructed so far, without a mesh; None while nothing has begun."""
        if self.run is None:
            return None
        source = f"ROS topic {self.resolve_topic_name('image')}"
        results = self.run.results(source, self._backend, self._drops())
        report = dataclasses.replace(results.report, published=dict(self.outputs.published))
        return dataclasses.replace(results, report=report)

    def _begin(self) -> None:
        """Make the backend and the thread that runs it."""
        if self._create is registry.create:
            warm_up(self._backend, self.config)
        reconstructor = self._create(self._backend, self.config, True)
        params = self.config.store
        arena = HeapArena() if self._consumer else SharedArena(params.slots, params.lease_timeout)
        store = KeyframeStore(arena, params, self.config.cloud)
        pipeline = Pipeline(self.config, reconstructor, store)

        def publish(step: Step, frame: Frame | None) -> None:
            self.outputs.publish(step, frame, store)

        prior_at = self._prior.at if self._prior else no_prior
        self.run = LiveRun(self.config, pipeline, publish, self.outputs.reset, prior_at)
        self.configured.callback(self._end)

    def _end(self) -> None:
        """Stop the thread, free backend and shared memory."""
        if self.run is not None:
            self.run.close()
        self.run = None

    def _look(self) -> None:
        if self._has_jumped:
            self._has_jumped = False
            self.get_logger().warning("time jumped back: the map begins anew")
            self._reset()
        if self.run is not None and self.run.refused is not None:
            return self._give_up(self.run.refused)
        if not self.input.is_open:
            self._open()
        silence = self.input.silence()
        if silence:
            self.get_logger().warning(silence, throttle_duration_sec=self.config.input.wait)
        self.outputs.publish_path()

    def _open(self) -> None:
        image, depth = self.input.image_offer(), self.input.depth_offer()
        # Topics of one driver appear one after the other: decide at the second look.
        if image is None or not self._was_offered:
            self._was_offered = image is not None
            return
        if self.run is None:
            self._backend, why = registry.choose("auto", depth is not None, self.config)
            self.get_logger().info(f"backend {self._backend} ({why})")
            self._begin()
        assert self.run is not None
        wants_depth = self.run.pipeline.reconstructor.capabilities.needs_depth
        if depth is not None or not wants_depth:
            self.input.open(image, depth if wants_depth else None)

    def _give_up(self, error: InputError) -> None:
        """No frame will ever do: with a manager the node is unconfigured then, without one the process ends."""
        self.fail(error)
        if self.config.autostart:
            raise error

    def _on_capture(self, capture: Capture) -> None:
        if self._is_paused:
            self._counts["paused"] += 1
        elif self.run is not None:
            self.run.put(capture)

    def _on_change(self, config: Config) -> None:
        self.config = config
        if self.run is not None:
            self.outputs.config = config

    def _on_jump(self, jump: Any) -> None:
        self._has_jumped = True

    def _reset(self) -> None:
        self.input.reset()
        if self.run is not None:
            self.run.reset()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._reset()
        response.success, response.message = True, "the map begins anew"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._is_paused = request.data
        response.success, response.message = (
            True,
            "paused: images are left out" if request.data else "going on",
        )
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        folder, results = self.config.output, self.results()
        if not folder or results is None:
            response.message = (
                "no images came yet" if folder else "set the parameter 'output' to a folder first"
            )
            return response
        try:
            failures = save(results, folder)
        except ReconError as error:
            failures = [str(error)]
        response.success = not failures
        response.message = "; ".join(failures) or f"saved in {folder}"
        return response

    def _drops(self) -> Counter[str]:
        """What never came to the worker, by reason."""
        return total(self._counts, self.input.drops, self._prior.counts if self._prior else {})

    def _ask(self) -> Health:
        drops = self._drops()
        values: dict[str, object] = {"received": self.input.received, "backend": self._backend}
        status = Status(state=Tracking.INITIALISING.value)
        problem = (self.input.silence() or "").partition("\n")[0]
        if self.run is not None:
            state = self.run.state()
            drops = total(drops, self.run.drops)
            values["queue_max"] = self.run.queue.high_water
            status = Status(
                header=header(state.stamp_ns, self.config.frames.map),
                state=state.tracking.value,
                scale_state=state.scale,
                gravity_state=state.gravity,
                keyframe_reason=state.reason,
                frames=state.frames,
                tracked=state.tracked,
                keyframes=state.keyframes,
                points=state.points,
                fps=state.fps,
                latency_ms=state.latency_ms,
                queue=state.queue,
            )
            problem = problem or ("tracking is lost" if state.tracking is Tracking.LOST else "")
        return Health("reconstruction", status, drops, problem, {"tracking": status.state, **values})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal; where `output` is set, save what it has then."""

    def make(stop: process.Stop) -> process.Session:
        node = ReconstructorNode()

        def finish() -> list[str]:
            node.finish()
            results = node.results()
            return save(results, node.config.output) if results is not None and node.config.output else []

        return process.Session([node], finish)

    return process.run(make, arguments)


if __name__ == "__main__":
    sys.exit(main())
