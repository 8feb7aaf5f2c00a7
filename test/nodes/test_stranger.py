# SPDX-License-Identifier: Apache-2.0
"""What goes out serves programs that do not know this package, and /tf keeps the rules of tf2 and REP-105."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import recon3d_ros
from recon3d_ros.core.geometry import inverse, pose, rotation_angle, so3_exp
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.messages import TFMessage

STEP = 50_000_000
#: How the map moves, and before which frame.
CORRECTION, AT = pose(so3_exp(np.array([0.0, 0.0, 0.4])), np.array([2.0, -1.0, 0.5])), 6


@pytest.fixture
def tf2_folder(tmp_path):
    """A folder with tf2_msgs alone: that of ROS needs none, the one built along with the package is copied out of it."""
    built = Path(recon3d_ros.__file__).parent / "_vendor" / "tf2_msgs"
    if built.is_dir():
        package = tmp_path / "tf2_msgs"
        shutil.copytree(built, package)
        init = package / "msg" / "__init__.py"
        loading = (
            "import ctypes, pathlib\n"
            "folder = pathlib.Path(__file__).parents[1] / '_lib'\n"
            "kinds = ('fastrtps_c', 'introspection_c', 'c')\n"
            "for name in ('generator_c', *(f'typesupport_{kind}' for kind in kinds), 'generator_py'):\n"
            "    ctypes.CDLL(str(folder / f'libtf2_msgs__rosidl_{name}.so'), mode=ctypes.RTLD_GLOBAL)\n"
        )
        imports = [line for line in init.read_text().splitlines() if line.startswith("from tf2_msgs")]
        init.write_text(loading + "\n".join(imports) + "\n")
    return tmp_path


def test_a_stranger_gets_poses_clouds_the_path_the_mesh_and_transforms(graph, tf2_folder):
    graph.start(
        "-p", "backend:=geometric", "-p", "mesh.publish_rate:=20.0", "-p", "mesh.voxel_size:=0.05",
        "-p", "mesh.min_weight:=1.0",
    )  # fmt: skip
    mesher = graph.add(MesherNode(follow=False))
    node, probe = graph.add(ReconstructorNode(mesher, create=lambda *_: graph.backend())), graph.probe()
    assert graph.wait(probe.connected)
    probe.send_info()
    for i in range(1, 5):
        probe.send_image(i * STEP)
    assert graph.wait(
        lambda: mesher.loop.mesher.keyframes == 2 and node.outputs.published["/reconstructor/path"]
    )
    # It comes when path and mesh are there already.
    stranger = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("stranger.py")), str(tf2_folder), "3"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        stamps = itertools.count(5 * STEP, STEP)
        # The drone flies on until the stranger has met everybody and got enough.
        assert graph.wait(lambda: probe.send_image(next(stamps)) or stranger.poll() is not None, 90.0)
        said, _ = stranger.communicate()
    finally:
        stranger.kill()
    got = json.loads(said)
    assert (got["pose"], got["odometry"], got["package"]) == ("map", "cam", False)
    assert got["points"] == 12 * 16 and got["colour"] == [10, 20, 30]
    assert got["path"] >= 4 and got["triangles"] > 0
    assert got["links"] == [["map", "odom"], ["odom", "cam"]]


@pytest.fixture
def recorded(graph):
    """All transforms of a flight in the middle of which the map is corrected, in the order in which they came."""

    class Corrected(graph.backend):
        def step(self, frame):
            (update,) = super().step(frame)
            if update.index < AT:
                return [update]
            corrections = {i: CORRECTION @ self.poses()[i] for i in (0, 3)} if update.index == AT else {}
            T = CORRECTION @ update.T_map_cam
            return [dataclasses.replace(update, T_map_cam=T, corrections=corrections)]

    graph.start("-p", "backend:=geometric")
    node, probe = graph.add(ReconstructorNode(create=lambda *_: Corrected())), graph.probe()
    probe.listen(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: probe.connected() and node.count_subscribers("/tf"))
    probe.send_info()
    for i in range(1, 13):
        probe.send_image(i * STEP)
        assert graph.wait(lambda i=i: len(probe.heard["/tf"]) == i)
    return [transform for message in probe.heard["/tf"] for transform in message.transforms]


def test_each_transform_is_one_that_tf2_takes(recorded):
    parents, stamps = defaultdict(set), defaultdict(list)
    for link in recorded:
        child, rotation = link.child_frame_id, link.transform.rotation
        parents[child].add(link.header.frame_id)
        stamps[child].append(stamp_ns(link))
        assert child and link.header.frame_id and child != link.header.frame_id
        assert not child.startswith("/") and not link.header.frame_id.startswith("/")
        norm = rotation.x**2 + rotation.y**2 + rotation.z**2 + rotation.w**2
        assert abs(norm - 1) < 1e-6  # tf2 refuses 1e-2, and NaN
    assert parents == {"odom": {"map"}, "cam": {"odom"}}
    for times in stamps.values():
        assert times == [i * STEP for i in range(1, 13)]  # of the images; tf2 warns of repeated ones


def test_a_correction_moves_map_to_odom_alone_and_odometry_never_jumps(recorded):
    chains = {"odom": [], "cam": []}
    for link in recorded:
        chains[link.child_frame_id].append(pose_from_message(link.transform))
    for before, after in zip(chains["cam"], chains["cam"][1:], strict=False):
        moved = inverse(before) @ after
        assert np.linalg.norm(moved[:3, 3]) < 0.11 and rotation_angle(moved[:3, :3]) < 1e-3
    T = chains["odom"]
    assert all(np.allclose(T[i], np.eye(4)) for i in range(AT))
    assert all(np.allclose(T[i], CORRECTION) for i in range(AT, 12))
