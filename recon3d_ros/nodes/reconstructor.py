# SPDX-License-Identifier: Apache-2.0
"""The node `reconstructor`: images in; poses, TF, keyframes and clouds out."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from std_srvs.srv import SetBool, Trigger

from recon3d_ros.backends import registry
from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Frame, Tracking
from recon3d_ros.nodes import process, saving
from recon3d_ros.nodes.aiding import AidingInputs
from recon3d_ros.nodes.capture import Capture
from recon3d_ros.nodes.health import Health, HealthPublisher
from recon3d_ros.nodes.in_background import InBackground
from recon3d_ros.nodes.inputs import CameraInput
from recon3d_ros.nodes.jumps import TimeJumps
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.outputs import Consumer, StepPublisher
from recon3d_ros.nodes.worker import LiveRun, total
from recon3d_ros.ros.convert import header
from recon3d_ros.ros.messages import Status
from recon3d_ros.ros.parameters import declare
from recon3d_ros.runtime.pipeline import Pipeline, Step
from recon3d_ros.runtime.results import Results, prepare_folder
from recon3d_ros.runtime.saved_map import SavedMap
from recon3d_ros.runtime.warm_up import warm_up
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.store.shared import SharedArena

#: Parameters that may change while the node runs.
LIVE = (
    "output",
    "map",
    "save_map",
    "on_time_jump",
    "frames.publish_tf",
    "frames.publish_odom_tf",
    "cloud.stride",
    "cloud.publish_rate",
)

#: What is said when time went back.
_AFTER_JUMP = {
    "reset": "the map begins anew",
    "continue": "the map goes on",
    "new_map": "another map begins, those so far are kept",
}

#: Images left out because the user wants it so.
_NO_LOSS = frozenset({"paused"})

#: Seconds between looks at the graph and at what arrived.
_LOOK = 0.25

Create = Callable[[str, Config, bool], Reconstructor]


class ReconstructorNode(ManagedNode):
    """With a `consumer`, keyframes stay in this process and are handed to it by reference; without one they lie in shared
    memory. `create` makes the backend. run, outputs and input exist while the node is configured. backend: its name, "auto"
    until that is decided. begins_with: a saved map, until the first image comes."""

    backend: str
    begins_with: SavedMap | None
    run: LiveRun | None = None
    outputs: StepPublisher
    input: CameraInput

    def __init__(
        self,
        consumer: Consumer | None = None,
        create: Create = registry.create,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("reconstructor", arguments)
        self.config = declare(self, Config, LIVE, self._on_change)
        process.limit(self.config)
        self._create = create
        self.consumer = consumer
        if self.config.autostart:
            self.start()

    def configure(self) -> None:
        """Load the model, unless it depends on what will be offered, and offer topics and services."""
        if self.config.output:
            prepare_folder(self.config.output)
        params = self.config.input
        asked = self.config.backend
        self.begins_with = SavedMap.read(self.config.map, asked) if self.config.map else None
        self.backend = self.begins_with.backend if self.begins_with is not None else asked
        self._counts: Counter[str] = Counter()
        self._is_paused = self._was_offered = False
        self._jumps = TimeJumps(self, self._on_jump)
        is_old = self._jumps.is_old
        self._aiding = AidingInputs(self, self.config, is_old)
        transforms, places_body = self._aiding.transforms, self._aiding.prior_has_no_tf
        self.outputs = StepPublisher(self, self.config, transforms, self.consumer, places_body)
        self.input = CameraInput(self, params, self.backend == "rgbd", self._on_capture, is_old)
        self._health = HealthPublisher(self, self._ask)
        if self.backend != "auto":
            self._begin()
        self.add_service(Trigger, "~/reset", self._on_reset)
        self.add_service(SetBool, "~/pause", self._on_pause)
        InBackground(self, "~/save_map", lambda: saving.save_now(self))
        InBackground(self, "~/load_map", lambda: saving.load(self))

    def activate(self) -> None:
        """Listen to transforms and poses, and look out for a camera."""
        self._aiding.listen()
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
        results = self.run.results(source, self.backend, self._drops())
        report = dataclasses.replace(results.report, published=dict(self.outputs.published))
        return dataclasses.replace(results, report=report)

    def _begin(self) -> None:
        """Make the backend and the thread that runs it."""
        if self._create is registry.create:
            warm_up(self.backend, self.config)
        reconstructor = self._create(self.backend, self.config, True)
        params = self.config.store
        arena = HeapArena() if self.consumer else SharedArena(params.slots, params.lease_timeout)
        store = KeyframeStore(arena, params, self.config.cloud)
        pipeline = Pipeline(self.config, reconstructor, store)

        def publish(step: Step, frame: Frame | None) -> None:
            self.outputs.publish(step, frame, store)

        self.run = LiveRun(self.config, pipeline, publish, self.outputs.reset, self._aiding.aids)
        self.configured.callback(self._end)
        if self.begins_with is not None:
            self.begins_with.resume(pipeline)
            self.begins_with = None

    def _end(self) -> None:
        """Stop the thread, free backend and shared memory."""
        if self.run is not None:
            self.run.close()
        self.run = None

    def _look(self) -> None:
        if self.run is not None and self.run.refused is not None:
            return self._give_up(self.run.refused)
        self._aiding.look()
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
            if self.backend == "auto":
                self.backend, why = registry.choose("auto", depth is not None, self.config)
                self.get_logger().info(f"backend {self.backend} ({why})")
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

    def _on_jump(self) -> None:
        policy = self.config.on_time_jump
        self.get_logger().warning(f"time jumped back: {_AFTER_JUMP[policy]}")
        self.input.reset()
        self._aiding.reset()
        if self.run is not None:
            self.run.jump(policy)

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

    def _drops(self) -> Counter[str]:
        """What never came to the worker, by reason."""
        return total(self._counts, self.input.drops, self._aiding.counts)

    def _ask(self) -> Health:
        drops = self._drops()
        values: dict[str, object] = {"received": self.input.received, "backend": self.backend}
        values |= {"calibration": self.input.calibration, "time_jumps": self._jumps.count}
        values |= self._aiding.values()
        status, done = Status(state=Tracking.INITIALISING.value), 0
        error = (self.input.silence() or "").partition(" Waiting for")[0]
        if self.run is not None:
            state = self.run.state()
            drops, done = total(drops, self.run.drops), self.run.done
            values |= self.run.values()
            status = Status(
                header=header(state.stamp_ns, self.config.frames.named(self.config.frames.map)),
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
            error = error or ("tracking is lost" if state.tracking is Tracking.LOST else "")
        return Health(
            "reconstruction",
            status,
            drops,
            self.input.received,
            done,
            harmless=_NO_LOSS.union(self._aiding.counts),  # those are no images
            error=error,
            warning="paused: images are left out" if self._is_paused else "",
            values={"tracking": status.state, **values},
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal; where `output` is set, save what it has then."""

    def make(stop: process.Stop) -> process.Session:
        node = ReconstructorNode()

        def finish() -> list[str]:
            node.finish()
            return saving.save_all(node)

        return process.Session([node], finish)

    return process.run(make, arguments)


if __name__ == "__main__":
    sys.exit(main())
