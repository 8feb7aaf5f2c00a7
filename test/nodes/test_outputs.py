# SPDX-License-Identifier: Apache-2.0
"""What goes out besides what is seen elsewhere: who owns odom, and how often clouds and the path are sent."""

import itertools

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import PointCloud2

from recon3d_ros.core.geometry import pose
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import odometry_message, pose_stamped
from recon3d_ros.ros.messages import TFMessage

STEP = 50_000_000


@pytest.fixture
def start(graph):
    def start(*args):
        graph.start("-p", "backend:=geometric", *args)
        probe = graph.probe()
        node = graph.add(ReconstructorNode(create=lambda *_: graph.backend()))
        assert graph.wait(probe.connected)
        probe.send_info()
        return probe, node

    return start


def test_odom_belongs_to_its_source_also_while_that_is_late(graph, start):
    probe, node = start("-p", "prior:=true", "-p", "frames.base:=cam")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    probe.listen(TFMessage, "/tf", qos.TF)
    probe.listen(Odometry, "reconstructor/odometry")
    assert graph.wait(lambda: probe.connected(odometry) and node.count_subscribers("/tf") >= 1)
    for stamp in (STEP - 10_000_000, STEP + 10_000_000):
        odometry.publish(odometry_message(np.eye(4), stamp, "odom", "cam"))
    assert graph.wait(lambda: node._aiding.prior.poses)
    for i in (1, 20, 21):  # there is no odometry near the last two
        probe.send_image(i * STEP)
        assert graph.wait(lambda i=i: probe.heard["/tf"] and stamp_ns(last(probe)) == i * STEP)
    links = [[t.child_frame_id for t in message.transforms] for message in probe.heard["/tf"]]
    assert links == [["odom"]] * 3 and not probe.heard["reconstructor/odometry"]


def test_until_the_first_odometry_nothing_is_said_of_odom(graph, start):
    probe, node = start("-p", "prior:=true", "-p", "frames.base:=cam", "-p", "input.wait:=60.0")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    probe.listen(TFMessage, "/tf", qos.TF)
    probe.listen(PoseStamped, "reconstructor/pose")
    assert graph.wait(lambda: probe.connected(odometry) and node.count_subscribers("/tf") >= 1)
    assert graph.wait(lambda: node.count_subscribers("/reconstructor/pose"))
    probe.send_image(STEP)
    assert graph.wait(lambda: probe.heard["reconstructor/pose"])
    for stamp in (2 * STEP - 10_000_000, 2 * STEP + 10_000_000):
        odometry.publish(odometry_message(np.eye(4), stamp, "odom", "cam"))
    assert graph.wait(lambda: len(node._aiding.prior.poses) == 2)
    probe.send_image(2 * STEP)
    assert graph.wait(lambda: probe.heard["/tf"])
    assert [stamp_ns(m.transforms[0]) for m in probe.heard["/tf"]] == [2 * STEP]
    assert [t.child_frame_id for t in probe.heard["/tf"][0].transforms] == ["odom"]


def test_odometry_that_never_comes_is_not_waited_for_without_end(graph, start):
    probe, node = start("-p", "prior:=true", "-p", "input.wait:=0.1")
    probe.listen(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: probe.connected() and node.count_subscribers("/tf") >= 1)
    sent = itertools.count(1)

    def heard():
        probe.send_image(next(sent) * STEP)
        return probe.heard["/tf"]

    assert graph.wait(heard)
    assert [t.child_frame_id for t in probe.heard["/tf"][0].transforms] == ["odom", "cam"]


def test_poses_that_come_without_tf_are_completed(graph, start):
    probe, node = start("-p", "prior:=true", "-p", "frames.base:=cam")
    poses = probe.create_publisher(PoseStamped, "odom", qos.PLAYED)
    probe.listen(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: probe.connected(poses) and node.count_subscribers("/tf") >= 1)
    T_odom_cam = pose(np.eye(3), np.array([1.0, 2.0, 3.0]))
    for stamp in (STEP - 10_000_000, STEP + 10_000_000):
        poses.publish(pose_stamped(T_odom_cam, stamp, "odom"))
    assert graph.wait(lambda: len(node._aiding.prior.poses) == 2)
    probe.send_image(STEP)
    assert graph.wait(lambda: probe.heard["/tf"])
    links = {(t.header.frame_id, t.child_frame_id): t.transform for t in probe.heard["/tf"][0].transforms}
    assert list(links) == [("map", "odom"), ("odom", "cam")]
    assert np.allclose(pose_from_message(links["odom", "cam"]), T_odom_cam)


def last(probe):
    """The newest transform."""
    return probe.heard["/tf"][-1].transforms[0]


def test_clouds_come_no_more_often_than_asked(graph, start):
    probe, node = start("-p", "cloud.publish_rate:=4.0")
    probe.listen(PointCloud2, "reconstructor/cloud")
    assert graph.wait(lambda: node.count_subscribers("/reconstructor/cloud"))
    for i in range(1, 14):  # every third is a keyframe, 0.15 s after the one before
        probe.send_image(i * STEP)
        assert graph.wait(lambda i=i: node.run.state().frames == i)
    assert graph.wait(lambda: len(probe.heard["reconstructor/cloud"]) == 3)
    assert [stamp_ns(m) // STEP for m in probe.heard["reconstructor/cloud"]] == [1, 7, 13]


def test_the_path_is_sent_once_a_second_and_complete_at_the_end(graph, start):
    probe, node = start()
    probe.listen(Path, "reconstructor/path", qos.LATCHED)
    for i in range(1, 9):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: node.run.state().frames == 8)
    node.outputs.publish_path()
    sent = node.outputs.published["/reconstructor/path"]
    node.outputs.publish_path()
    assert node.outputs.published["/reconstructor/path"] == sent
    node.outputs.flush()
    assert graph.wait(
        lambda: probe.heard["reconstructor/path"] and len(probe.heard["reconstructor/path"][-1].poses) == 8
    )
