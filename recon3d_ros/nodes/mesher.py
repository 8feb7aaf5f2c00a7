# SPDX-License-Identifier: Apache-2.0
"""The node `mesher`: keyframes in, the changed pieces of the surface out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, QoSPublisherMatchedInfo
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError, ReconError
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.types import Keyframe, MeshBlock, Pose, Scale
from recon3d_ros.mapping.export import write_ply_mesh
from recon3d_ros.mapping.warm_up import warm_up
from recon3d_ros.nodes import process
from recon3d_ros.nodes.folders import map_to_load, output_folder
from recon3d_ros.nodes.health import Health, HealthPublisher
from recon3d_ros.nodes.in_background import InBackground
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.nodes.save_mesh import LIVE, SaveMesh
from recon3d_ros.nodes.worker import total
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header
from recon3d_ros.ros.marker_cdr import MarkerWriter
from recon3d_ros.ros.messages import Keyframe as KeyframeMessage
from recon3d_ros.ros.messages import Status
from recon3d_ros.ros.parameters import declare
from recon3d_ros.runtime.mesher import MesherLoop
from recon3d_ros.runtime.metrics import stage_values
from recon3d_ros.runtime.results import prepare_folder
from recon3d_ros.runtime.saved_map import FOLDER, SURFACE
from recon3d_ros.store.reader import SegmentReader

#: Counters of the mesher that are not about keyframes.
_NOT_DROPS = ("points", "blocks")

#: How long a subscriber that is slow may hold up the mesh, for every few messages.
_PATIENCE = Duration(seconds=0.5)


class MesherNode(ManagedNode):
    """With `follow` it takes keyframes of another process by their notices; without, those that `put` hands over. loop:
    exists while the node is configured."""

    loop: MesherLoop

    def __init__(self, follow: bool = True, arguments: Sequence[str] = ()) -> None:
        super().__init__("mesher", arguments)
        self.config = declare(self, Config, (*LIVE, "map", "save_map"), self._on_change)
        process.limit(self.config)
        self._follows = follow
        if self.config.autostart:
            self.start()

    def configure(self) -> None:
        """Compile the kernels, get memory, and offer topics and services."""
        if self.config.output:
            prepare_folder(self.config.output)
        self.published: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._received = 0
        self._sequence: int | None = None
        self._stamp_ns = 0
        self._scale = Scale.UNKNOWN
        self._frame = self.config.frames.named(self.config.frames.map)
        self._reader = SegmentReader()
        self.configured.callback(self._reader.close)
        mesh = self.config.mesh
        warm_up(mesh)
        MarkerWriter.warm_up()
        self._writer = MarkerWriter(mesh.message_size, colour_per_triangle=mesh.colour_per_triangle)
        # The matched event tells of late joiners: what they missed is sent again.
        events = PublisherEventCallbacks(matched=self._on_matched)
        self._markers = self.add_publisher(MarkerArray, "~/mesh", qos.MESH, events)
        self._health = HealthPublisher(self, self._ask)
        self.loop = MesherLoop(mesh, realtime=True, sink=self._publish)
        self.configured.callback(self.loop.close)
        if self.config.map:
            self.loop.resume(Path(self.config.map) / SURFACE)
        self.add_service(Trigger, "~/reset", self._on_reset)
        self._save_mesh = SaveMesh(self, self.loop.surface, lambda: self.config)
        InBackground(self, "~/save_map", self._save_map_of_output)
        InBackground(self, "~/load_map", self._load_map_of_parameters)

    def activate(self) -> None:
        """Follow the keyframes, and show what there is of the surface instead of what viewers have from before."""
        self._shows_other = True
        if self._follows:
            self.add_subscription(KeyframeMessage, "reconstructor/keyframe", self._on_notice, qos.NOTICES)
        self._health.start()
        self.loop.republish()

    def put(self, keyframe: Keyframe) -> None:
        """Take a keyframe of this process, by reference."""
        if not self.is_active:
            return
        self._received += 1
        self._stamp_ns, self._scale = keyframe.stamp_ns, keyframe.scale
        self.loop.put(keyframe)

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Take newer poses of older keyframes."""
        if self.is_configured:
            self.loop.correct(poses)

    def reset(self) -> None:
        """Forget the surface, here and in every viewer."""
        if self.is_configured:
            self.loop.reset(then=self._clear)

    def save_map(self, folder: str | Path) -> list[str]:
        """Write the surface into the folder of a saved map; returns what failed. Callable from any thread, which waits."""
        try:
            self._write_surface(folder)
        except (OSError, ReconError) as error:
            return [self._failure(SURFACE, error)]
        return []

    def load_map(self, folder: str | Path) -> None:
        """Go on with the surface in the folder of a saved map, and show it instead of what is there; the next notice of
        another process does not end it, whatever its number. Callable from any thread. Raises ReconError."""
        self._demand_configured()
        self.loop.resume(Path(folder) / SURFACE, then=self._on_loaded)

    def finish(self) -> None:
        """Work off what waits and publish it. A mesh that is being saved is given up."""
        if not self.is_active:
            return
        self._save_mesh.close()
        self.loop.finish()
        self._health.publish()
        self._markers.wait_for_all_acked(Duration(seconds=2.0))

    def save(self) -> list[str]:
        """Write mesh.ply, and the map where `save_map` asks for it, into the folder `output`; returns what failed."""
        mesh, output = self.loop.surface(), Path(self.config.output)
        failures = []
        try:
            path = prepare_folder(output) / "mesh.ply"
            write_ply_mesh(path, mesh.vertices, mesh.triangles, mesh.colours)
        except (OSError, ReconError) as error:
            failures = [self._failure("mesh.ply", error)]
        return failures + (self.save_map(output / FOLDER) if self.config.save_map else [])

    def drops(self) -> Counter[str]:
        """Keyframes and notices given up, by reason."""
        loop = self.loop
        return total(self._counts, loop.metrics.drops, {"mesher behind": loop.dropped}, self._unused())

    def _unused(self) -> Mapping[str, int]:
        """Keyframes that were not needed or not usable, by reason."""
        counters = dict(self.loop.mesher.counters)
        return {r: n for r, n in counters.items() if not r.startswith(_NOT_DROPS)}

    def _on_notice(self, message: KeyframeMessage) -> None:
        if self._sequence is not None and message.sequence <= self._sequence:
            self.reset()  # the reconstructor began a new map, or was started again
        elif self._sequence is not None:
            self._counts["notice lost"] += message.sequence - self._sequence - 1
        self._sequence = message.sequence
        if message.action == KeyframeMessage.REMOVE:
            return
        try:
            self._follow(message)
        except (FrameError, InputError) as error:
            self._counts["notice invalid"] += 1
            self.get_logger().warning(f"keyframe {message.id}: {error}", throttle_duration_sec=5.0)

    def _follow(self, message: KeyframeMessage) -> None:
        T_map_cam = pose_from_message(message.pose)
        if message.action == KeyframeMessage.UPDATE:
            self.loop.correct({message.id: T_map_cam})
            return
        if not message.shm_name:
            raise InputError(
                "its points are in the other process: run it without a mesher of its own (not 'slam')"
            )
        fx, fy, cx, cy = message.intrinsics.tolist()
        camera = Camera(message.width, message.height, fx, fy, cx, cy)
        scale = Scale(message.scale_state) if message.scale_state in set(Scale) else Scale.UNKNOWN
        self._received += 1
        self._stamp_ns, self._scale, self._frame = stamp_ns(message), scale, message.header.frame_id
        name, size, generation = message.shm_name, message.shm_size, message.generation
        self.loop.put_lease(lambda: self._reader.read(name, size, generation, camera, scale))

    def _publish(self, blocks: list[MeshBlock]) -> None:
        if self._shows_other and self._markers.is_activated:
            self._shows_other = False
            self._send(self._writer.clear(self._stamp_ns, self._frame))
        self._send(self._writer.write(blocks, self._stamp_ns, self._frame))

    def _send(self, messages: Iterable[bytes]) -> None:
        if not self._markers.is_activated:
            return
        for number, message in enumerate(messages):
            if number and number % (qos.MESH.depth // 2) == 0:
                self._markers.wait_for_all_acked(_PATIENCE)
            self._markers.publish(message)
            self.published[self._markers.topic_name] += 1

    def _on_matched(self, change: QoSPublisherMatchedInfo) -> None:
        if change.current_count_change > 0:
            self.loop.republish()

    def _on_change(self, config: Config) -> None:
        self.config = config

    def _clear(self) -> None:
        """What viewers show is no longer true."""
        self._send(self._writer.clear(self._stamp_ns, self._frame))

    def _on_loaded(self) -> None:
        self._sequence = None
        self._clear()

    def _failure(self, name: str, error: Exception) -> str:
        line = f"{name} not written: {error}"
        self.get_logger().error(line)
        return line

    def _write_surface(self, folder: str | Path) -> Path:
        self._demand_configured()
        path = prepare_folder(folder) / SURFACE
        self.loop.save(path)
        return path

    def _demand_configured(self) -> None:
        if not self.is_configured:
            raise InputError("the mesher has no map: configure it first")

    def _save_map_of_output(self) -> str:
        return f"saved {self._write_surface(output_folder(self.config) / FOLDER)}"

    def _load_map_of_parameters(self) -> str:
        folder = map_to_load(self.config)
        self.load_map(folder)
        return f"going on with {folder / SURFACE}"

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.reset()
        response.success, response.message = True, "the mesh begins anew"
        return response

    def _ask(self) -> Health:
        loop, mesher = self.loop, self.loop.mesher
        stages = loop.metrics.stages
        integrate = stages.get("integrate")
        status = Status(
            header=header(self._stamp_ns, self._frame),
            scale_state=self._scale.value,
            frames=self._received,
            keyframes=self._received - loop.waiting - loop.dropped,
            latency_ms=integrate.p50 if integrate is not None else 0.0,
            triangles=mesher.triangles,
            blocks=mesher.blocks,
            queue=loop.waiting,
        )
        values = {
            "triangles": mesher.triangles,
            "mesh_mb": f"{mesher.memory_mb:.0f}",
            "integrated": mesher.keyframes,
            "rebuilding": mesher.rebuilding,
            "queue_max": loop.waiting_most,
            "markers_mb": f"{mesher.triangles * self._writer.triangle_bytes / 1e6:.1f}",
            **stage_values(stages),
            **dict(mesher.counters),
        }
        unused = frozenset(self._unused())
        return Health("mesh", status, self.drops(), self._received, mesher.keyframes, unused, values=values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal; where `output` is set, save the mesh then."""

    def make(stop: process.Stop) -> process.Session:
        node = MesherNode()

        def finish() -> list[str]:
            node.finish()
            return node.save() if node.config.output and node.is_configured else []

        return process.Session([node], finish)

    return process.run(make, arguments)


if __name__ == "__main__":
    sys.exit(main())
