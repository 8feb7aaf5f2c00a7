# SPDX-License-Identifier: Apache-2.0
"""What nodes say of themselves once a second, and the same seen from outside by `recon3d doctor --graph`."""

from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from recon3d_ros.cli.graph import table
from recon3d_ros.core.types import Tracking, Update
from recon3d_ros.nodes import health
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import transform_stamped
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.ros.survey import survey

STEP = 50_000_000
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def start(graph):
    def start(*args, create=None, wait=True):
        graph.start("-p", "backend:=geometric", "-p", "mesh.voxel_size:=0.05", *args)
        probe, mesher = graph.probe(), graph.add(MesherNode(follow=False))
        node = graph.add(ReconstructorNode(mesher, create=create or (lambda *_: graph.backend())))
        probe.listen(DiagnosticArray, "/diagnostics")
        assert graph.wait(probe.connected) if wait else True
        return probe, node, mesher

    return start


def said(probe, name):
    """All that a node said so far."""
    return [s for m in probe.heard["/diagnostics"] for s in m.status if s.name.startswith(name)]


def seen_by_survey(condition):
    """What a survey sees, repeated until it fulfils the condition: on a busy machine nodes are found late."""
    for seconds in (2.0, 4.0, 8.0, 16.0):
        seen = survey(seconds)
        if condition(seen):
            break
    return seen


def values(status):
    return {v.key: v.value for v in status.values}


def test_every_value_of_the_checklist_is_there(graph, start):
    probe, node, mesher = start()
    probe.send_info()
    for i in range(1, 6):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: node.run.state().frames == 5 and mesher.loop.mesher.keyframes == 2)
    assert graph.wait(lambda: [s for s in said(probe, "reconstructor") if values(s)["frames"] == "5"])
    status = said(probe, "reconstructor")[-1]
    assert (status.level, status.message, status.name) == (OK, "ok", "reconstructor: reconstruction")
    assert status.hardware_id
    told = values(status)
    assert told.keys() >= {
        "lifecycle", "frames", "fps", "fps_in", "fps_out", "latency_ms", "latency_p50_ms", "latency_p95_ms", "wait_ms",
        "wait_p95_ms", "decode_ms", "reconstruct_ms", "reconstruct_p95_ms", "outputs_ms", "queue", "queue_max", "dropped",
        "keyframes", "keyframe_reason", "tracking", "scale", "gravity", "map_id", "memory_mb", "store_mb", "map_mb",
        "received", "backend", "time_jumps", "under_way",
    }  # fmt: skip
    assert (told["lifecycle"], told["tracking"], told["keyframes"]) == ("active", "tracking", "2")
    assert told["keyframe_reason"] == "flow" and float(told["memory_mb"]) > 10
    assert graph.wait(lambda: [s for s in said(probe, "mesher") if values(s)["integrated"] == "2"])
    told = values(said(probe, "mesher")[-1])
    assert told.keys() >= {
        "integrate_ms",
        "integrate_p95_ms",
        "mesh_mb",
        "markers_mb",
        "triangles",
        "queue_max",
    }


def test_rates_in_and_out_are_told(graph, start):
    probe, node, _ = start()
    probe.send_info()

    def flown():
        probe.send_image(node.input.received * STEP + STEP)
        rates = [values(s) for s in said(probe, "reconstructor")]
        return any(float(r["fps_in"]) > 1 and float(r["fps_out"]) > 1 for r in rates)

    assert graph.wait(flown)


def test_a_drop_is_a_warning_for_a_second(graph, start):
    probe, node, _ = start()
    probe.send_info()
    probe.send_image(2 * STEP)
    probe.send_image(STEP)
    assert graph.wait(lambda: node.run.drops["stamp backwards"] == 1)
    warning = "dropped since the last second: stamp backwards 1"
    assert graph.wait(lambda: (WARN, warning) in [(s.level, s.message) for s in said(probe, "reconstructor")])
    assert graph.wait(lambda: said(probe, "reconstructor")[-1].level == OK)
    assert values(said(probe, "reconstructor")[-1])["dropped: stamp backwards"] == "1"


def test_lost_tracking_is_an_error(graph, start):
    class Lost(graph.backend):
        def step(self, frame):
            return [Update(0, frame.stamp_ns, None, Tracking.LOST, reason="blur")]

    probe, *_ = start(create=lambda *_: Lost())
    probe.send_info()
    probe.send_image(STEP)
    verdict = (ERROR, "tracking is lost")
    assert graph.wait(lambda: verdict in [(s.level, s.message) for s in said(probe, "reconstructor")])


