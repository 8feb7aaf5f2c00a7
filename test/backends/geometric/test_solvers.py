# SPDX-License-Identifier: Apache-2.0
"""The solvers of the geometric backend against random points seen by known cameras."""

import numpy as np
import pytest

from recon3d_ros.backends.geometric.bundle import Observations, adjust
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.pose import best_rotation, locate, locate_anywhere
from recon3d_ros.backends.geometric.start import two_views
from recon3d_ros.backends.geometric.triangulation import triangulate
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse, rotation_angle, se3_exp, so3_exp, transform

FOCAL = 500.0
CAMERA = Camera(640, 480, FOCAL, FOCAL, 319.5, 239.5)


def seen_from(T_cam_map, points, noise=0.0, seed=0):
    p = transform(T_cam_map, points)
    return FOCAL * p[:, :2] / p[:, 2:] + np.random.default_rng(seed).normal(0, noise, (len(p), 2))


def all_see_all(T_cam_map, points, noise=0.0):
    uv = np.stack([seen_from(T, points, noise, seed) for seed, T in enumerate(T_cam_map)], axis=1)
    camera = np.tile(np.arange(len(T_cam_map)), len(points))
    return Observations(camera, uv.reshape(-1, 2), np.arange(len(points) + 1) * len(T_cam_map))


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(1).uniform([-4, -3, 6], [4, 3, 14], (200, 3))


@pytest.fixture(scope="module")
def cameras():
    return np.array(
        [inverse(se3_exp(np.array([0.3 * i, 0.05 * i, 0.1 * i, 0.01 * i, -0.02 * i, 0]))) for i in range(6)]
    )


def test_bundle_adjustment_finds_the_truth_from_a_disturbed_start(points, cameras):
    rng = np.random.default_rng(2)
    start = cameras.copy()
    for k in range(4):
        start[k] = se3_exp(rng.normal(0, 0.02, 6)) @ cameras[k]
    seen = all_see_all(cameras, points)
    T, X, errors = adjust(start, points + rng.normal(0, 0.1, points.shape), seen, FOCAL, 4, 1.0, 20)
    assert np.abs(T - cameras).max() < 1e-4
    assert np.abs(X - points).max() < 1e-3
    assert errors.max() < 0.01
    assert (T[4:] == start[4:]).all()


def test_bundle_adjustment_is_not_pulled_by_a_few_gross_errors(points, cameras):
    seen = all_see_all(cameras, points, noise=0.2)
    seen.uv[::50] += 40.0
    start = cameras.copy()
    start[0] = se3_exp(np.full(6, 0.01)) @ cameras[0]
    T, _, _ = adjust(start, points, seen, FOCAL, 1, 1.0, 20)
    assert rotation_angle(T[0, :3, :3] @ cameras[0, :3, :3].T) < 5e-4


def test_bundle_adjustment_leaves_a_camera_that_sees_nothing_where_it_is(points, cameras):
    seen = all_see_all(cameras[1:], points)
    seen = Observations(seen.camera + 1, seen.uv, seen.start)
    T, _, _ = adjust(cameras, points, seen, FOCAL, 2, 1.0, 5)
    assert T[0] == pytest.approx(cameras[0])


def test_points_are_triangulated_only_where_the_rays_differ_and_agree(points, cameras):
    seen = all_see_all(cameras, points)
    seen.uv[seen.start[3]] += 30.0
    X = triangulate(cameras, seen, FOCAL, np.radians(1), 2.5)
    assert np.isnan(X[3]).all()
    assert np.delete(X, 3, axis=0) == pytest.approx(np.delete(points, 3, axis=0), abs=1e-6)
    together = np.repeat(cameras[:1], 6, axis=0)
    assert np.isnan(triangulate(together, all_see_all(together, points), FOCAL, np.radians(1), 2.5)).all()


def test_a_pose_is_found_from_a_near_guess_in_spite_of_outliers(points, cameras):
    uv = seen_from(cameras[3], points, noise=0.2)
    uv[:60] += np.random.default_rng(3).uniform(-60, 60, (60, 2))
    here = locate(cameras[2], points, uv, FOCAL, 1.0)
    assert here.T_cam_map == pytest.approx(cameras[3], abs=5e-3)
    assert here.inliers[60:].all()
    assert here.inliers[:60].sum() < 5


