# SPDX-License-Identifier: Apache-2.0
"""Depth errors on depth whose error is known."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.evaluation.depth import depth_error, keyframe_depth, seen_by

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)


def slope(height=48, width=64):
    """Depth from 2 m to 6 m over the columns."""
    return np.tile(np.linspace(2, 6, width, dtype=np.float32), (height, 1))


def test_equal_depth_has_no_error_and_covers_everything():
    error = depth_error([keyframe_depth(slope(), slope())], "none")
    assert error.abs_rel_median == error.abs_rel_mean == 0.0
    assert error.below_125 == error.coverage == 1.0 and error.pixels == 48 * 64


@pytest.mark.parametrize(
    ("scaling", "error", "scale"),
    [("none", 0.5, 1.0), ("median", 0.0, 2.0), ("keyframe", 0.0, 2.0), ("trajectory", 0.05, 1.9)],
)
def test_depth_of_another_scale_has_the_error_that_the_scaling_leaves(scaling, error, scale):
    result = depth_error([keyframe_depth(slope() / 2, slope())], scaling, trajectory_scale=1.9)
    assert result.abs_rel_median == pytest.approx(error, abs=1e-6)
    assert result.scale == pytest.approx(scale)


def test_one_scale_for_all_shows_a_drift_that_a_scale_for_each_hides():
    keyframes = [keyframe_depth(slope() * s, slope()) for s in (0.8, 1.0, 1.25)]
    one, each = depth_error(keyframes, "median"), depth_error(keyframes, "keyframe")
    assert one.abs_rel_mean == pytest.approx((0.2 + 0.0 + 0.25) / 3, abs=1e-6)
    assert each.abs_rel_mean == pytest.approx(0.0, abs=1e-6)
    assert (each.scale_low, each.scale_high) == (pytest.approx(0.8), pytest.approx(1.25))


def test_the_share_of_good_ratios_counts_both_too_near_and_too_far():
    estimate = slope()
    estimate[:12] *= 1.3
    estimate[12:24] /= 1.3
    assert depth_error([keyframe_depth(estimate, slope())], "none").below_125 == pytest.approx(0.5)


def test_coverage_is_the_share_of_pixels_with_true_depth_that_have_an_estimate():
    estimate, truth = slope(), slope()
    estimate[:, 16:] = np.nan
    truth[:, 32:] = np.nan
    assert depth_error([keyframe_depth(estimate, truth)], "none").coverage == 0.5
    nothing = keyframe_depth(np.full_like(estimate, np.nan), truth)
    assert depth_error([keyframe_depth(estimate, truth), nothing], "none").coverage == 0.25
    assert depth_error([nothing], "median") is None


def test_an_unknown_scaling_is_refused():
    with pytest.raises(InputError, match="use one of none, trajectory, median, keyframe"):
        depth_error([keyframe_depth(slope(), slope())], "mean")


def plane(camera):
    """Depth of the plane z = 4 + 0.5 x as a camera sees it."""
    return (4 / (1 - 0.5 * camera.rays()[..., 0].astype(np.float64))).astype(np.float32)


@pytest.mark.parametrize(
    "other",
    [
        CAMERA.resized(128, 96),
        Camera(80, 60, 58.0, 58.0, 39.0, 30.0),
        Camera(96, 72, 60.0, 60.0, 47.5, 35.5, "plumb_bob", (0.2, -0.3, 0.001, 0.002, 0.0)),
    ],
    ids=["size", "intrinsics", "distortion"],
)
def test_depth_that_another_camera_saw_from_the_same_place_is_compared_ray_by_ray(other):
    seen = seen_by(CAMERA, plane(other), other)
    known = np.isfinite(seen)
    assert known.mean() > 0.7
    assert np.allclose(seen[known], plane(CAMERA)[known], rtol=1e-3)


def test_nothing_is_interpolated_across_an_edge():
    double = CAMERA.resized(128, 96)
    depth = np.full((96, 128), 2.0, np.float32)
    depth[:, 65:] = 8.0
    assert set(np.unique(seen_by(CAMERA, depth, double))) <= {2.0, 8.0}
