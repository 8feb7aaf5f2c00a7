# SPDX-License-Identifier: Apache-2.0
"""Where the camera is expected, and what it has come back to."""

import numpy as np
import pytest

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.map import Keyframe, Map
from recon3d_ros.backends.geometric.motion import Motion, expected_pixels, looking_there, turned_back
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse, pose, similarity, so3_exp

LENS = Lens(Camera(640, 480, 500.0, 500.0, 319.5, 239.5), 500.0)


def at(x, degrees=0.0):
    """T_cam_map of a camera at x, turned to the side."""
    return inverse(pose(so3_exp(np.array([0.0, np.radians(degrees), 0.0])), np.array([x, 0.0, 0.0])))


def test_without_given_poses_the_motion_goes_on():
    motion = Motion()
    for x in (0.0, 1.0, 2.0):
        motion.moved(at(x, 5 * x))
    assert motion.predict() == pytest.approx(at(2.0, 10.0) @ inverse(at(1.0, 5.0)) @ at(2.0, 10.0))


def test_given_poses_tell_the_next_step_in_a_unit_that_is_found():
    motion = Motion()
    for x in (0.0, 1.0, 2.0):
        motion.moved(at(x), inverse(at(3 * x)))
    assert motion.predict(inverse(at(3 * 2.5, 40.0))) == pytest.approx(at(2.5, 40.0))


def test_the_unit_of_given_poses_follows_a_map_that_grows():
    motion = Motion()
    for x in (0.0, 1.0, 2.0):
        motion.moved(at(x), inverse(at(3 * x)))
    motion.move(similarity(2.0, np.eye(3), np.zeros(3)))
    assert motion.predict(inverse(at(3 * 3.0))) == pytest.approx(at(6.0))


def test_a_camera_found_again_is_expected_to_stay():
    motion = Motion()
    motion.moved(at(0.0))
    motion.moved(at(1.0))
    motion.stop(at(7.0))
    assert motion.predict() == pytest.approx(at(7.0))


def test_tracks_are_expected_where_their_points_project_to():
    world = Map(500.0)
    ids = world.allocate(3)
    X = np.array([[0.1, 0.0, 4.0], [-0.5, 0.2, 6.0], [np.nan] * 3])
    world.place(ids, X)
    px = LENS.project(at(0.0), np.array([X[0], X[1], [0.3, 0.1, 5.0]]))
    expected = expected_pixels(ids, px, LENS, world, at(0.0), at(0.2, 8.0))
    # The one without a point is taken to lie at the median depth, 5.
    assert expected == pytest.approx(
        LENS.project(at(0.2, 8.0), np.array([X[0], X[1], [0.3, 0.1, 5.0]])), abs=1e-3
    )


def test_a_track_that_should_leave_the_image_is_looked_for_where_it_is():
    world = Map(500.0)
    ids = world.allocate(1)
    world.place(ids, np.array([[0.0, 0.0, 4.0]]))
    px = np.array([[319.5, 239.5]], np.float32)
    assert np.array_equal(expected_pixels(ids, px, LENS, world, at(0.0), at(0.0, 80.0)), px)


def turn(there_and_back):
    """A map whose camera turned in place; each keyframe has its own ten points four units before it."""
    world = Map(500.0)
    for index, degrees in enumerate(there_and_back):
        ids = world.allocate(10)
        T = at(0.01 * index, degrees)
        world.place(ids, np.tile(inverse(T)[:3, :3] @ [0, 0, 4.0] + inverse(T)[:3, 3], (10, 1)))
        world.add(Keyframe(index, object(), T, ids, np.zeros((10, 2), np.float32), np.zeros((10, 2))))
    return world


def test_what_was_seen_before_a_turn_is_known_again_after_it():
    world = turn([0, 5, 30, 60, 75, 60, 30])
    assert [k.index for k in turned_back(world, at(0.0, 2.0))] == [0, 1]
    assert turned_back(world, at(3.0, 12.0)) == []  # far from there
    assert turned_back(turn([0, 5, 10, 15, 10]), at(0.0, 5.0)) == []  # never away


def test_a_camera_that_went_round_is_left_to_loop_closing():
    world = turn([0, 5, 30, 60, 75, 60, 30])
    away = world.keyframes[3]
    away.T_cam_map = at(3.0, 60.0)
    assert turned_back(world, at(0.0, 2.0)) == []


def test_a_shaken_camera_was_never_away():
    assert turned_back(turn([0, 10] * 10), at(0.0, 5.0)) == []


def test_once_a_place_shares_tracks_with_the_last_keyframe_it_was_found_again():
    world = turn([0, 5, 30, 60, 75, 60, 30])
    last, first = world.keyframes[-1], world.keyframes[0]
    last.observe(first.ids, first.px, first.uv)
    assert turned_back(world, at(0.0, 2.0)) == []
    assert [k.index for k in looking_there(world.keyframes, at(0.0, 2.0))] == [0, 1]
