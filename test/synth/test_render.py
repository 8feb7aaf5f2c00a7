# SPDX-License-Identifier: Apache-2.0
"""The renderer against geometry that is known by other means."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse, transform
from recon3d_ros.synth.materials import Kind, Material
from recon3d_ros.synth.paths import looking
from recon3d_ros.synth.render import render
from recon3d_ros.synth.scene import Light, Scene, Site
from recon3d_ros.synth.shapes import Model

CAMERA = Camera(96, 72, 70.0, 70.0, 47.5, 35.5)
SITE = Site((0, 0, 0), (5, 3), (5, 5, 5, 2), (5, 5, 3), (0, -5, 3), 1.0)


@pytest.fixture(scope="module")
def scene():
    """A unit cube on a floor, its edges along the axes."""
    model = Model()
    model.rectangle((-30, -30), (30, 30), 0.0, Material(Kind.GRASS, (0.3, 0.5, 0.2)))
    model.box((0, 0, 0), (1, 1, 1), Material(Kind.PLAIN, (0.9, 0.2, 0.2)))
    return Scene.of("cube", model, Light((0.5, -0.4, 0.8, 0.0)), SITE)


def back_project(camera, depth, T):
    seen = np.isfinite(depth)
    z = depth[seen].astype(float)
    return transform(T, np.c_[camera.rays()[seen].astype(float) * z[:, None], z])


def test_depth_is_along_the_optical_axis_and_through_pixel_centres(scene):
    down = looking(np.array([0.0, 0.0, 4.0]), 0.0, -np.pi / 2)
    _, depth = render(scene, CAMERA, down)
    half = 70.0 * 0.5 / 3.0
    u = np.arange(96) - 47.5
    expected = np.where((np.abs(u) < half) & (np.abs(0.5) < half), 3.0, 4.0)
    np.testing.assert_allclose(depth[36], expected, rtol=1e-6)


def test_seen_points_lie_on_the_surface_and_the_sky_has_no_depth(scene):
    T = looking(np.array([-3.0, -4.0, 2.0]), 0.9, -0.25)
    image, depth = render(scene, CAMERA, T)
    assert 0.1 < np.isnan(depth).mean() < 0.6
    assert np.isnan(depth[0]).all() and np.isfinite(depth[-1]).all()
    assert scene.distance(back_project(CAMERA, depth, T)).max() < 1e-5
    assert image.dtype == np.uint8 and image.shape == (72, 96, 3)


@pytest.mark.parametrize(
    "camera",
    [
        CAMERA,
        Camera(96, 72, 70.0, 72.0, 45.0, 37.0, "plumb_bob", (-0.25, 0.08, 0.001, -0.002, 0.0)),
        Camera(96, 72, 45.0, 45.0, 47.5, 35.5, "equidistant", (0.02, -0.01, 0.0, 0.0)),
    ],
    ids=lambda c: c.model,
)
def test_points_seen_in_one_view_project_to_equal_depth_in_another(scene, camera):
    A, B = (looking(np.array(eye), 0.9, -0.45) for eye in ((-3.0, -4.0, 2.5), (-3.3, -3.8, 2.4)))
    _, depth_a = render(scene, camera, A)
    _, depth_b = render(scene, camera, B)
    points = transform(inverse(B), back_project(camera, depth_a, A))
    pixels = camera.project(points)
    inside = ((pixels > 1) & (pixels < np.array(camera.size) - 2)).all(axis=1)
    # Inverse depth of a plane is linear in the image, so that it may be interpolated.
    inverse_b = map_coordinates(1 / depth_b.astype(float), pixels[inside].T[::-1], order=1)
    relative = np.abs(points[inside, 2] * inverse_b - 1)
    assert inside.sum() > 3000
    assert np.nanmedian(relative) < 1e-4
    assert np.nanmean(relative < 2e-3) > 0.93  # the others lie at the edges of the cube, or behind it


def test_a_shadow_falls_away_from_the_sun(scene):
    down = looking(np.array([0.0, 0.0, 6.0]), np.pi / 2, -np.pi / 2)
    image, _ = render(scene, CAMERA, down)
    model = Model()
    model.rectangle((-30, -30), (30, 30), 0.0, Material(Kind.GRASS, (0.3, 0.5, 0.2)))
    bare, _ = render(Scene.of("floor", model, scene.light, SITE), CAMERA, down)
    brightness = image.astype(float).sum(axis=-1) / bare.sum(axis=-1)
    # The sun stands at +x, -y; north is up in this view, so the shadow lies to the upper left of the cube.
    assert brightness[26:33, 36:40].max() < 0.75
    np.testing.assert_allclose(brightness[44:, 56:], 1.0)


def test_fine_texture_does_not_flicker_when_the_camera_moves_a_little(scene):
    far = [looking(np.array([x, -14.0, 9.0]), np.pi / 2, -0.55) for x in (0.0, 0.02)]
    (a, _), (b, _) = (render(scene, CAMERA, T) for T in far)
    change = np.abs(a[40:].astype(float) - b[40:].astype(float)).mean()
    contrast = a[40:].astype(float).std()
    assert contrast > 5
    assert change < 0.25 * contrast
