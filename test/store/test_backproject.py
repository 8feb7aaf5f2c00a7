# SPDX-License-Identifier: Apache-2.0
"""Depth to points, held against the camera model and against a plane whose place is known."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import pose, so3_exp, transform
from recon3d_ros.store.backproject import Backprojection

CAMERA = Camera(32, 24, 30.0, 31.0, 15.2, 11.7)
POSE = pose(so3_exp(np.array([0.3, -0.2, 0.5])), np.array([1.0, 2.0, 3.0]))


def images(seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 5, (24, 32)).astype(np.float32)
    colours = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return depth, colours, rng.uniform(0, 1, (24, 32)).astype(np.float32)


def filled(pixels, has_confidence=False):
    points, colours = np.full((pixels.count, 3), 9, np.float32), np.empty((pixels.count, 3), np.uint8)
    confidence = np.empty(pixels.count, np.float32) if has_confidence else None
    return points, colours, confidence, pixels.fill(points, colours, confidence)


def test_points_are_those_of_the_camera_model():
    depth, colours, confidence = images()
    pixels = Backprojection(depth, CAMERA, POSE, colours, confidence)
    points, found_colours, found_confidence, bounds = filled(pixels, has_confidence=True)
    rays = np.dstack([CAMERA.rays(), np.ones((24, 32))]).reshape(-1, 3)
    np.testing.assert_allclose(points, transform(POSE, rays * depth.reshape(-1, 1)), atol=1e-5)
    np.testing.assert_array_equal(found_colours, colours.reshape(-1, 3))
    np.testing.assert_array_equal(found_confidence, confidence.ravel())
    np.testing.assert_array_equal(bounds, [*points.min(axis=0), *points.max(axis=0)])


@pytest.mark.parametrize(
    "T_map_cam", [POSE, pose(so3_exp(np.array([-0.4, 0.1, 1.0])), np.array([-3.0, 0.0, 1.0]))]
)
def test_a_plane_lies_in_the_map_whatever_the_camera_sees_it_from(T_map_cam):
    normal, distance = np.array([0.1, 0.2, 0.9]), 9.0
    rays = np.dstack([CAMERA.rays(), np.ones((24, 32))]) @ T_map_cam[:3, :3].T
    depth = ((distance - normal @ T_map_cam[:3, 3]) / (rays @ normal)).astype(np.float32)
    pixels = Backprojection(depth, CAMERA, T_map_cam, images()[1])
    points, *_ = filled(pixels)
    assert pixels.count > 300
    np.testing.assert_allclose(points @ normal, distance, atol=1e-4)


def test_pixels_without_depth_are_no_points_and_the_rest_is_counted():
    depth, colours, confidence = images()
    depth[0, :4] = [np.nan, 0.0, -1.0, -np.inf]
    depth[1, :3] = [np.inf, 1e30, 2e5]
    confidence[:2] = 1.0
    confidence[2] = 0.2
    confidence[3] = np.nan
    confidence[4:] = 0.3
    pixels = Backprojection(depth, CAMERA, POSE, colours, confidence, min_confidence=0.25)
    assert (pixels.absurd, pixels.unsure) == (3, 64)
    assert pixels.count == depth.size - 4 - 3 - 64
    points, *_ = filled(pixels, has_confidence=True)
    assert np.isfinite(points).all()


def test_an_image_without_depth_gives_no_point_and_zero_bounds():
    depth, colours, _ = images()
    pixels = Backprojection(depth * np.float32(np.nan), CAMERA, POSE, colours)
    *_, bounds = filled(pixels)
    assert pixels.count == 0
    np.testing.assert_array_equal(bounds, np.zeros(6))


def test_a_stride_takes_every_nth_row_and_column():
    depth, colours, _ = images()
    points, found, *_ = filled(Backprojection(depth, CAMERA, POSE, colours, stride=3))
    every, *_ = filled(Backprojection(depth, CAMERA, POSE, colours))
    np.testing.assert_array_equal(points, every.reshape(24, 32, 3)[::3, ::3].reshape(-1, 3))
    np.testing.assert_array_equal(found, colours[::3, ::3].reshape(-1, 3))


def test_images_that_are_views_or_read_only_are_taken_as_they_are():
    depth, colours, _ = images()
    expected, *_ = filled(Backprojection(depth, CAMERA, POSE, colours))
    wide = np.repeat(depth, 2, axis=1)[:, ::2]
    colours.flags.writeable = False
    found, *_ = filled(Backprojection(wide, CAMERA, POSE, colours))
    np.testing.assert_array_equal(found, expected)


def test_images_or_memory_of_another_size_are_refused():
    depth, colours, _ = images()
    with pytest.raises(ValueError, match="size"):
        Backprojection(depth[:-1], CAMERA, POSE, colours)
    pixels = Backprojection(depth, CAMERA, POSE, colours)
    with pytest.raises(ValueError, match="fit"):
        pixels.fill(np.empty((3, 3), np.float32), np.empty((3, 3), np.uint8), None)
