# SPDX-License-Identifier: Apache-2.0
"""The cloud of the whole map: no voxel twice, never too large, and true to corrected poses."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import CloudParams
from recon3d_ros.core.geometry import pose, so3_exp, transform
from recon3d_ros.core.types import Keyframe
from recon3d_ros.mapping.cloud import CloudMap

CAMERA = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)
POSE = pose(so3_exp(np.array([0.3, -0.2, 0.5])), np.array([1.0, 2.0, 3.0]))
TURNED = pose(so3_exp(np.array([0.1, 0.4, 0.0])), np.array([-1.0, 0.5, 0.0]))


def keyframe(index, points, T_map_cam=POSE):
    """Points of one keyframe, all in its colour."""
    points = np.asarray(points, np.float32)
    colours = np.full((len(points), 3), index, np.uint8)
    return Keyframe(index, index, T_map_cam, CAMERA, points, colours)


def grid(x, n=10, step=1.0):
    """n x n points on a wall at x, in the middle of voxels of size 1."""
    y, z = np.meshgrid(np.arange(n), np.arange(n))
    return np.column_stack([np.full(n * n, x), y.ravel(), z.ravel()]) * step + 0.5


def cloud(voxel_size=1.0, max_points=2000):
    return CloudMap(CloudParams(voxel_size=voxel_size, max_points=max_points))


def test_points_and_colours_come_out_as_they_went_in():
    c = cloud()
    c.add(keyframe(3, grid(0)))
    c.add(keyframe(4, grid(-5)))
    np.testing.assert_allclose(c.points, np.concatenate([grid(0), grid(-5)]), atol=1e-5)
    np.testing.assert_array_equal(c.colours[:, 0], [3] * 100 + [4] * 100)
    assert c.points.dtype == np.float32
    assert c.colours.dtype == np.uint8


def test_an_empty_cloud_has_empty_arrays():
    c = cloud()
    c.add(keyframe(0, np.empty((0, 3))))
    assert (c.points.shape, c.colours.shape, len(c)) == ((0, 3), (0, 3), 0)


def test_of_all_points_in_a_voxel_the_first_is_kept():
    rng = np.random.default_rng(0)
    c = cloud(voxel_size=0.5, max_points=100_000)
    batches = [rng.uniform(-4, 4, (3000, 3)) for _ in range(3)]
    for index, points in enumerate(batches):
        c.add(keyframe(index, points))
    everything = np.concatenate(batches).astype(np.float32)
    _, first = np.unique(np.floor(everything / 0.5), axis=0, return_index=True)
    np.testing.assert_allclose(c.points, everything[np.sort(first)], atol=1e-5)


def test_a_cloud_without_voxel_size_keeps_all_until_it_is_known():
    c = cloud(voxel_size=0.0)
    c.add(keyframe(0, grid(0)))
    c.add(keyframe(1, grid(0)))
    assert len(c) == 200
    c.voxel_size = 1.0
    assert len(c) == 100
    c.add(keyframe(2, grid(0)))
    assert len(c) == 100


def test_m16_on_overflow_the_newest_nine_tenths_of_the_bound_remain():
    c = cloud(max_points=2000)
    for index in range(20):
        c.add(keyframe(index, grid(index)))
    assert len(c) == 2000
    c.add(keyframe(20, grid(20)))
    assert len(c) == 1800
    np.testing.assert_array_equal(np.unique(c.colours), np.arange(3, 21))


def test_m16_ranges_name_the_points_of_each_keyframe_after_pruning():
    c = cloud(max_points=2000)
    for index in range(60):
        c.add(keyframe(index, grid(index, n=7)))
        points, colours = c.points, c.colours
        for keyframe_id, rows in c.ranges().items():
            assert (colours[rows] == keyframe_id).all()
            np.testing.assert_allclose(points[rows, 0], keyframe_id + 0.5, atol=1e-4)
        assert sum(rows.stop - rows.start for rows in c.ranges().values()) == len(c) <= 2000


def test_a_voxel_of_a_dropped_point_is_free_again():
    c = cloud(max_points=2000)
    for index in range(21):
        c.add(keyframe(index, grid(index)))
    c.add(keyframe(21, grid(0)))
    np.testing.assert_allclose(c.points[c.ranges()[21]], grid(0), atol=1e-4)


def test_one_keyframe_larger_than_the_bound_is_cut():
    c = cloud(max_points=2000)
    c.add(keyframe(0, grid(0, n=60)))
    assert len(c) == 1800


@pytest.mark.parametrize("change", [TURNED, pose(np.eye(3), np.array([0.01, 0.0, 0.0]))])
def test_points_follow_the_corrected_pose_of_their_keyframe(change):
    c = cloud()
    c.add(keyframe(0, grid(0)))
    c.add(keyframe(1, grid(9, step=2)))
    c.correct({1: change @ POSE, 77: POSE})
    expected = transform(change, grid(9, step=2))
    np.testing.assert_allclose(c.points, np.concatenate([grid(0), expected]), atol=1e-5)


def test_a_correction_by_more_than_a_voxel_moves_the_voxels_too():
    c = cloud()
    c.add(keyframe(0, grid(0)))
    c.correct({0: pose(np.eye(3), np.array([5.0, 0.0, 0.0])) @ POSE})
    c.add(keyframe(1, np.concatenate([grid(0), grid(5)])))
    np.testing.assert_allclose(c.points[c.ranges()[1]], grid(0), atol=1e-5)


def test_a_map_that_is_corrected_as_a_whole_keeps_all_its_points():
    c = cloud()
    for index in range(5):
        c.add(keyframe(index, grid(index)))
    shift = pose(np.eye(3), np.array([1.0, 0.0, 0.0]))
    for _ in range(400):
        c.correct({index: shift @ POSE for index in range(5)})
        c.correct({index: POSE for index in range(5)})
    assert len(c) == 500
    c.add(keyframe(5, np.concatenate([grid(0), grid(5)])))
    np.testing.assert_allclose(c.points[c.ranges()[5]], grid(5), atol=1e-5)


def test_a_keyframe_added_again_replaces_its_points():
    c = cloud()
    c.add(keyframe(0, grid(0)))
    c.add(keyframe(1, grid(1)))
    c.add(keyframe(0, np.concatenate([grid(0), grid(7)])))
    assert len(c) == 300
    assert {i: r.stop - r.start for i, r in c.ranges().items()} == {1: 100, 0: 200}


def test_a_reset_forgets_all_points():
    c = cloud()
    c.add(keyframe(0, grid(0)))
    c.reset()
    assert len(c) == 0
    c.add(keyframe(0, grid(0)))
    assert len(c) == 100
