# SPDX-License-Identifier: Apache-2.0
"""What a drone may send: compressed or best effort images, depth, odometry as prior, a clock that jumps back."""

import cv2
import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.core.geometry import body_from_optical, inverse, pose
from recon3d_ros.core.messages import pose_from_message
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import byte_array, header, odometry_message, transform_stamped
from recon3d_ros.ros.messages import TFMessage

STEP = 50_000_000


@pytest.fixture
def start(graph):
    """Starts a node whose backend keeps the frames it gets."""

    def start(*args, backend="geometric", needs_depth=False):
        frames = []

        class Watching(graph.backend):
            capabilities = Capabilities(needs_depth=needs_depth)

            def step(self, frame):
                frames.append(frame)
                return super().step(frame)

        graph.start("-p", f"backend:={backend}", *args)
        probe = graph.probe()
        return probe, graph.add(ReconstructorNode(create=lambda *_: Watching())), frames

    return start


def test_compressed_best_effort_images_are_taken(graph, start):
    probe, _node, frames = start()
    probe.destroy_publisher(probe.images)
    images = probe.images = probe.create_publisher(
        CompressedImage, "image/compressed", qos_profile_sensor_data
    )
    assert graph.wait(probe.connected)
    probe.send_info()
    _, data = cv2.imencode(".png", graph.image[..., ::-1])
    message = CompressedImage(
        header=header(STEP, "cam"), format="rgb8; png compressed bgr8", data=byte_array(data)
    )
    assert graph.wait(lambda: images.publish(message) or frames)
    assert (frames[0].image == graph.image).all() and frames[0].frame_id == "cam"


def test_a_backend_that_needs_depth_waits_for_it_and_says_so(graph, start):
    probe, node, _ = start("-p", "input.wait:=0.2", backend="rgbd", needs_depth=True)
    assert not graph.wait(probe.images.get_subscription_count, 0.8)
    assert "/depth: no publisher" in node.input.silence()


def test_depth_of_another_camera_comes_with_that_camera(graph, start):
    probe, _node, frames = start("-r", "depth:=/depth/image", backend="rgbd", needs_depth=True)
    depths = probe.create_publisher(Image, "/depth/image", qos.PLAYED_IMAGES)
    infos = probe.create_publisher(CameraInfo, "/depth/camera_info", qos.PLAYED)
    assert graph.wait(lambda: probe.connected(depths, infos))
    probe.send_info()
    infos.publish(CameraInfo(width=16, height=12, k=[20.0, 0.0, 7.5, 0.0, 20.0, 5.5, 0.0, 0.0, 1.0]))
    probe.send_image(STEP)
    millimetres = np.full((12, 16), 1500, np.uint16)
    message = Image(header=header(STEP + 1000, "cam"), height=12, width=16, encoding="16UC1", step=32)
    message.data = byte_array(millimetres)
    depths.publish(message)
    probe.send_image(2 * STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].depth.shape == (12, 16) and frames[0].depth[0, 0] == 1.5
    assert frames[0].depth_camera.fx == 20.0 and frames[0].camera.fx == 30.0


def test_odometry_becomes_the_prior_of_the_camera_and_only_map_to_odom_is_published(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    statics = probe.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
    probe.listen(TFMessage, "/tf")
    probe.listen(Odometry, "reconstructor/odometry")
    T_base_cam = body_from_optical() @ pose(np.eye(3), np.array([0.0, 0.1, 0.0]))
    statics.publish(TFMessage(transforms=[transform_stamped(T_base_cam, 0, "base_link", "cam")]))
    assert graph.wait(lambda: probe.connected(odometry))
    assert graph.wait(lambda: node._transforms.lookup("base_link", "cam") is not None)
    assert graph.wait(lambda: node.count_subscribers("/tf") == 1)
    probe.send_info()
    T_odom_base = pose(np.eye(3), np.array([1.0, 2.0, 3.0]))
    for stamp in (STEP - 10_000_000, STEP + 10_000_000):
        odometry.publish(odometry_message(T_odom_base, stamp, "odom", "base_link"))
    assert graph.wait(lambda: len(node._prior._poses) == 2)
    probe.send_image(STEP)
    assert graph.wait(lambda: probe.heard["/tf"])
    assert np.allclose(frames[0].prior, T_odom_base @ T_base_cam)
    (link,) = probe.heard["/tf"][0].transforms
    assert (link.header.frame_id, link.child_frame_id) == ("map", "odom")
    T_map_cam = node.run.pipeline.trajectory().poses[0]
    assert np.allclose(pose_from_message(link.transform), T_map_cam @ inverse(frames[0].prior))
    assert not probe.heard["reconstructor/odometry"]


def test_odometry_of_a_body_that_nothing_links_to_the_camera_is_not_used(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    assert graph.wait(lambda: probe.connected(odometry))
    probe.send_info()
    odometry.publish(odometry_message(np.eye(4), STEP, "odom", "base_link"))
    assert graph.wait(lambda: node._prior._poses)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].prior is None and node._prior.counts == {"odometry without transform": 1}


def test_a_clock_that_jumps_back_begins_a_new_map(graph, start):
    probe, node, _frames = start("-p", "use_sim_time:=true")
    clock = probe.create_publisher(Clock, "/clock", qos.PLAYED)
    assert graph.wait(lambda: probe.connected(clock))
    probe.send_info()
    for second in (10, 11):
        clock.publish(Clock(clock=header(second * 10**9, "").stamp))
        probe.send_image(second * 10**9)
    assert graph.wait(lambda: node.run.state().frames == 2)
    clock.publish(Clock(clock=header(10**9, "").stamp))
    assert graph.wait(lambda: node.run.state().frames == 0)
    probe.send_image(10**9)
    assert graph.wait(lambda: node.run.state().frames == 1)
    assert not node.run.drops
