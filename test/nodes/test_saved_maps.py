# SPDX-License-Identifier: Apache-2.0
"""Maps are saved beside the mapping, and gone on with: at the start, or later by a service."""

from pathlib import Path

import pytest
from std_srvs.srv import Trigger

from recon3d_ros.core.errors import InputError
from recon3d_ros.nodes import slam
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode

STEP = 50_000_000


class Slam:
    """Reconstructor and mesher in one process."""

    def __init__(self, graph, output, *args):
        options = ("backend:=geometric", f"output:={output}", "mesh.voxel_size:=0.05", *args)
        graph.start(*(word for option in options for word in ("-p", option)))
        self.graph, self.probe = graph, graph.probe()
        self.mesher = graph.add(MesherNode(follow=False))
        self.node = graph.add(ReconstructorNode(self.mesher, create=lambda *_: graph.backend()))
        assert graph.wait(self.probe.connected)
        self.probe.send_info()
        self.sent = 0

    def fly(self, count=4):
        """So many images, until all of them are answered."""
        before = self.node.run.done
        for _ in range(count):
            self.sent += 1
            self.probe.send_image(self.sent * STEP)
        assert self.graph.wait(lambda: self.node.run.done == before + count)

    def meshed(self, count):
        assert self.graph.wait(lambda: self.mesher.loop.mesher.keyframes == count)

    def call(self, name):
        return self.probe.call(Trigger, name, Trigger.Request())

    def indices(self):
        return list(self.node.run.pipeline.poses())


def saved_by(flown, folder):
    flown.fly()
    flown.meshed(2)
    answer = flown.call("/reconstructor/save_map")
    assert answer.success and answer.message == f"saved in {folder}"
    assert {p.name for p in (folder / "map").iterdir()} == {"reconstruction.npz", "surface.npz"}
    return folder / "map"


def test_a_saved_map_is_gone_on_with_by_a_service(graph, tmp_path):
    flown = Slam(graph, tmp_path)
    saved_by(flown, tmp_path)
    assert (tmp_path / "trajectory.txt").is_file()
    assert flown.call("/reconstructor/reset").success
    flown.meshed(0)
    answer = flown.call("/reconstructor/load_map")
    assert answer.success and "looks for its place" in answer.message
    assert flown.mesher.loop.mesher.keyframes == 2 and flown.node.run.state().keyframes == 0
    cloud = len(flown.node.run.pipeline.cloud)
    assert cloud > 0
    flown.fly()
    # The fake backend makes keyframes of 0, 3, 6.
    flown.meshed(3)
    assert list(flown.node.run.pipeline.keyframes) == [6] and not flown.node.run.drops
    assert len(flown.node.run.pipeline.cloud) > cloud


def test_a_map_is_loaded_at_the_start(graph, tmp_path):
    flown = Slam(graph, tmp_path / "first")
    folder = saved_by(flown, tmp_path / "first")
    graph.stop()
    graph.nodes.clear()
    again = Slam(graph, tmp_path / "second", f"map:={folder}", "save_map:=true")
    assert again.mesher.loop.mesher.keyframes == 2
    again.fly()
    again.meshed(3)
    assert list(again.node.run.pipeline.keyframes) == [6]
    assert slam.finish(again.node, again.mesher) == []
    names = {p.name for p in (tmp_path / "second").rglob("*")}
    assert {"trajectory.txt", "mesh.ply", "reconstruction.npz", "surface.npz"} <= names


def test_of_the_backends_the_one_that_made_the_map_goes_on_with_it(graph, tmp_path):
    flown = Slam(graph, tmp_path)
    folder = saved_by(flown, tmp_path)
    graph.stop()
    graph.nodes.clear()
    graph.start("-p", f"map:={folder}")
    made = []
    node = graph.add(ReconstructorNode(create=lambda name, *_: made.append(name) or graph.backend()))
    assert made == ["geometric"] and node.run is not None
    graph.stop()
    graph.nodes.clear()
    graph.start("-p", f"map:={folder}", "-p", "backend:=rgbd")
    with pytest.raises(InputError, match="map of backend 'geometric'"):
        ReconstructorNode(create=lambda *_: graph.backend())


def test_a_map_that_is_not_there_ends_the_start_with_one_line(graph, tmp_path):
    graph.start("-p", f"map:={tmp_path}", "-p", "backend:=geometric")
    with pytest.raises(InputError, match="is not there: save a map first"):
        ReconstructorNode(create=lambda *_: graph.backend())


@pytest.mark.parametrize(
    ("service", "output", "why"),
    [
        ("save_map", "", "set the parameter 'output'"),
        ("load_map", "", "set the parameter 'map'"),
        ("load_map", "empty", "is not there"),
    ],
)
def test_the_services_say_what_is_missing(graph, tmp_path, service, output, why):
    flown = Slam(graph, tmp_path / output if output else "''")
    flown.fly()
    answer = flown.call(f"/reconstructor/{service}")
    assert not answer.success and why in answer.message
    flown.fly()
    assert flown.indices() == list(range(8))


def test_a_map_that_cannot_be_written_is_said_and_the_rest_is_saved(graph, tmp_path):
    flown = Slam(graph, tmp_path)
    flown.fly()
    (tmp_path / "map").write_text("a file where a folder should be")
    answer = flown.call("/reconstructor/save_map")
    assert not answer.success and "cannot write to output folder" in answer.message
    assert Path(tmp_path, "trajectory.txt").is_file()
    flown.fly()
    assert len(flown.indices()) == 8
