# SPDX-License-Identifier: Apache-2.0
"""Reconstructor and mesher in one process, and as programs: live equals offline, nothing is copied, nothing is left."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from visualization_msgs.msg import MarkerArray

from recon3d_ros.core.config import Config
from recon3d_ros.core.params import build
from recon3d_ros.core.trajectory import read_tum
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.runtime.bag_writer import write_bag
from recon3d_ros.runtime.runner import OfflineRun
from recon3d_ros.runtime.sources import open_source
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

STEP = 50_000_000


@pytest.fixture
def programs():
    """Starts `python -m recon3d_ros.nodes.NAME`; whatever still runs at the end is killed."""
    running = []

    def start(name, *args):
        command = [sys.executable, "-m", f"recon3d_ros.nodes.{name}", *args]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_line(process, text):
    """Read the log of a program up to a line that contains `text`."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"'{text}' was never said")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("flight") / "bag"
    options = FlightOptions(frames=24, camera=camera_of(160, 120, 70.0), depth=True)
    write_bag(path, SyntheticFlight("room", "forward", options), with_depth=True)
    return path


@pytest.fixture
def orbit(tmp_path):
    """A flight without depth, long enough for the geometric backend to find its start."""
    options = FlightOptions(frames=40, camera=camera_of(320, 240, 70.0))
    write_bag(tmp_path / "orbit", SyntheticFlight("building", "orbit", options))
    return tmp_path / "orbit"


def test_the_mesher_reads_the_memory_that_the_reconstructor_wrote(graph, segments):
    graph.start("-p", "backend:=geometric", "-p", "mesh.publish_rate:=20.0", "-p", "mesh.voxel_size:=0.05")
    taken = []

    class Watching(MesherNode):
        def put(self, keyframe):
            taken.append(keyframe)
            super().put(keyframe)

    mesher, probe = graph.add(Watching(follow=False)), graph.probe()
    node = graph.add(ReconstructorNode(mesher, create=lambda *_: graph.backend()))
    probe.listen(MarkerArray, "mesher/mesh", qos.MESH)
    assert graph.wait(probe.connected)
    probe.send_info()
    for i in range(1, 5):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: len(taken) == 2)
    for keyframe in taken:
        stored = node.run.pipeline.store.get(keyframe.id)
        assert np.shares_memory(keyframe.points, stored.points)
        assert np.shares_memory(keyframe.colours, stored.colours)
    assert graph.wait(lambda: probe.heard["mesher/mesh"])
    assert not segments(os.getpid())


@pytest.mark.parametrize("backend", ["rgbd", "geometric", "gct"])
def test_live_and_offline_give_the_same_trajectory_and_keyframes(
    backend, request, programs, segments, tmp_path
):
    path = request.getfixturevalue("bag" if backend == "rgbd" else "orbit")
    given = {}
    if backend == "gct":
        weights = request.getfixturevalue("own_weights")
        given = {"backend": "gct", "gct.weights": str(weights), "gct.image_width": 84, "gct.window_size": 16}
    run = OfflineRun(open_source(path), build(Config, given))
    run.run()
    offline = run.results()
    run.close()
    slam = programs(
        "slam", "--ros-args", "-p", f"output:={tmp_path}", "-p", "input.queue:=100",
        "-r", "image:=/camera/image_raw", "-r", "depth:=/camera/depth/image_raw",
        *(flag for name, value in given.items() for flag in ("-p", f"{name}:={value}")),
    )  # fmt: skip
    player = programs("replay", str(path), "--rate", "0.7", "--quiet")
    assert player.wait(60) == 0
    slam.send_signal(signal.SIGINT)
    assert slam.wait(30) == 0, slam.stderr.read()
    live = read_tum(tmp_path / "trajectory.txt")
    assert len(live) == len(offline.trajectory) == run.source.length
    assert np.abs(live.poses - offline.trajectory.poses).max() < 1e-6
    lines = (tmp_path / "keyframes.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == [k.id for k in offline.keyframes]
    assert json.loads((tmp_path / "report.json").read_text())["backend"] == backend
    assert (tmp_path / "mesh.ply").stat().st_size > 10_000
    assert not segments(slam.pid)


def test_two_processes_mesh_through_shared_memory_and_leave_nothing_after_a_signal(
    graph, bag, programs, segments, tmp_path
):
    graph.start()
    viewer = graph.probe()
    viewer.listen(MarkerArray, "mesher/mesh", qos.MESH, raw=True)
    mesher = programs("mesher", "--ros-args", "-p", f"output:={tmp_path / 'mesh'}")
    reconstructor = programs(
        "reconstructor", "--ros-args", "-p", f"output:={tmp_path / 'map'}", "-p", "input.queue:=100",
        "-r", "image:=/camera/image_raw", "-r", "camera_info:=/camera/camera_info", "-r", "depth:=/camera/depth/image_raw",
    )  # fmt: skip
    player = programs("replay", str(bag), "--quiet")
    assert player.wait(60) == 0
    assert graph.wait(lambda: viewer.heard["mesher/mesh"], 30.0)
    assert segments(reconstructor.pid)
    for program in (reconstructor, mesher):
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == 0, program.stderr.read()
    assert (tmp_path / "mesh" / "mesh.ply").stat().st_size > 10_000
    assert (tmp_path / "map" / "cloud.ply").stat().st_size > 10_000
    assert not segments(reconstructor.pid)


def test_a_wrong_parameter_ends_the_program_with_one_line(programs):
    slam = programs("slam", "--ros-args", "-p", "mesh.voxelsize:=0.1")
    assert slam.wait(30) == 2
    said = slam.stderr.read()
    assert "unknown parameter 'mesh.voxelsize'; did you mean 'mesh.voxel_size'?" in said
    assert "Traceback" not in said


def test_an_output_folder_that_cannot_be_written_is_refused_at_the_start(programs, tmp_path):
    (tmp_path / "file").touch()
    node = programs("reconstructor", "--ros-args", "-p", f"output:={tmp_path / 'file' / 'out'}")
    assert node.wait(30) == 2
    assert "cannot write to output folder" in node.stderr.read()
