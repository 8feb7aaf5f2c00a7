# SPDX-License-Identifier: Apache-2.0
"""Points of a keyframe back into a depth image."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.mapping.splat import median_depth, splat


@pytest.fixture
def shot(take_flight):
    return take_flight(1)[0]


def test_the_depth_and_colour_of_every_pixel_come_back(shot):
    image, filled, dropped = splat(shot.keyframe(), 100.0)
    assert dropped == 0 and filled == (shot.depth > 0).sum()
    assert np.array_equal(image.depth > 0, shot.depth > 0)
    assert np.abs(image.depth - shot.depth).max() < 1e-6
    assert np.array_equal(image.colours[shot.depth > 0], shot.colours[shot.depth > 0])
    assert np.array_equal(np.unique(image.weights), [0, 64])


def test_of_points_in_one_pixel_the_nearest_is_kept_in_any_order(shot):
    keyframe = shot.keyframe()
    centre = keyframe.T_map_cam[:3, 3].astype(np.float32)
    behind = centre + 1.5 * (keyframe.points - centre)
    once, _, _ = splat(keyframe, 100.0)
    for points in ((keyframe.points, behind), (behind, keyframe.points)):
        colours = np.concatenate([keyframe.colours, keyframe.colours])
        twice, _, _ = splat(replace(keyframe, points=np.concatenate(points), colours=colours), 100.0)
        assert np.array_equal(twice.depth, once.depth) and np.array_equal(twice.colours, once.colours)


def test_m17_points_that_are_not_finite_or_absurdly_far_are_dropped_and_counted(shot):
    keyframe = shot.keyframe()
    points = keyframe.points.copy()
    points[5:10] = np.nan
    points[10, 1] = np.inf
    away = keyframe.T_map_cam[:3, 2].astype(np.float32)
    points[11] = 1e9 * away
    points[12] = 3e38 * away
    image, filled, dropped = splat(replace(keyframe, points=points), 100.0)
    assert dropped == 8 and filled == len(points) - 8 and image.depth.max() < 100


def test_points_behind_the_camera_or_outside_the_image_are_left_out(shot):
    keyframe = shot.keyframe()
    centre = keyframe.T_map_cam[:3, 3].astype(np.float32)
    sideways = keyframe.points + 50 * keyframe.T_map_cam[:3, 0].astype(np.float32)
    for points in (2 * centre - keyframe.points, sideways):
        _, filled, dropped = splat(replace(keyframe, points=points), 100.0)
        assert (filled, dropped) == (0, 0)


def test_confidence_becomes_the_weight_and_none_of_it_drops_the_point(shot):
    keyframe = shot.keyframe()
    confidence = np.full(len(keyframe.points), 0.5, np.float32)
    confidence[:20], confidence[20:40], confidence[40:60] = 0.0, 0.02, 7.0
    image, filled, _ = splat(replace(keyframe, confidence=confidence), 100.0)
    assert filled == len(confidence) - 20
    assert np.unique(image.weights).tolist() == [0, 1, 32, 64]


def test_median_depth_is_that_of_the_points_in_front(shot):
    keyframe = shot.keyframe()
    assert median_depth(keyframe) == pytest.approx(np.median(shot.depth[shot.depth > 0]), rel=0.02)
    assert median_depth(replace(keyframe, points=np.full((50, 3), np.nan, np.float32))) == 0.0
    assert median_depth(replace(keyframe, points=np.empty((0, 3), np.float32))) == 0.0
