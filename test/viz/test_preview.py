# SPDX-License-Identifier: Apache-2.0
"""The preview picture and the viewpoint it chooses."""

import cv2
import numpy as np
import pytest

from recon3d_ros.core.geometry import body_from_optical, inverse, pose, so3_exp, transform
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.viz.preview import render_preview, save_preview
from recon3d_ros.viz.viewpoint import choose_view, up_direction

Z = np.array([0.0, 0.0, 1.0])


def looking_from(eyes, targets):
    """A trajectory of upright cameras at eyes [N,3] that look at targets."""
    poses = []
    for eye, target in zip(eyes, targets, strict=True):
        ahead = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(ahead, Z) if abs(ahead[2]) < 0.999 else np.array([1.0, 0.0, 0.0])
        right /= np.linalg.norm(right)
        poses.append(pose(np.stack([right, np.cross(ahead, right), ahead], axis=1), eye))
    return Trajectory(np.arange(len(poses), dtype=np.int64), np.array(poses))


def orbit(angles=None, radius=6.0, height=5.0):
    angles = np.linspace(0, 6, 40) if angles is None else angles
    eyes = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(len(angles), height)], axis=1)
    return looking_from(eyes, np.zeros_like(eyes))


def moved(trajectory, T):
    return Trajectory(trajectory.stamps_ns, T @ trajectory.poses)


def box(low, high, inwards=False):
    """A box: vertices, triangles counter-clockwise from outside (or inside), one colour for each height."""
    corners = np.array(
        [[(low, high)[b][k] for k, b in enumerate(bits)] for bits in np.ndindex(2, 2, 2)], np.float32
    )
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    colours = np.where(corners[:, 2:] > low[2], (230, 40, 40), (40, 40, 230)).astype(np.uint8)
    return corners, triangles[:, ::-1].copy() if inwards else triangles, colours


def red(image):
    return (image[..., 0] > 150) & (image[..., 1] < 100) & (image[..., 2] < 100)


def test_a_box_is_shown_on_the_left_and_its_points_on_the_right():
    corners, triangles, colours = box((-1, -1, 0), (1, 1, 2))
    points = np.random.default_rng(0).uniform((-1, -1, 1.9), (1, 1, 2), (3000, 3)).astype(np.float32)
    cloud = points, np.full((3000, 3), (230, 40, 40), np.uint8)
    image = render_preview((corners, triangles, colours), cloud, orbit(), (400, 240))
    assert image.shape == (240, 400, 3) and image.dtype == np.uint8
    assert red(image[:, :200]).sum() > 500
    assert red(image[:, 200:]).sum() > 500


@pytest.mark.parametrize("size", [(400, 240), (301, 177)])
def test_nothing_to_show_gives_a_picture_that_says_so(size):
    empty = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    plain = render_preview(None, None, None, size)
    assert plain.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(render_preview(empty, (empty[0], empty[2]), None, size), plain)
    left = plain[:34, : size[0] // 2].astype(int)
    assert (left.max(axis=(1, 2)) - left.min(axis=(1, 2))).max() > 60  # the words
    assert not np.array_equal(render_preview(None, None, orbit(), size), plain)  # the path alone is shown


def test_points_that_are_not_numbers_do_no_harm():
    corners, triangles, colours = box((-1, -1, 0), (1, 1, 2))
    corners[0] = np.nan
    image = render_preview((corners, triangles, colours), (corners, colours), orbit(), (400, 240))
    assert red(image).sum() > 100


def test_a_room_is_seen_into_from_above_because_backs_are_left_out():
    corners, triangles, _ = box((-3, -3, 0), (3, 3, 2.5), inwards=True)
    inside = box((-0.5, -0.5, 0), (0.5, 0.5, 1.0))
    mesh = (
        np.concatenate([corners, inside[0]]),
        np.concatenate([triangles, inside[1] + 8]),
        np.concatenate([np.full((8, 3), 90, np.uint8), np.full((8, 3), (230, 40, 40), np.uint8)]),
    )
    image = render_preview(mesh, None, orbit(radius=2.0, height=1.5), (400, 240))
    assert red(image[:, :200]).sum() > 100


@pytest.mark.parametrize("tilt", [0.0, 0.7, 1.4], ids=lambda t: f"map tilted by {t}")
def test_up_is_found_from_level_cameras_in_a_tilted_map(tilt):
    T = pose(so3_exp(np.array([tilt, 0.3, 0.2])), np.zeros(3))
    np.testing.assert_allclose(up_direction(moved(orbit(), T)), T[:3, :3] @ Z, atol=1e-6)


def test_up_of_a_survey_that_looks_straight_down_is_backwards():
    eyes = np.stack([np.linspace(-5, 5, 20), np.zeros(20), np.full(20, 10.0)], axis=1)
    survey = looking_from(eyes, eyes - Z)
    np.testing.assert_allclose(up_direction(survey), Z, atol=1e-9)
    turned = pose(so3_exp(np.array([2.2, 0.0, 0.0])), np.zeros(3))
    poses = survey.poses.copy()
    poses[10:, :3, :2] *= -1  # every other line is flown the other way
    there_and_back = Trajectory(survey.stamps_ns, turned @ poses)
    np.testing.assert_allclose(up_direction(there_and_back), turned[:3, :3] @ Z, atol=1e-9)


def test_up_of_a_straight_flight_in_the_frame_of_its_first_camera_is_the_map_z():
    eyes = np.stack([np.linspace(0, 5, 20), np.zeros(20), np.full(20, 2.0)], axis=1)
    flight = looking_from(eyes, eyes + (1.0, 0.0, -0.2))
    first = body_from_optical() @ inverse(flight.poses[0])
    np.testing.assert_allclose(up_direction(moved(flight, first)), Z, atol=1e-9)
    assert (
        up_direction(None).tolist()
        == up_direction(Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))).tolist()
    )


def test_the_view_is_from_the_side_of_the_cameras_from_above_and_shows_most_points():
    points = np.random.default_rng(1).uniform(-1, 1, (2000, 3))
    trajectory = orbit(angles=np.linspace(0.5, 1.5, 10))
    camera, T = choose_view(points, trajectory, 320, 360)
    eye = T[:3, 3]
    assert eye @ trajectory.positions.mean(axis=0) > 0 and eye[2] > 1
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    pixels = camera.project(transform(inverse(T), points))
    shown = ((pixels >= 0) & (pixels < camera.size)).all(axis=1)
    assert shown.mean() > 0.9
    filled = np.ptp(pixels[shown], axis=0) / camera.size
    assert filled.max() > 0.4


def test_far_outliers_do_not_shrink_the_scene():
    points = np.random.default_rng(1).uniform(-1, 1, (2000, 3))
    _, near = choose_view(points, orbit(), 320, 360)
    _, far = choose_view(np.concatenate([points, 1000 * points[:60]]), orbit(), 320, 360)
    assert np.linalg.norm(far[:3, 3]) < 1.5 * np.linalg.norm(near[:3, 3])


def test_it_is_saved_as_rgb_png_and_a_missing_folder_is_an_os_error(tmp_path):
    mesh = box((-1, -1, 0), (1, 1, 2))
    save_preview(tmp_path / "preview.png", mesh, None, orbit(), (400, 240))
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "preview.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored, render_preview(mesh, None, orbit(), (400, 240)))
    with pytest.raises(OSError):
        save_preview(tmp_path / "none" / "preview.png", mesh, None, None, (400, 240))
