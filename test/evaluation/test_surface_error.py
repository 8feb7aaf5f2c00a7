# SPDX-License-Identifier: Apache-2.0
"""Surface errors of surfaces whose error is known."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import pose
from recon3d_ros.evaluation.surface import (
    Distances,
    cloud_surface,
    mesh_surface,
    sample_surface,
    surface_error,
)
from recon3d_ros.evaluation.thinning import thinned
from recon3d_ros.evaluation.views import View, fused, seen

TWO_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
CAMERA = Camera(80, 60, 60.0, 60.0, 39.5, 29.5)
#: Its model brings rays of 50 degrees and more back into the image.
LENS = Camera(80, 60, 60.0, 60.0, 39.5, 29.5, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))


def square(height=0.0, width=1.0):
    """Mesh of a rectangle over x = 0 .. width, y = 0 .. 1."""
    corners = [[0, 0, height], [width, 0, height], [width, 1, height], [0, 1, height]]
    return np.array(corners, np.float32), TWO_TRIANGLES


def grid(height=0.0, spacing=0.01):
    x, y = np.meshgrid(np.arange(0, 1, spacing), np.arange(0, 1, spacing))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], axis=-1)


def test_samples_cover_the_surface_by_area():
    points = sample_surface(*square(), 20_000)
    assert points.min() >= 0 and points.max() <= 1 and np.allclose(points[:, :2].mean(axis=0), 0.5, atol=0.01)


def test_a_plane_shifted_by_two_centimetres_has_an_accuracy_and_completeness_of_two_centimetres():
    error = surface_error(mesh_surface(*square(0.02)), mesh_surface(*square()), threshold=0.03)
    exact = Distances(*[pytest.approx(0.02)] * 3)
    assert error.accuracy == exact and error.completeness == exact
    assert error.precision == error.recall == error.f_score == 1.0
    strict = surface_error(mesh_surface(*square(0.02)), mesh_surface(*square()), threshold=0.019)
    assert strict.precision == strict.recall == strict.f_score == 0.0


def test_half_a_surface_is_accurate_and_half_complete():
    error = surface_error(mesh_surface(*square(width=0.5)), mesh_surface(*square()), threshold=1e-6)
    assert error.precision == 1.0 and error.accuracy.p90 < 1e-9
    assert error.recall == pytest.approx(0.5, abs=0.01)
    assert error.f_score == pytest.approx(2 / 3, abs=0.01)


def test_clouds_are_compared_point_by_point():
    error = surface_error(cloud_surface(grid(0.02), 0.01), cloud_surface(grid(), 0.01), threshold=0.03)
    assert error.accuracy.median == pytest.approx(0.02) and error.recall == 1.0


def test_far_from_a_dense_cloud_distances_hold_within_some_percent():
    surface = cloud_surface(grid(spacing=0.002), 0.002)
    queries = np.array([[0.5, 0.5, z] for z in (0.01, 0.1, 0.5, 3.0)])
    assert np.allclose(surface.distance(queries), queries[:, 2], rtol=0.03)


def test_a_surface_without_area_or_with_broken_corners_has_no_points():
    vertices, triangles = square()
    assert not len(mesh_surface(np.zeros_like(vertices), triangles).points)
    assert not len(mesh_surface(vertices, triangles[:0]).points)
    vertices[3] = np.nan
    assert np.isfinite(mesh_surface(vertices, triangles).points).all()
    empty = mesh_surface(vertices, triangles[:0])
    assert surface_error(empty, mesh_surface(*square()), 0.1) is None


def test_a_single_triangle_has_a_distance():
    vertices, triangles = square()
    surface = mesh_surface(vertices, triangles[:1])
    assert surface.distance(np.array([[0.9, 0.1, 2.0], [2.0, 0.0, 0.0]])) == pytest.approx([2.0, 1.0])


def test_fewer_points_stand_for_a_surface_without_changing_its_distance():
    surface = cloud_surface(grid(), 0.01)
    fewer = surface.with_fewer_points(100)
    assert len(fewer.points) == 100 and fewer.distance is surface.distance
    assert surface.with_fewer_points(10_000) is surface


def test_points_of_one_voxel_become_their_mean():
    points = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1], [5.0, 5.0, 5.0]])
    out = thinned(points, 1.0)
    assert sorted(map(tuple, out.round(6))) == [(-0.1, 0.1, 0.1), (0.2, 0.1, 0.1), (5.0, 5.0, 5.0)]
    assert thinned(np.empty((0, 3)), 1.0).shape == (0, 3)


def wall(camera=CAMERA, distance=2.0):
    """A view of a wall in front of a camera at z = 1, so that the wall is at z = 1 + distance in the world."""
    depth = np.full((camera.height, camera.width), distance, np.float32)
    return View(depth, camera, pose(np.eye(3), np.array([0.0, 0.0, 1.0])))


@pytest.mark.parametrize("camera", [CAMERA, LENS], ids=["pinhole", "lens"])
def test_views_become_a_cloud_in_the_world(camera):
    points = fused([wall(camera), wall(camera)], voxel=0.05)
    assert np.allclose(points[:, 2], 3.0, atol=1e-6) and 300 < len(points) <= 80 * 60
    assert not len(fused([wall(camera)], voxel=0.05, max_depth=1.9))


@pytest.mark.parametrize("camera", [CAMERA, LENS], ids=["pinhole", "lens"])
def test_only_space_in_front_of_what_was_seen_counts(camera):
    queries = {
        "free": [0, 0, 2.0],
        "a little behind": [0, 0, 3.05],
        "behind": [0, 0, 3.2],
        "beside the view": [3.0, 0, 2.0],
        "behind the camera": [0, 0, 0.5],
        "beyond the lens": [1.95, 0, 2.5],
    }
    found = seen(np.array(list(queries.values()), float), [wall(camera)], behind=0.1)
    assert [name for name, there in zip(queries, found, strict=True) if there] == ["free", "a little behind"]


def test_a_pixel_without_depth_has_seen_nothing_and_a_largest_depth_limits_what_was_seen():
    view = wall()
    view.depth[:, :40] = np.nan
    points = np.array([[-0.3, 0, 2.0], [0.3, 0, 2.0]])
    assert seen(points, [view], 0.1).tolist() == [False, True]
    assert not seen(points, [view], 0.1, max_depth=0.9).any()
    assert seen(points, [view, wall()], 0.1).all()


def test_what_lies_where_the_truth_has_not_looked_is_left_out():
    estimate, truth = cloud_surface(grid(), 0.01), cloud_surface(grid()[:5000], 0.01)
    counts = estimate.points[:, 1] < 0.5
    assert surface_error(estimate, truth, 0.005).precision == pytest.approx(0.5, abs=0.01)
    error = surface_error(estimate, truth, 0.005, counts)
    assert error.precision == 1.0 and error.unseen == pytest.approx(0.5) and error.samples == 5000
    assert surface_error(estimate, truth, 0.005, np.zeros(10_000, bool)) is None
