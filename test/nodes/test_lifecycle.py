# SPDX-License-Identifier: Apache-2.0
"""Managed nodes: what is there in each state, silence when inactive, and how a failure ends."""

import os

import pytest
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import Status

STEP = 50_000_000
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN


def state(probe, name):
    return probe.call(GetState, f"{name}/get_state", GetState.Request()).current_state.label


@pytest.fixture
def start(graph):
    """A reconstructor that a manager drives, in whose backend `made` appears."""

    def start(*args, create=None):
        graph.start("-p", "backend:=geometric", "-p", "autostart:=false", *args)
        probe = graph.probe()
        node = graph.add(ReconstructorNode(create=create or (lambda *_: graph.backend())))
        return probe, node

    return start


def test_without_autostart_each_step_is_that_of_a_manager(graph, start, segments):
    made = []
    probe, node = start(create=lambda *_: made.append(graph.backend()) or made[-1])
    assert state(probe, "reconstructor") == "unconfigured" and not made
    assert not node.count_publishers("/reconstructor/pose")
    assert probe.transition("reconstructor", CONFIGURE) and state(probe, "reconstructor") == "inactive"
    assert made and segments(os.getpid()) and node.count_publishers("/reconstructor/pose")
    assert not graph.wait(probe.connected, 0.8)
    assert probe.transition("reconstructor", ACTIVATE) and state(probe, "reconstructor") == "active"
    assert graph.wait(probe.connected)
    assert probe.transition("reconstructor", DEACTIVATE)
    assert graph.wait(lambda: not probe.images.get_subscription_count())
    assert probe.transition("reconstructor", CLEANUP) and state(probe, "reconstructor") == "unconfigured"
    assert node.run is None and not segments(os.getpid())
    assert graph.wait(lambda: not node.count_publishers("/reconstructor/pose"))
    assert probe.transition("reconstructor", SHUTDOWN) and state(probe, "reconstructor") == "finalized"


def test_an_inactive_node_is_silent_and_its_map_goes_on_later(graph, start):
    probe, node = start()
    probe.listen(PoseStamped, "reconstructor/pose")
    probe.listen(Status, "reconstructor/status")
    assert probe.transition("reconstructor", CONFIGURE, ACTIVATE)
    assert graph.wait(probe.connected) and graph.wait(lambda: node.count_subscribers("/reconstructor/pose"))
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: probe.heard["reconstructor/pose"] and probe.heard["reconstructor/status"])
    assert probe.transition("reconstructor", DEACTIVATE)
    heard = {topic: len(messages) for topic, messages in probe.heard.items()}
    probe.send_image(2 * STEP)
    assert not graph.wait(lambda: {t: len(m) for t, m in probe.heard.items()} != heard, 1.5)
    assert probe.transition("reconstructor", ACTIVATE) and graph.wait(probe.connected)
    probe.send_info()
    probe.send_image(3 * STEP)
    assert graph.wait(lambda: len(probe.heard["reconstructor/pose"]) == 2)
    assert node.run.state().frames == 2


def test_a_step_that_fails_frees_everything_and_tells_the_reason(graph, start, segments, capfd):
    def create(*_):
        raise InputError("these weights do not fit")

    probe, node = start(create=create)
    assert not probe.transition("reconstructor", CONFIGURE)
    assert state(probe, "reconstructor") == "unconfigured"
    assert str(node.failure) == "these weights do not fit"
    assert "these weights do not fit; the node is unconfigured now" in capfd.readouterr().err
    assert not segments(os.getpid()) and not node.count_publishers("/reconstructor/pose")
    assert not probe.transition("reconstructor", ACTIVATE)


def test_a_backend_that_refuses_all_frames_leads_to_the_error_state(graph, start):
    class Refusing(graph.backend):
        def step(self, frame):
            raise InputError("another camera")

    probe, node = start(create=lambda *_: Refusing())
    assert probe.transition("reconstructor", CONFIGURE, ACTIVATE)
    assert graph.wait(probe.connected)
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: state(probe, "reconstructor") == "unconfigured")
    assert str(node.failure) == "another camera" and node.run is None


def test_with_autostart_a_failure_ends_the_node(graph, segments):
    graph.start("-p", "backend:=geometric")

    def create(*_):
        raise InputError("these weights do not fit")

    with pytest.raises(InputError, match="these weights do not fit"):
        ReconstructorNode(create=create)
    assert not segments(os.getpid())


def test_a_mesher_made_active_again_shows_the_surface_again(graph):
    graph.start(
        "-p", "backend:=geometric", "-p", "mesh.voxel_size:=0.05", "-p", "mesh.publish_rate:=20.0",
        "-p", "mesh.min_weight:=1.0", "-p", "mesher:autostart:=false",
    )  # fmt: skip
    mesher, probe = graph.add(MesherNode(follow=False)), graph.probe()
    node = graph.add(ReconstructorNode(mesher, create=lambda *_: graph.backend()))
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    assert graph.wait(probe.connected)
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: node.run.state().keyframes == 1)
    assert probe.transition("mesher", CONFIGURE, ACTIVATE)
    for i in range(2, 5):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: mesher.loop.mesher.triangles and not mesher.loop.waiting)
    assert probe.transition("mesher", DEACTIVATE)

    def all_heard():
        return len(probe.heard["mesher/mesh"]) == mesher.published["/mesher/mesh"]

    assert graph.wait(all_heard)
    shown = len(probe.heard["mesher/mesh"])
    assert probe.transition("mesher", ACTIVATE)
    assert graph.wait(lambda: len(probe.heard["mesher/mesh"]) >= shown + 2 and all_heard())
    anew = probe.heard["mesher/mesh"][shown:]
    assert anew[0].markers[0].action == Marker.DELETEALL
    assert sum(len(m.points) for a in anew for m in a.markers) == 3 * mesher.loop.mesher.triangles
    assert probe.transition("mesher", DEACTIVATE, CLEANUP)
    assert probe.transition("mesher", CONFIGURE)
    assert mesher.loop.mesher.triangles == 0


def test_subscribers_that_ask_for_more_are_named(graph, start, capfd):
    probe, _node = start("-p", "qos_overrides./reconstructor/pose.publisher.reliability:=best_effort")
    assert probe.transition("reconstructor", CONFIGURE)
    probe.listen(PoseStamped, "reconstructor/pose")
    told = []

    def warned():
        told.append(capfd.readouterr().err)
        text = "".join(told)
        return "/reconstructor offers best effort, volatile, /probe asks reliable, volatile" in text

    assert graph.wait(warned)


def test_a_publisher_whose_qos_does_not_fit_is_named(graph, start, capfd):
    probe, _node = start("-p", "input.reliability:=reliable")
    assert probe.transition("reconstructor", CONFIGURE, ACTIVATE)
    probe.leave(probe.images)
    probe.images = probe.create_publisher(
        Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    told = []

    def warned():
        told.append(capfd.readouterr().err)
        return "/probe offers best effort, volatile, /reconstructor asks reliable, volatile" in "".join(told)

    assert graph.wait(warned)
