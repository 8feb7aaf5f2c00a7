# SPDX-License-Identifier: Apache-2.0
"""The mesher on real topics: keyframes of another writer in, markers out, late viewers, resets, broken notices."""

import os
import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from recon3d_ros.core import types
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import CloudParams, MeshParams, StoreParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import pose
from recon3d_ros.core.types import Tracking, Update
from recon3d_ros.mapping.ply import load_ply
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import keyframe_message, pose_message
from recon3d_ros.ros.messages import Keyframe, Status
from recon3d_ros.runtime import archive
from recon3d_ros.runtime.mesher import MesherLoop
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
        assert graph.wait(lambda: writers[-1].notices.get_subscription_count() == 1)
        return node, probe, writers[-1]

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


def test_one_colour_a_triangle_is_sent_where_that_is_asked_for(graph, start):
    _node, probe, writer = start("-p", "mesh.colour_per_triangle:=true")
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: wall_shown(probe))
    for marker in markers(probe.heard["mesher/mesh"]).values():
        assert len(marker.colors) == len(marker.points) // 3
        assert all(abs(c.r - 200 / 255) < 0.01 and c.b < 0.01 for c in marker.colors)


def test_who_joins_late_gets_the_whole_mesh(graph, start):
    node, _probe, writer = start()
    for i in range(3):
        writer.add(i)
    assert graph.wait(lambda: node.loop.mesher.triangles > 1000 and not node.loop.waiting)
    late = graph.probe()
    late.listen(MarkerArray, "mesher/mesh", qos.OUTPUT)  # volatile: sees only what is sent from now on
    assert graph.wait(lambda: wall_shown(late))


def test_m22_a_reset_clears_every_viewer_and_mapping_goes_on(graph, start):
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


def meshed(graph, node, writer, start=0):
    """Wait until three keyframes of another part of the wall are in the mesh."""
    before = node.loop.mesher.triangles
    for i in range(start, start + 3):
        writer.add(i)
    assert graph.wait(lambda: node.loop.mesher.triangles > before + 1000 and not node.loop.waiting)


def save(probe):
    """The answer of ~/save_mesh."""
    return probe.call(Trigger, "/mesher/save_mesh", Trigger.Request())


def change(probe, **values):
    """Set parameters of the running mesher."""
    parameters = [
        Parameter(name.replace("__", "."), value=v).to_parameter_msg() for name, v in values.items()
    ]
    request = SetParameters.Request(parameters=parameters)
    results = probe.call(SetParameters, "/mesher/set_parameters", request).results
    assert all(r.successful for r in results), [r.reason for r in results]


def test_the_mesh_is_saved_where_output_says(graph, start, tmp_path):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    meshed(graph, node, writer)
    answer = save(probe)
    assert answer.success and answer.message == f"saved {tmp_path}/mesh.ply"
    assert len(load_ply(tmp_path / "mesh.ply").triangles) == len(node.loop.surface().triangles)


def test_what_is_saved_may_be_changed_while_the_node_runs(graph, start, tmp_path):
    pytest.importorskip("fast_simplification")
    node, probe, writer = start()
    meshed(graph, node, writer)
    assert save(probe).message == "set the parameter 'output' to a folder first"
    change(probe, output=str(tmp_path), mesh__save_format="glb", mesh__save_simplify=0.25)
    assert save(probe).message == f"saved {tmp_path}/mesh_simplified.glb"
    change(probe, mesh__save_format="ply")
    assert save(probe).success
    triangles = len(load_ply(tmp_path / "mesh_simplified.ply").triangles)
    assert 0.2 < triangles / len(node.loop.surface().triangles) < 0.3


def test_a_mesh_that_cannot_be_saved_is_a_failure_with_a_reason_and_the_node_goes_on(graph, start, tmp_path):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    answer = save(probe)
    assert not answer.success and answer.message == "there is no surface yet"
    meshed(graph, node, writer)
    (tmp_path / "file").touch()
    change(probe, output=str(tmp_path / "file" / "folder"))
    answer = save(probe)
    assert not answer.success and "cannot write to output folder" in answer.message
    (tmp_path / "mesh.ply").mkdir()  # the name is taken by something that cannot be replaced
    change(probe, output=str(tmp_path))
    answer = save(probe)
    assert not answer.success and f"cannot write {tmp_path}/mesh.ply (" in answer.message
    assert {p.name for p in tmp_path.iterdir()} == {"file", "mesh.ply"}
    meshed(graph, node, writer, start=80)
    assert graph.wait(lambda: wall_shown(probe))


