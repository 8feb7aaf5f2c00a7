# SPDX-License-Identifier: Apache-2.0
"""Camera models, held against OpenCV's."""

import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError

CAMERAS = [
    Camera(640, 480, 525, 520, 320, 240),
    Camera(640, 480, 517, 516, 318, 255, "plumb_bob", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    Camera(
        640,
        480,
        517,
        516,
        318,
        255,
        "rational_polynomial",
        (0.1, 0.02, 0.001, -0.001, 0.003, 0.05, 0.01, 0.002),
    ),
    Camera(640, 480, 300, 301, 318, 241, "equidistant", (0.01, -0.02, 0.003, 0.001)),
]


def points_in_view(rng, n=500):
    return np.column_stack([rng.uniform(-0.5, 0.5, (n, 2)), np.ones(n)]) * rng.uniform(0.5, 20, (n, 1))


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
def test_projection_equals_opencv(camera):
    points = points_in_view(np.random.default_rng(0))
    D = np.array(camera.distortion or (0, 0, 0, 0))
    zero = np.zeros(3)
    if camera.model == "equidistant":
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, camera.K, D)
    else:
        expected, _ = cv2.projectPoints(points[:, None], zero, zero, camera.K, D)
    assert np.allclose(camera.project(points), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
def test_unprojection_inverts_projection_over_the_whole_image(camera):
    pixels = np.random.default_rng(1).uniform(0, 1, (1000, 2)) * (639, 479)
    rays = camera.unproject(pixels)
    assert np.abs(camera.project(np.column_stack([rays, np.ones(len(rays))]) * 7) - pixels).max() < 1e-6


def test_points_behind_the_camera_project_to_nan():
    assert np.isnan(CAMERAS[0].project(np.array([[0, 0, -1.0], [0, 0, 0]]))).all()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
def test_resizing_and_cropping_see_the_same_world(camera):
    points = points_in_view(np.random.default_rng(2))
    half = camera.resized(320, 240).project(points)
    assert np.allclose((half + 0.5) * 2 - 0.5, camera.project(points))
    assert np.allclose(camera.cropped(10, 20, 100, 100).project(points), camera.project(points) - (10, 20))


def test_rays_table_equals_unprojection():
    rays = CAMERAS[1].rays()
    assert rays.shape == (480, 640, 2) and rays.dtype == np.float32
    assert np.allclose(rays[100, 37], CAMERAS[1].unproject(np.array([[37, 100]]))[0], atol=1e-6)


def test_zero_distortion_is_a_pinhole_camera_and_cameras_are_values():
    a = Camera(640, 480, 525, 525, 320, 240, "plumb_bob", (0, 0, 0, 0, 0))
    assert (
        a.model == "pinhole"
        and a == CAMERAS[0].__class__(640, 480, 525, 525, 320, 240)
        and hash(a) is not None
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((640, 480, 0, 0, 0, 0), "not calibrated"),
        ((640, 480, float("nan"), 1, 0, 0), "NaN"),
        ((640, 480, 500, 500, 320, 240, "magic"), "unknown distortion model 'magic'"),
        ((640, 480, 500, 500, 320, 240, "equidistant", (1, 2, 3, 4, 5)), "takes 4 coefficients"),
    ],
)
def test_a_camera_that_cannot_be_used_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Camera(*arguments)
    assert "\n" not in str(caught.value)


def test_a_guessed_camera_says_so():
    camera = Camera.guess(1280, 720)
    assert camera.estimated and camera.fx == pytest.approx(1152) and (camera.cx, camera.cy) == (639.5, 359.5)
