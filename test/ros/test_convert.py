# SPDX-License-Identifier: Apache-2.0
"""Messages made from the nouns of the core: layout, frames, stamps."""

import struct

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import FrameParams
from recon3d_ros.core.geometry import inverse, pose, so3_exp
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.types import Keyframe, Scale, Tracking, Update
from recon3d_ros.ros.convert import (
    cloud_message,
    keyframe_message,
    odometry_message,
    pose_stamped,
    transform_stamped,
)
from recon3d_ros.ros.messages import TFMessage
from recon3d_ros.ros.tf import MapToOdom, Transforms

T = pose(so3_exp(np.array([0.3, -0.5, 0.9])), np.array([1.0, -2.0, 3.0]))
POINTS = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]], np.float32)
COLOURS = np.array([[255, 1, 2], [3, 4, 200]], np.uint8)


def test_a_cloud_has_the_layout_that_viewers_colour_by_themselves():
    message = cloud_message(POINTS, COLOURS, None, 5_000_000_007, "map")
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1),
    ]  # fmt: skip
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 16, 32)
    assert message.is_dense and not message.is_bigendian and len(message.data) == 32
    assert struct.unpack("<3f4B", bytes(message.data[:16])) == (1.0, 2.0, 3.0, 2, 1, 255, 0)
    assert stamp_ns(message) == 5_000_000_007 and message.header.frame_id == "map"


def test_confidence_is_one_more_field_and_no_points_are_a_valid_cloud():
    message = cloud_message(POINTS, COLOURS, np.array([0.5, 1.0], np.float32), 1, "map")
    assert message.fields[4].name == "confidence" and message.point_step == 20
    assert struct.unpack("<5f", bytes(message.data[20:]))[4] == 1.0
    empty = cloud_message(POINTS[:0], COLOURS[:0], None, 1, "map")
    assert (empty.width, empty.row_step, len(empty.data)) == (0, 0, 0)


def test_poses_transforms_and_odometry_come_back_as_they_went():
    assert np.allclose(pose_from_message(pose_stamped(T, 1, "map").pose), T)
    assert np.allclose(pose_from_message(odometry_message(T, 1, "odom", "cam").pose.pose), T)
    link = transform_stamped(T, 3, "map", "odom")
    assert np.allclose(pose_from_message(link.transform), T)
    assert (link.header.frame_id, link.child_frame_id, stamp_ns(link)) == ("map", "odom", 3)


def test_a_keyframe_notice_describes_and_carries_no_point():
    camera = Camera(4, 3, 5.0, 6.0, 1.5, 1.0)
    message = keyframe_message(Keyframe(7, 9, T, camera, POINTS, COLOURS, None, Scale.SENSOR), "map")
    assert (message.id, message.point_count, message.has_confidence) == (7, 2, False)
    assert message.bbox_min.tolist() == [-4, 2, -6] and message.bbox_max.tolist() == [1, 5, 3]
    assert message.intrinsics.tolist() == [5, 6, 1.5, 1] and (message.width, message.height) == (4, 3)
    assert message.scale_state == "sensor" and np.allclose(pose_from_message(message.pose), T)


def update(index, T_map_cam, keyframe=False, **corrections):
    newer = {int(k[1:]): v for k, v in corrections.items()}
    return Update(index, index, T_map_cam, Tracking.TRACKING, is_keyframe=keyframe, corrections=newer)


def test_a_correction_moves_map_to_odom_and_the_camera_goes_on_smoothly_in_odom():
    split = MapToOdom()
    step = pose(np.eye(3), np.array([0.1, 0.0, 0.0]))
    split.follow(update(0, T, keyframe=True))
    split.follow(update(1, T @ step))
    before = split.in_odom(T @ step)
    moved = pose(so3_exp(np.array([0.0, 0.02, 0.0])), np.array([0.2, 0.1, 0.0])) @ T
    split.follow(update(2, moved @ step @ step, k0=moved))
    after = split.in_odom(moved @ step @ step)
    assert np.allclose(inverse(before) @ after, step)
    assert np.allclose(split.T_map_odom @ T, moved)


def test_in_another_map_odometry_goes_on_from_where_it_was():
    split = MapToOdom()
    step = pose(np.eye(3), np.array([0.1, 0.0, 0.0]))
    before = split.in_odom(T)
    other = split.elsewhere()
    assert np.allclose(other.in_odom(np.eye(4)), before)
    assert np.allclose(other.in_odom(step), before @ step)


def test_static_transforms_are_found_through_a_chain_in_both_directions_and_never_invented():
    A, B = pose(so3_exp(np.array([0.1, 0, 0])), np.array([1.0, 0, 0])), T
    tree = Transforms()
    tree.add(
        TFMessage(
            transforms=[transform_stamped(A, 0, "base", "mast"), transform_stamped(B, 0, "/mast", "cam")]
        )
    )
    assert np.allclose(tree.lookup("base", "cam"), A @ B)
    assert np.allclose(tree.lookup("cam", "base"), inverse(A @ B))
    assert np.allclose(tree.lookup("cam", "cam"), np.eye(4))
    assert tree.lookup("base", "lidar") is None
    tree.add(TFMessage(transforms=[transform_stamped(A, 0, "cam", "base")]))  # a loop is nobody's tree
    assert tree.lookup("base", "lidar") is None


def test_a_prefix_is_put_before_names_once_and_what_is_looked_up_gets_it_too():
    frames = FrameParams(prefix="drone1/", base="base_link")
    assert frames.named("map") == "drone1/map" and frames.named("") == ""
    assert frames.named("/drone1/cam") == frames.optical("cam") == "drone1/cam"
    assert FrameParams(camera="lens", prefix="d_").optical("cam") == "d_lens"
    assert FrameParams().named("/map") == "map"
    tree = Transforms(frames.named)
    tree.add(TFMessage(transforms=[transform_stamped(T, 0, "drone1/base_link", "drone1/cam")]))
    tree.add(TFMessage(transforms=[transform_stamped(inverse(T), 0, "base_link", "cam")]))
    assert np.allclose(tree.lookup("base_link", "drone1/cam"), T)
