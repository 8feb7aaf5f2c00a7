# SPDX-License-Identifier: Apache-2.0
"""What a drone may send: compressed or best effort images, depth, odometry as prior, a clock that jumps back."""

import cv2
import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from recon3d_ros.core.geometry import body_from_optical, inverse, pose
from recon3d_ros.core.messages import pose_from_message
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import byte_array, header, odometry_message, transform_stamped
from recon3d_ros.ros.messages import TFMessage

STEP = 50_000_000


def test_compressed_best_effort_images_are_taken(graph, start):
    probe, _node, frames = start()
    probe.leave(probe.images)
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


def test_depth_of_another_frame_is_used_and_said_to_be_taken_as_registered(graph, start, caplog):
    probe, _node, frames = start(backend="rgbd", needs_depth=True)
    depths = probe.create_publisher(Image, "depth", qos.PLAYED_IMAGES)
    assert graph.wait(lambda: probe.connected(depths))
    probe.send_info()
    message = Image(header=header(STEP, "depth_cam"), height=24, width=32, encoding="32FC1", step=128)
    message.data = byte_array(np.full((24, 32), 2.0, np.float32))
    depths.publish(message)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].depth is not None and "depth is of frame 'depth_cam'" in caplog.text


def test_odometry_becomes_the_prior_of_the_camera_and_only_map_to_odom_is_published(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    statics = probe.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
    probe.listen(TFMessage, "/tf")
    probe.listen(Odometry, "reconstructor/odometry")
    T_base_cam = body_from_optical() @ pose(np.eye(3), np.array([0.0, 0.1, 0.0]))
    statics.publish(TFMessage(transforms=[transform_stamped(T_base_cam, 0, "base_link", "cam")]))
    assert graph.wait(lambda: probe.connected(odometry))
    assert graph.wait(lambda: node._aiding.transforms.lookup("base_link", "cam") is not None)
    assert graph.wait(lambda: node.count_subscribers("/tf") == 2)  # its own, too
    probe.send_info()
    T_odom_base = pose(np.eye(3), np.array([1.0, 2.0, 3.0]))
    for stamp in (STEP - 10_000_000, STEP + 10_000_000):
        odometry.publish(odometry_message(T_odom_base, stamp, "odom", "base_link"))
    assert graph.wait(lambda: len(node._aiding.prior.poses) == 2)
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
    assert graph.wait(lambda: node._aiding.prior.poses)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].prior is None and node._aiding.counts == {"odometry without transform": 1}


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


CALIBRATION = """
image_width: 64
image_height: 48
camera_name: drone
camera_matrix: {rows: 3, cols: 3, data: [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0.0, 0.0, 0.0, 0.0]}
"""


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION)
    return f"input.camera:={path}"


def test_without_camera_info_the_calibration_file_serves_for_images_of_its_shape(graph, start, calibration):
    probe, node, frames = start("-p", calibration)
    probe.leave(probe.infos)
    assert graph.wait(probe.images.get_subscription_count)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    camera = frames[0].camera
    assert camera.size == (32, 24) and abs(camera.fx - 30.0) < 1e-9 and camera.distortion[0] == 0.1
    assert not node.input.drops


def test_images_of_another_shape_than_the_calibration_are_dropped_and_counted(graph, start, calibration):
    probe, node, frames = start("-p", calibration)
    probe.leave(probe.infos)
    assert graph.wait(probe.images.get_subscription_count)
    probe.send_image(STEP, np.zeros((32, 32, 3), np.uint8))
    assert graph.wait(lambda: node.run.drops["image size"] == 1)
    assert not frames


def test_a_camera_info_that_is_not_calibrated_gives_way_to_the_file(graph, start, calibration):
    probe, _node, frames = start("-p", calibration)
    assert graph.wait(probe.connected)
    probe.send_info(k=[0.0] * 9)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].camera.distortion[0] == 0.1


def test_a_focal_length_is_guessed_where_that_is_asked_for(graph, start):
    probe, _node, frames = start("-p", "input.camera:=guess")
    probe.leave(probe.infos)
    assert graph.wait(probe.images.get_subscription_count)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].camera.estimated


def add_camera(probe, name, depth=False):
    """Another camera of the graph; sends its camera_info and an image."""
    images = probe.create_publisher(Image, f"{name}/image_raw", qos.PLAYED_IMAGES)
    infos = probe.create_publisher(CameraInfo, f"{name}/camera_info", qos.PLAYED)
    if depth:
        probe.create_publisher(Image, f"{name}/depth/image_raw", qos.PLAYED_IMAGES)
    probe.images, probe.infos = images, infos


def test_the_only_camera_of_the_graph_is_taken_where_no_topic_is_given(graph, start):
    probe, node, frames = start()
    probe.leave(probe.images)
    probe.leave(probe.infos)
    add_camera(probe, "/front", depth=True)
    assert graph.wait(probe.connected)
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert node.input.is_open


def test_of_several_cameras_none_is_taken_and_a_choice_is_asked_for(graph, start, capfd):
    probe, node, _frames = start("-p", "input.wait:=0.2")
    probe.leave(probe.images)
    for name in ("/front", "/down"):
        add_camera(probe, name)
    said = []
    assert graph.wait(lambda: said.append(capfd.readouterr().err) or "-r image:=/front" in "".join(said))
    assert "choose one with -r image:=/down/image_raw or -r image:=/front/image_raw" in "".join(said)
    assert not node.input.is_open


def test_a_topic_that_was_given_is_waited_for_whatever_else_is_there(graph, start):
    probe, node, _frames = start("-r", "image:=/wanted/image_raw", "-p", "input.wait:=0.2")
    probe.leave(probe.images)
    add_camera(probe, "/other")
    assert graph.wait(lambda: "/wanted/image_raw: no publisher" in (node.input.silence() or ""))
    assert not graph.wait(probe.images.get_subscription_count, 0.8) and not node.input.is_open


def test_cameras_of_another_drone_are_left_alone(graph, start):
    probe, node, _frames = start("-r", "__ns:=/drone1")
    probe.leave(probe.images)
    add_camera(probe, "/drone10")
    assert not graph.wait(probe.images.get_subscription_count, 0.8)
    add_camera(probe, "/drone1/front")
    assert graph.wait(probe.connected)
    assert node.input.is_open


def test_video_in_an_image_message_is_refused_with_a_hint(graph, start, caplog):
    probe, node, frames = start()
    assert graph.wait(probe.connected)
    probe.send_info()
    probe.send_image(STEP, encoding="h264")
    assert graph.wait(lambda: node.run.drops["encoding"] == 1)
    assert not frames and "let the driver decode it" in caplog.text