def test_keyframes_are_meshed_and_callbacks_answered_while_a_mesh_is_saved(
    graph, start, tmp_path, monkeypatch
):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    meshed(graph, node, writer)
    probe.listen(MarkerArray, "mesher/mesh", qos.OUTPUT)
    hold = tmp_path / "hold"
    os.mkfifo(hold)  # the process that saves waits until somebody writes into it
    (tmp_path / "sitecustomize.py").write_text(f"open({str(hold)!r}).read()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    client = probe.create_client(Trigger, "/mesher/save_mesh")
    assert client.wait_for_service(5.0)
    answer = client.call_async(Trigger.Request())
    assert graph.wait(lambda: list(tmp_path.glob(".save_mesh-*")))
    meshed(graph, node, writer, start=80)
    assert graph.wait(lambda: probe.heard["mesher/mesh"])
    assert probe.call(Trigger, "/mesher/reset", Trigger.Request()).success
    assert not answer.done()
    hold.write_text("")
    assert graph.wait(answer.done) and answer.result().success
    assert len(load_ply(tmp_path / "mesh.ply").triangles) > 1000  # the mesh as it was when asked for


def test_a_node_that_ends_gives_up_what_it_saves(graph, start, tmp_path, monkeypatch):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    meshed(graph, node, writer)
    os.mkfifo(tmp_path / "hold")
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'hold')!r}).read()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    client = probe.create_client(Trigger, "/mesher/save_mesh")
    assert client.wait_for_service(5.0)
    client.call_async(Trigger.Request())
    assert graph.wait(lambda: list(tmp_path.glob(".save_mesh-*")))
    graph.stop()
    assert {p.name for p in tmp_path.iterdir()} == {"hold", "sitecustomize.py"}


def ask(probe, what):
    """The answer of ~/save_map or ~/load_map."""
    return probe.call(Trigger, f"/mesher/{what}", Trigger.Request())


@pytest.fixture
def saved(graph, start, tmp_path):
    """The folder of a map of the wall's first part, saved by a node that has ended."""
    node, probe, writer = start("-p", f"output:={tmp_path / 'first'}")
    meshed(graph, node, writer)
    assert graph.wait(lambda: node.loop.mesher.keyframes == 3)
    answer = ask(probe, "save_map")
    assert answer.success and answer.message == f"saved {tmp_path}/first/map/surface.npz"
    graph.stop()
    graph.nodes.clear()
    writer.store.close()
    return tmp_path / "first" / "map"


def test_a_saved_map_is_shown_whole_and_gone_on_with_and_the_first_notice_does_not_end_it(
    graph, start, saved
):
    node, probe, writer = start("-p", f"map:={saved}")
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    assert graph.wait(lambda: wall_shown(probe))
    before = len(node.loop.surface().triangles)
    assert writer.sequence == 0
    writer.add(0)  # is in it already
    meshed(graph, node, writer, start=80)
    assert graph.wait(lambda: node.loop.mesher.keyframes == 6) and node.drops()["repeated"] == 1
    assert len(node.loop.surface().triangles) > before + 1000
    writer.sequence = 0
    writer.send(Keyframe(action=Keyframe.REMOVE))
    assert graph.wait(lambda: not markers(probe.heard["mesher/mesh"]))
    assert node.loop.mesher.keyframes == 0


def test_a_map_is_loaded_instead_of_what_is_there(graph, start, saved):
    node, probe, writer = start()
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    meshed(graph, node, writer, start=200)
    assert graph.wait(lambda: min(x(probe)) > 2.0)
    assert ask(probe, "load_map").message == "set the parameter 'map' to the folder of a saved map first"
    change(probe, output=str(saved.parent))
    answer = ask(probe, "load_map")
    assert answer.success and answer.message == f"going on with {saved}/surface.npz"
    assert graph.wait(lambda: wall_shown(probe) and max(x(probe)) < 2.0)
    writer.sequence = 0  # a reconstructor that loads the map as well
    writer.send(Keyframe(action=Keyframe.REMOVE))
    meshed(graph, node, writer, start=80)
    assert graph.wait(lambda: node.loop.mesher.keyframes == 6)


def x(probe):
    """Coordinates along the wall of what is shown; 0 while that is nothing."""
    return [p.x for m in markers(probe.heard["mesher/mesh"]).values() for p in m.points] or [0.0]


def test_the_parameter_map_says_what_is_loaded(graph, start, saved, tmp_path):
    node, probe, _ = start("-p", f"output:={tmp_path}")
    answer = ask(probe, "load_map")
    assert not answer.success and f"{tmp_path}/map/surface.npz is not there" in answer.message
    change(probe, map=str(saved))
    assert ask(probe, "load_map").success and node.loop.mesher.keyframes == 3