def test_silence_is_an_error_that_names_what_is_missing(graph, start):
    probe, *_ = start("-p", "input.wait:=0.5")

    def told():
        return any(
            s.level == ERROR and "did not receive image" in s.message for s in said(probe, "reconstructor")
        )

    assert graph.wait(told)


def test_a_pause_is_a_warning_and_what_it_leaves_out_no_loss(graph, start):
    probe, node, _ = start()
    probe.call(SetBool, "/reconstructor/pause", SetBool.Request(data=True))
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: node._counts["paused"] == 1)
    verdict = (WARN, "paused: images are left out", "1")
    assert graph.wait(
        lambda: (
            verdict
            in [(s.level, s.message, values(s).get("dropped: paused")) for s in said(probe, "reconstructor")]
        )
    )


def test_gpu_memory_is_asked_of_what_is_loaded_already_and_in_use(monkeypatch):
    monkeypatch.setitem(health.sys.modules, "torch", None)
    monkeypatch.setitem(health.sys.modules, "cupy", None)
    assert health.gpu_mb() is None
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 1, memory_reserved=lambda _: 3 << 20
    )
    monkeypatch.setitem(health.sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert health.gpu_mb() == 3


def test_the_survey_sees_nodes_inputs_and_who_publishes_which_transform(graph, start):
    probe, node, _ = start()
    probe.send_info()
    timer = probe.create_timer(0.05, lambda: probe.send_image((node.input.received + 1) * STEP))
    assert graph.wait(lambda: node.outputs.published["/tf"] > 2 and said(probe, "mesher"))
    seen = seen_by_survey(
        lambda seen: [len(n.diagnoses) for n in seen.nodes] == [1, 1] and len(seen.links) == 2
    )
    assert [(n.name, n.lifecycle, len(n.diagnoses)) for n in seen.nodes] == [
        ("/mesher", "active", 1),
        ("/reconstructor", "active", 1),
    ]
    image = next(t for t in seen.topics if t.name == "/image")
    assert image.publishers == ["/probe (sensor_msgs/msg/Image, reliable, volatile)"]
    assert image.readers == ["/reconstructor"] and 0.5 < image.hz < 40
    assert [(link.parent, link.child, link.publishers) for link in seen.links] == [
        ("map", "odom", ["/reconstructor"]),
        ("odom", "cam", ["/reconstructor"]),
    ]
    assert seen.problems == []
    text = "\n".join(table(seen))
    assert " /reconstructor       active" in text and "problem" not in text
    probe.destroy_timer(timer)


def test_the_survey_names_frames_with_two_parents_and_qos_that_does_not_fit(graph, start):
    probe, node, _ = start("-p", "input.reliability:=reliable", "-p", "input.wait:=0.5")
    tf = probe.create_publisher(TFMessage, "/tf", qos.TF)
    other = transform_stamped(np.eye(4), STEP, "earth", "odom")
    probe.send_info()

    def send():
        probe.send_image((node.input.received + 1) * STEP)
        tf.publish(TFMessage(transforms=[other]))

    probe.create_timer(0.05, send)
    assert graph.wait(lambda: node.outputs.published["/tf"] > 2)
    probe.create_publisher(Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    seen = seen_by_survey(lambda seen: len(seen.problems) >= 2)
    assert "frame 'odom' has 2 parents: 'earth' (/probe), 'map' (/reconstructor)" in seen.problems
    pair = "/image: QoS does not fit: /probe offers best effort, volatile, /reconstructor asks reliable, volatile"
    assert pair in seen.problems
    assert any(line == f"problem  {pair}" for line in table(seen))


def test_the_survey_sees_a_node_that_waits_for_a_manager(graph):
    graph.start("-p", "backend:=geometric", "-p", "autostart:=false")
    node = graph.add(ReconstructorNode(create=lambda *_: graph.backend()))
    assert graph.wait(lambda: node.state == "unconfigured")
    seen = seen_by_survey(lambda seen: seen.nodes and not seen.problems)
    assert [(n.name, n.lifecycle) for n in seen.nodes] == [("/reconstructor", "unconfigured")]
    assert seen.problems == []
