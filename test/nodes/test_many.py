# SPDX-License-Identifier: Apache-2.0
"""Two drones in one graph: each has its own map, nothing of it crosses to the other, and one ends without the other."""

import dataclasses

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header
from recon3d_ros.ros.messages import Keyframe, TFMessage
from recon3d_ros.store.files import SHM

STEP = 50_000_000
TOPICS = {
    "reconstructor/pose": (PoseStamped, qos.OUTPUT),
    "reconstructor/cloud": (PointCloud2, qos.OUTPUT),
    "reconstructor/keyframe": (Keyframe, qos.NOTICES),
    "mesher/mesh": (MarkerArray, qos.MESH),
}


class Drone:
    """Reconstructor, mesher and camera in one namespace. Its wall stands at `depth`, its images have one `colour`, its
    stamps are odd or even."""

    def __init__(self, graph, name, number, depth, colour, focal):
        self.name, self.number, self.graph = name, number, graph
        self.image = np.full((24, 32, 3), colour, np.uint8)
        self.k = (focal, 0.0, 15.5, 0.0, focal, 11.5, 0.0, 0.0, 1.0)
        self.seen = seen = []

        class Backend(graph.backend):
            def step(self, frame):
                seen.append((frame.camera.fx, tuple(frame.image[0, 0].tolist()), frame.frame_id))
                (update,) = super().step(frame)
                wall = None if update.depth is None else np.full((24, 32), depth, np.float32)
                return [dataclasses.replace(update, depth=wall)]

        arguments = ("-r", f"__ns:=/{name}", "-p", f"frames.prefix:={name}/")
        self.mesher = graph.add(MesherNode(arguments=arguments))
        self.node = graph.add(ReconstructorNode(create=lambda *_: Backend(), arguments=arguments))
        self.probe = graph.probe(name)
        for topic, (message, profile) in TOPICS.items():
            self.probe.listen(message, topic, profile)
        self.heard = self.probe.heard

    def is_ready(self):
        return self.probe.connected() and all(self.probe.count_publishers(topic) for topic in TOPICS)

    def stamp(self, i):
        return i * STEP + self.number

    def fly(self, first, count):
        self.probe.send_info(self.k)
        for i in range(first, first + count):
            self.probe.send_image(self.stamp(i), self.image, header=header(self.stamp(i), "cam"))
        expected = self.stamp(first + count - 1)
        assert self.graph.wait(lambda: self.stamps("reconstructor/pose")[-1:] == [expected])

    def stamps(self, topic):
        return [stamp_ns(message) for message in self.heard[topic]]

    def segments(self):
        """Files in shared memory that its keyframes lie in."""
        return {m.shm_name for m in self.heard["reconstructor/keyframe"] if (SHM / m.shm_name).exists()}

    def stop(self):
        down = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
        for name in ("reconstructor", "mesher"):
            assert self.probe.transition(f"/{self.name}/{name}", *down)


@pytest.fixture
def drones(graph):
    graph.start(
        "-p", "backend:=geometric", "-p", "mesh.publish_rate:=20.0", "-p", "mesh.voxel_size:=0.05",
        "-p", "mesh.max_depth:=5.0", "-p", "mesh.min_weight:=1.0",
    )  # fmt: skip
    drones = [
        Drone(graph, "drone1", 1, 2.0, (200, 30, 20), 30.0),
        Drone(graph, "drone2", 2, 4.0, (10, 20, 220), 36.0),
    ]
    assert graph.wait(lambda: all(drone.is_ready() for drone in drones))
    return drones


def test_two_drones_share_a_graph_and_nothing_else(graph, drones):
    watcher = graph.probe("watcher")
    watcher.listen(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: watcher.count_publishers("/tf") == 2)
    one, two = drones
    one.fly(1, 4)
    two.fly(1, 7)
    assert set(one.seen) == {(30.0, (200, 30, 20), "drone1/cam")} and len(one.seen) == 4
    assert set(two.seen) == {(36.0, (10, 20, 220), "drone2/cam")} and len(two.seen) == 7
    for drone, frames, keyframes, depth in ((one, 4, 2, 2.0), (two, 7, 3, 4.0)):
        heard = drone.heard
        assert graph.wait(lambda heard=heard, n=keyframes: len(heard["reconstructor/cloud"]) == n)
        assert graph.wait(lambda heard=heard, n=frames: len(heard["reconstructor/pose"]) == n)
        assert graph.wait(lambda heard=heard, n=keyframes: len(heard["reconstructor/keyframe"]) == n)
        assert drone.stamps("reconstructor/pose") == [drone.stamp(i) for i in range(1, frames + 1)]
        frame_ids = {m.header.frame_id for t in TOPICS if t != "mesher/mesh" for m in heard[t]}
        assert frame_ids == {f"{drone.name}/map"}
        distances = {
            round(float(x), 3) for m in heard["reconstructor/cloud"] for x in xyz(m)[:, 0]
        }  # the camera looks along map x
        assert distances == {depth}
        mesher = drone.mesher.loop
        assert graph.wait(lambda mesher=mesher, n=keyframes: mesher.mesher.keyframes == n)
        assert np.allclose(mesher.surface().vertices[:, 0], depth, atol=0.05)
        assert graph.wait(lambda heard=heard: any(m.markers[0].points for m in heard["mesher/mesh"]))
        shown = {m.header.frame_id for a in heard["mesher/mesh"] for m in a.markers if m.points}
        assert shown == {f"{drone.name}/map"}
    names = [{m.shm_name for m in drone.heard["reconstructor/keyframe"]} for drone in drones]
    assert all(names) and not names[0] & names[1]
    assert graph.wait(lambda: len(watcher.heard["/tf"]) == 11)
    links = {(t.header.frame_id, t.child_frame_id) for m in watcher.heard["/tf"] for t in m.transforms}
    assert links == {
        (f"{name}/{parent}", f"{name}/{child}")
        for name in ("drone1", "drone2")
        for parent, child in (("map", "odom"), ("odom", "cam"))
    }


def test_one_drone_ends_while_the_other_flies_on(graph, drones):
    one, two = drones
    one.fly(1, 4)
    two.fly(1, 4)
    assert graph.wait(lambda: one.segments() and two.segments())
    one.stop()
    assert not one.segments() and two.segments()
    two.fly(5, 3)
    assert graph.wait(lambda: two.mesher.loop.mesher.keyframes == 3)
    assert graph.wait(lambda: len(one.heard["reconstructor/pose"]) == 4)


def xyz(cloud):
    """Points float32 [N,3] of a cloud."""
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.width, cloud.point_step)
    return rows[:, :12].copy().view("<f4")