def test_a_pose_is_found_without_a_guess_and_always_the_same(points, cameras):
    uv = seen_from(cameras[5], points, noise=0.2)
    uv[:100] = np.random.default_rng(4).uniform(-300, 300, (100, 2))
    here = locate_anywhere(points, uv, FOCAL, 1.0)
    assert here.T_cam_map == pytest.approx(cameras[5], abs=5e-3)
    assert (locate_anywhere(points, uv, FOCAL, 1.0).T_cam_map == here.T_cam_map).all()


def test_repeated_predictions_stay_rotations(points, cameras):
    T = cameras[0]
    for _ in range(200):
        T = locate(T @ cameras[1], points, seen_from(cameras[1], points), FOCAL, 1.0).T_cam_map
        assert np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() < 1e-12


def test_the_rotation_between_two_views_ignores_moving_things(points):
    R = so3_exp(np.array([0.1, -0.2, 0.05]))
    T = np.eye(4)
    T[:3, :3] = R
    before, now = seen_from(np.eye(4), points), seen_from(T, points)
    now[:40] += 25.0
    found, left = best_rotation(before, now, FOCAL)
    assert rotation_angle(found @ R.T) < 1e-4
    assert left < 1e-4


def test_two_views_start_a_map_with_median_depth_one(points, cameras):
    two = two_views(
        seen_from(cameras[0], points, 0.2, 1), seen_from(cameras[4], points, 0.2, 2), Lens(CAMERA, FOCAL)
    )
    known = np.isfinite(two.points[:, 0])
    T = cameras[4] @ inverse(cameras[0])
    assert known.mean() > 0.95
    assert np.median(two.points[known, 2]) == pytest.approx(1.0)
    assert rotation_angle(two.T_now_ref[:3, :3] @ T[:3, :3].T) < 2e-3
    direction = two.T_now_ref[:3, 3] / np.linalg.norm(two.T_now_ref[:3, 3])
    assert direction @ T[:3, 3] / np.linalg.norm(T[:3, 3]) > 0.999


def test_a_flat_scene_seen_from_above_starts_a_map_too(cameras):
    flat = np.random.default_rng(5).uniform([-4, -3, 10], [4, 3, 10], (200, 3))
    T = inverse(se3_exp(np.array([1.0, 0.1, 0.0, 0.01, 0.0, 0.02])))
    two = two_views(seen_from(np.eye(4), flat, 0.2, 1), seen_from(T, flat, 0.2, 2), Lens(CAMERA, FOCAL))
    assert rotation_angle(two.T_now_ref[:3, :3] @ T[:3, :3].T) < 0.01


@pytest.mark.parametrize("omega", [(0.0, 0.2, 0.0), (0.05, 0.1, 0.3)])
def test_a_pure_rotation_does_not_start_a_map(points, omega):
    T = np.eye(4)
    T[:3, :3] = so3_exp(np.array(omega))
    before, now = seen_from(np.eye(4), points, 0.3, 1), seen_from(T, points, 0.3, 2)
    assert two_views(before, now, Lens(CAMERA, FOCAL)) is None


def test_unrelated_pixels_do_not_start_a_map():
    rng = np.random.default_rng(6)
    before = rng.uniform(-300, 300, (300, 2))
    assert two_views(before, before + rng.normal(0, 15, (300, 2)), Lens(CAMERA, FOCAL)) is None


@pytest.mark.parametrize(
    "camera",
    [
        Camera(640, 480, 510, 500, 300, 250),
        Camera(752, 480, 458.7, 457.3, 367.2, 248.4, "plumb_bob", (-0.283, 0.074, 0.0002, 0.00002, 0.0)),
        Camera(640, 480, 300, 300, 319.5, 239.5, "equidistant", (0.01, -0.002, 0.0, 0.0)),
    ],
)
def test_the_lens_takes_distortion_out_to_a_few_hundredths_of_a_pixel(camera):
    px = (
        np.random.default_rng(7)
        .uniform(0, [camera.width - 1, camera.height - 1], (500, 2))
        .astype(np.float32)
    )
    exact = camera.unproject(px) * FOCAL
    near = np.linalg.norm(exact, axis=1) < FOCAL
    assert Lens(camera, FOCAL).centred(px)[near] == pytest.approx(exact[near], abs=0.03)


def test_points_outside_the_image_have_no_pixel():
    px = Lens(CAMERA, FOCAL).project(np.eye(4), np.array([(0.0, 0, 5), (0, 0, -5), (10, 0, 5)]))
    assert px[0] == pytest.approx([319.5, 239.5])
    assert np.isnan(px[1:]).all()
