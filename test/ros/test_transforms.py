# SPDX-License-Identifier: Apache-2.0
"""Transforms between any two frames of /tf_static and /tf, at a stamp."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from recon3d_ros.core.geometry import inverse, pose, so3_exp
from recon3d_ros.ros import tf
from recon3d_ros.ros.convert import transform_stamped
from recon3d_ros.ros.messages import TFMessage

MS = 1_000_000


def at(x, angle=0.0):
    return pose(so3_exp(np.array([0.0, 0.0, angle])), np.array([x, 0.0, 0.0]))


def link(parent, child, T, stamp=0):
    return TFMessage(transforms=[transform_stamped(T, stamp, parent, child)])


def test_a_moving_link_is_interpolated_at_the_stamp_and_chained_with_static_ones():
    transforms = tf.Transforms()
    transforms.add(link("gimbal", "cam", at(0.5)))
    for stamp, x, angle in ((100 * MS, 1.0, 0.0), (200 * MS, 2.0, 0.4)):
        transforms.add_moving(link("base", "gimbal", at(x, angle), stamp))
    assert np.allclose(transforms.lookup("base", "cam", 150 * MS), at(1.5, 0.2) @ at(0.5))
    assert np.allclose(transforms.lookup("cam", "base", 150 * MS), inverse(at(1.5, 0.2) @ at(0.5)))
    assert np.allclose(transforms.lookup("base", "gimbal"), at(2.0, 0.4))


def test_outside_of_what_was_heard_the_nearest_is_taken_within_the_tolerance_only():
    transforms = tf.Transforms()
    transforms.add_moving(link("base", "cam", at(1.0), 100 * MS))
    assert np.allclose(transforms.lookup("base", "cam", 110 * MS, 20 * MS), at(1.0))
    assert transforms.lookup("base", "cam", 130 * MS, 20 * MS) is None
    assert transforms.lookup("base", "cam", 130 * MS) is None


def test_links_that_do_not_matter_are_not_waited_for():
    transforms = tf.Transforms()
    transforms.add(link("base", "cam", at(0.5)))
    transforms.add_moving(link("odom", "base", at(9.0), 1))  # long ago
    assert np.allclose(transforms.lookup("base", "cam", 10**12, 10**12), at(0.5))


def test_links_below_ignored_frames_are_not_taken_and_static_ones_stand():
    transforms = tf.Transforms(ignored={"odom"})
    transforms.add_moving(link("odom", "base", at(1.0), 1))
    transforms.add_moving(link("odom", "cam", at(2.0), 1))
    assert transforms.lookup("base", "cam") is None
    transforms.add(link("base", "cam", at(0.5)))
    transforms.add_moving(link("base", "cam", at(7.0), 2))
    assert np.allclose(transforms.lookup("base", "cam", 2), at(0.5))


def test_after_a_jump_of_time_what_moved_is_forgotten_and_earlier_stamps_are_taken():
    transforms = tf.Transforms()
    transforms.add_moving(link("base", "cam", at(1.0), 10**9))
    transforms.forget_moving()
    assert transforms.lookup("base", "cam") is None
    transforms.add_moving(link("base", "cam", at(2.0), 5))
    assert np.allclose(transforms.lookup("base", "cam", 5), at(2.0))


def test_what_is_kept_of_frames_is_bounded_and_broken_links_are_counted(monkeypatch):
    monkeypatch.setattr(tf, "_FRAMES", 3)
    transforms = tf.Transforms()
    for i in range(5):
        transforms.add_moving(link("base", f"frame{i}", at(i), 1))
    transforms.add_moving(link("base", "frame0", at(8.0), 2))  # of a known frame
    transforms.add_moving(link("", "cam", at(0.0), 1))
    transforms.add(link("cam", "cam", at(0.0)))
    transforms.add(link("base", "bad", at(np.nan)))
    assert transforms.counts == {"too many frames on /tf": 2, "transform invalid": 3}
    assert np.allclose(transforms.lookup("base", "frame0"), at(8.0))


def test_a_loop_ends_the_search():
    transforms = tf.Transforms()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        transforms.add_moving(link(parent, child, at(1.0), 1))
    assert transforms.lookup("a", "elsewhere", 1) is None
    assert transforms.lookup("a", "b", 1) is not None
