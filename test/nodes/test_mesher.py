# SPDX-License-Identifier: Apache-2.0
"""The mesher on real topics: keyframes of another writer in, markers out, late viewers, resets, broken notices."""

import numpy as np
import pytest
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import CloudParams, StoreParams
from recon3d_ros.core.geometry import pose
from recon3d_ros.core.types import Tracking, Update
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import keyframe_message, pose_message
from recon3d_ros.ros.messages import Keyframe, Status
from recon3d_ros.store.files import SHM
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.store.shared import SharedArena

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
NOTICES = "reconstructor/keyframe"


class Writer:
    """What a reconstructor of another process does: keyframes of a wall in shared memory, and notices."""

    def __init__(self, probe):
        self.store = KeyframeStore(SharedArena(4, 0.2, "recon3dtest"), StoreParams(), CloudParams())
        self.notices = probe.create_publisher(Keyframe, NOTICES, qos.NOTICES)
        self.sequence = 0

    def add(self, index, **changes):
        T = pose(np.eye(3), np.array([0.02 * index, 0.0, 0.0]))
        depth, colours = np.full((48, 64), 2.0, np.float32), np.full((48, 64, 3), (200, 100, 0), np.uint8)
        keyframe = self.store.put(
            Update(
                index,
                index,
                T,
                Tracking.TRACKING,
                is_keyframe=True,
                camera=CAMERA,
                depth=depth,
                colours=colours,
            )
        )
        message, place = keyframe_message(keyframe, "map"), self.store.handle(index)
        message.shm_name, message.shm_size, message.generation = (
            place.shm_name,
            place.shm_size,
            place.generation,
        )
        for name, value in changes.items():
            setattr(message, name, value)
        self.send(message)

    def send(self, message):
        message.sequence = self.sequence
        self.sequence += 1
        self.notices.publish(message)


@pytest.fixture
def start(graph):
    writers = []

    def start(*args):
        graph.start("-p", "mesh.voxel_size:=0.05", "-p", "mesh.publish_rate:=20.0", *args)
        node, probe = graph.add(MesherNode()), graph.probe()
        writers.append(Writer(probe))
        assert graph.wait(lambda: writers[0].notices.get_subscription_count() == 1)
        return node, probe, writers[0]

    yield start
    for writer in writers:
        writer.store.close()


def markers(arrays):
    """Marker id -> marker, as a viewer holds them."""
    shown = {}
    for marker in (m for array in arrays for m in array.markers):
        if marker.action == Marker.DELETEALL:
            shown.clear()
        elif marker.action == Marker.DELETE:
            shown.pop(marker.id, None)
        else:
            shown[marker.id] = marker
    return shown


def wall_shown(probe, topic="mesher/mesh"):
    """True when the markers show the wall at 2, and nothing else."""
    points = [p.z for m in markers(probe.heard[topic]).values() for p in m.points]
    return len(points) > 3000 and abs(np.median(points) - 2.0) < 0.01


def test_keyframes_in_shared_memory_become_markers(graph, start):
    node, probe, writer = start()
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    probe.listen(Status, "mesher/status")
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))
    marker = next(iter(markers(probe.heard["mesher/mesh"]).values()))
    assert (marker.ns, marker.header.frame_id, marker.type) == ("mesh", "map", Marker.TRIANGLE_LIST)
    assert len(marker.points) % 3 == 0 and len(marker.colors) == len(marker.points)
    assert graph.wait(
        lambda: any(s.keyframes == 3 and s.triangles > 1000 for s in probe.heard["mesher/status"])
    )
    assert not node.drops().total()


def test_who_joins_late_gets_the_whole_mesh(graph, start):
    node, _probe, writer = start()
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: node.loop.mesher.triangles > 1000 and not node.loop.waiting)
    late = graph.probe()
    late.listen(MarkerArray, "mesher/mesh", qos.OUTPUT)  # volatile: sees only what is sent from now on
    assert graph.wait(lambda: wall_shown(late))


def test_a_reset_clears_every_viewer_and_mapping_goes_on(graph, start):
    node, probe, writer = start()
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))
    assert probe.call(Trigger, "/mesher/reset", Trigger.Request()).success
    assert graph.wait(lambda: not markers(probe.heard["mesher/mesh"]))
    assert node.loop.mesher.triangles == 0
    for i in range(3, 6):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))


def test_a_new_map_of_the_reconstructor_begins_a_new_mesh(graph, start):
    _node, probe, writer = start()
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))
    writer.sequence = 0
    writer.send(Keyframe(action=Keyframe.REMOVE))
    assert graph.wait(lambda: not markers(probe.heard["mesher/mesh"]))


def test_broken_notices_are_counted_and_cost_only_themselves(graph, start):
    node, probe, writer = start()
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    writer.add(0, width=0)
    writer.add(1, shm_name="")
    writer.add(2, shm_name="../../etc/passwd")
    writer.add(3, shm_size=7)
    writer.send(Keyframe(action=Keyframe.UPDATE, pose=pose_message(np.full((4, 4), np.nan))))
    writer.sequence += 5
    for i in range(4, 7):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))
    drops = node.drops()
    assert drops["notice invalid"] == 3 and drops["notice lost"] == 5 and drops.total() == 10


def test_the_mesh_is_saved_where_output_says(graph, start, tmp_path):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: node.loop.mesher.triangles > 1000)
    answer = probe.call(Trigger, "/mesher/save_mesh", Trigger.Request())
    assert answer.success and (tmp_path / "mesh.ply").stat().st_size > 10_000


def test_nothing_stays_in_shared_memory(graph, start):
    node, _probe, writer = start()
    writer.add(0)
    assert graph.wait(lambda: node._reader.taken == 1)
    writer.store.close()
    graph.stop()
    assert not [name for name in SHM.iterdir() if name.name.startswith("recon3dtest")]