@pytest.mark.parametrize("damage", ["missing", "damaged", "of another voxel size"])
def test_a_map_that_cannot_be_used_ends_the_start_with_one_line(graph, tmp_path, damage):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "surface.npz").write_bytes(b"PK")
    if damage == "of another voxel size":
        loop = MesherLoop(MeshParams(voxel_size=0.1), realtime=True)
        loop.mesher.integrate(wall_keyframe())
        (tmp_path / damage).mkdir()
        loop.save(tmp_path / damage / "surface.npz")
        loop.close()
    graph.start("-p", f"map:={tmp_path / damage}", "-p", "mesh.voxel_size:=0.05")
    with pytest.raises(InputError) as error:
        MesherNode()
    said = "mesh.voxel_size is 0.05" if "voxel" in damage else f"{tmp_path / damage}/surface.npz is "
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def wall_keyframe():
    """A keyframe of a wall at 2."""
    points = np.dstack([2 * CAMERA.rays(), np.full((48, 64), 2.0)]).reshape(-1, 3).astype(np.float32)
    return types.Keyframe(0, 0, np.eye(4), CAMERA, points, np.zeros((len(points), 3), np.uint8))


def test_a_map_that_cannot_be_saved_is_a_failure_with_a_reason_and_the_node_goes_on(graph, start, tmp_path):
    node, probe, writer = start()
    assert ask(probe, "save_map").message == "set the parameter 'output' to a folder first"
    change(probe, output=str(tmp_path))
    assert ask(probe, "save_map").message == "there is no surface yet"
    meshed(graph, node, writer)
    (tmp_path / "map" / "surface.npz").mkdir()
    answer = ask(probe, "save_map")
    assert not answer.success and f"cannot write {tmp_path}/map/surface.npz (" in answer.message
    assert node.save_map(tmp_path / "map") == [f"surface.npz not written: {answer.message}"]
    meshed(graph, node, writer, start=80)


def test_keyframes_are_meshed_and_callbacks_answered_while_a_map_is_saved(
    graph, start, tmp_path, monkeypatch
):
    node, probe, writer = start("-p", f"output:={tmp_path}")
    meshed(graph, node, writer)
    begun, go = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert go.wait(20)
        archive.write_archive(*arguments)

    monkeypatch.setattr("recon3d_ros.runtime.mesher.write_archive", slow)
    client = probe.create_client(Trigger, "/mesher/save_map")
    assert client.wait_for_service(20)
    answer = client.call_async(Trigger.Request())
    assert begun.wait(20)
    meshed(graph, node, writer, start=80)
    assert probe.call(Trigger, "/mesher/reset", Trigger.Request()).success
    assert not answer.done()
    go.set()
    assert graph.wait(answer.done) and answer.result().success
    node.load_map(tmp_path / "map")
    assert 0 < node.loop.mesher.keyframes <= 3  # the map as it was when asked for


@pytest.mark.parametrize("save_map", ["true", "false"])
def test_at_the_end_the_map_is_saved_beside_the_mesh_where_that_is_asked_for(
    graph, start, tmp_path, save_map
):
    node, _, writer = start("-p", f"output:={tmp_path}", "-p", f"save_map:={save_map}")
    meshed(graph, node, writer)
    node.finish()
    assert node.save() == []
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"mesh.ply"} | ({"map/surface.npz"} if save_map == "true" else set())


def test_nothing_stays_in_shared_memory(graph, start):
    node, _probe, writer = start()
    writer.add(0)
    assert graph.wait(lambda: node._reader.taken == 1)
    writer.store.close()
    graph.stop()
    assert not [name for name in SHM.iterdir() if name.name.startswith(f"recon3dtest_{os.getpid()}")]


def test_m20_diagnostics_tell_what_became_of_every_keyframe_and_what_it_cost(graph, start):
    limits = ("min_weight:=1.0", "duplicate_weight:=1.0", "duplicate_motion:=0.1", "duplicate_every:=100")
    _node, probe, writer = start(*(word for limit in limits for word in ("-p", f"mesh.{limit}")))
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    for i in range(3):
        writer.add(i)  # the second and third show nothing new
    assert graph.wait(lambda: wall_shown(probe))

    def told():
        lines = [s for array in probe.heard["/diagnostics"] for s in array.status if "mesher" in s.name]
        return {v.key: v.value for v in lines[-1].values} if lines else {}

    assert graph.wait(lambda: told().get("seen before") == "2" and "extract_ms" in told())
    values = told()
    assert (values["frames"], values["integrated"], values["queue"]) == ("3", "1", "0")
    assert values["dropped: seen before"] == "2"
    assert int(values["triangles"]) > 1000 and float(values["integrate_ms"]) > 0
    assert float(values["memory_mb"]) > 0 and "few points" in values
