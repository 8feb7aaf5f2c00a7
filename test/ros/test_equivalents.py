# SPDX-License-Identifier: Apache-2.0
"""What this package does by itself agrees with sensor_msgs_py and tf_transformations, wherever they can be imported."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from sensor_msgs.msg import PointField

from recon3d_ros.core.geometry import (
    R_BODY_OPTICAL,
    inverse,
    pose,
    quaternion_from_rotation,
    rotation_from_quaternion,
)
from recon3d_ros.core.px4 import R_ENU_NED, R_FLU_FRD
from recon3d_ros.ros.convert import cloud_message

RNG = np.random.default_rng(7)
N = 500
POINTS = RNG.normal(size=(N, 3)).astype(np.float32)
COLOURS = RNG.integers(0, 256, (N, 3)).astype(np.uint8)
CONFIDENCE = RNG.random(N).astype(np.float32)


def test_a_reader_of_clouds_gets_back_what_was_written():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    cloud = cloud_message(POINTS, COLOURS, CONFIDENCE, 5, "map")
    read = point_cloud2.read_points(cloud)
    assert (read["x"] == POINTS[:, 0]).all() and (read["z"] == POINTS[:, 2]).all()
    assert (read["confidence"] == CONFIDENCE).all()
    packed = np.ascontiguousarray(read["rgb"]).view(np.uint32)
    assert (np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1) == COLOURS).all()
    assert (point_cloud2.read_points_numpy(cloud, field_names=["x", "y", "z"]) == POINTS).all()


@pytest.mark.parametrize("confidence", [None, CONFIDENCE], ids=["without confidence", "with confidence"])
def test_the_maker_of_clouds_makes_the_same_message(confidence):
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    cloud = cloud_message(POINTS, COLOURS, confidence, 5, "map")
    names = ["x", "y", "z", "rgb"] + ([] if confidence is None else ["confidence"])
    fields = [PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(names)]
    dtype = [(name, "<u4" if name == "rgb" else "<f4") for name in names]
    values = np.empty(N, dtype)
    values["x"], values["y"], values["z"] = POINTS.T
    values["rgb"] = (COLOURS.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=1)
    if confidence is not None:
        values["confidence"] = confidence
    floats = values.view([(name, "<f4") for name in names])
    made = point_cloud2.create_cloud(cloud.header, fields, floats)
    made.is_dense = True  # it always says that points may be missing; of ours none is
    assert made == cloud


def quaternions():
    """Random ones, and those where a component or the trace vanishes."""
    special = np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [-0.5, 0.5, -0.5, 0.5]], float
    )
    q = np.vstack([special, RNG.normal(size=(200, 4))])
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def same_rotation(a, b):
    return min(np.abs(a - b).max(), np.abs(a + b).max()) < 1e-12


def test_quaternions_and_matrices_are_those_of_tf_transformations():
    tf = pytest.importorskip("tf_transformations")
    for q in quaternions():
        R = rotation_from_quaternion(q)
        assert np.allclose(R, tf.quaternion_matrix(q)[:3, :3], atol=1e-12)
        assert same_rotation(quaternion_from_rotation(R), tf.quaternion_from_matrix(pose(R, np.zeros(3))))
        T = pose(R, np.array([1.0, -2.0, 3.0]))
        assert np.allclose(inverse(T), tf.inverse_matrix(T), atol=1e-12)


def test_the_rotations_of_flight_stacks_are_the_euler_angles_of_their_documents():
    tf = pytest.importorskip("tf_transformations")
    assert np.allclose(R_ENU_NED, tf.euler_matrix(np.pi, 0, np.pi / 2)[:3, :3])
    assert np.allclose(R_FLU_FRD, tf.euler_matrix(np.pi, 0, 0)[:3, :3])
    q = (-0.5, 0.5, -0.5, 0.5)  # the optical frame in the body: roll -90, yaw -90 degrees
    assert same_rotation(np.array(q), tf.quaternion_from_euler(-np.pi / 2, 0, -np.pi / 2))
    assert np.allclose(R_BODY_OPTICAL, tf.quaternion_matrix(q)[:3, :3])
