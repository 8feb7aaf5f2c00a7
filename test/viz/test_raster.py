# SPDX-License-Identifier: Apache-2.0
"""The rasteriser on shapes whose pixels can be told beforehand."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.viz.raster import Canvas

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
RED, GREEN = (220, 30, 30), (30, 200, 30)


@pytest.fixture
def canvas():
    return Canvas.empty(CAMERA, (0, 0, 0), (0, 0, 0))


def square(half, z, colour, facing=True):
    """A square towards the camera (or away from it): vertices, triangles, colours."""
    x = np.array([(-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)])
    triangles = np.array(
        [(0, 2, 1), (0, 3, 2)], np.int32
    )  # y points down: this is counter-clockwise for the camera
    return x, triangles if facing else triangles[:, ::-1].copy(), np.full((4, 3), colour, np.uint8)


def covered(canvas):
    return canvas.colour.any(axis=-1)


def test_a_square_covers_its_projection_and_writes_its_depth(canvas):
    canvas.triangles(*square(0.4, 2.0, RED))
    expected = np.zeros((48, 64), bool)
    expected[14:34, 22:42] = True  # 0.4 / 2 * 50 = 10 pixels to each side of the centre
    np.testing.assert_array_equal(covered(canvas), expected)
    np.testing.assert_allclose(canvas.depth[expected], 2.0, rtol=1e-6)
    assert np.isinf(canvas.depth[~expected]).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_hides_the_farther_in_any_order(canvas, order):
    shapes = (square(0.6, 3.0, GREEN), square(0.2, 2.0, RED))
    for k in order:
        canvas.triangles(*shapes[k])
    red, green = canvas.colour[..., 0] > canvas.colour[..., 1], canvas.colour[..., 1] > canvas.colour[..., 0]
    assert red[24, 32] and green[24, 26] and red.sum() == 100 and green.sum() == 300


def test_depth_inside_a_slanted_triangle_is_that_of_its_plane(canvas):
    x, triangles, colours = square(0.5, 2.0, RED)
    x[:, 2] += x[:, 0]  # the plane z = 2 + x
    canvas.triangles(x, triangles, colours)
    v, u = np.nonzero(covered(canvas))
    slope = (u - 31.5) / 50.0
    np.testing.assert_allclose(canvas.depth[v, u], 2 / (1 - slope), rtol=1e-6)
    assert len(u) > 200


def test_backs_of_triangles_and_what_is_behind_the_camera_or_nan_are_not_drawn(canvas):
    canvas.triangles(*square(0.4, 2.0, RED, facing=False))
    canvas.triangles(*square(0.4, -2.0, RED))
    canvas.triangles(*square(0.4, np.nan, RED))
    canvas.points(np.array([(0, 0, -1.0), (np.nan, 0, 1), (1e30, 0, 1)]), np.full((3, 3), 255, np.uint8), 0.1)
    canvas.lines(np.array([[0, 0, -1.0]]), np.array([[0, 0, 1.0]]), np.full((1, 3), 255, np.uint8), 3.0)
    assert not covered(canvas).any()


def test_faces_turned_to_the_light_are_brighter(canvas):
    colours = np.full((4, 3), 200, np.uint8)
    x, triangles, _ = square(0.3, 2.0, RED)
    brightness = []
    for tilt in (-1.0, 1.0):
        tilted = x + np.outer(x[:, 1], (0, 0, tilt))
        fresh = Canvas.empty(CAMERA, (0, 0, 0), (0, 0, 0))
        fresh.triangles(tilted, triangles, colours)
        brightness.append(fresh.colour[24, 32, 0])
    # The light comes from above: the square whose upper edge leans away faces it.
    assert brightness[0] > brightness[1] + 20


def test_points_are_squares_that_obey_the_depth_buffer(canvas):
    canvas.triangles(*square(0.4, 2.0, RED))
    points = np.array([(0, 0, 1.0), (0.2, 0.0, 3.0), (-0.9, 0.0, 2.0)])
    canvas.points(points, np.full((3, 3), (0, 0, 255), np.uint8), 0.08)
    blue = canvas.colour[..., 2] == 255
    assert blue[22:26, 30:34].all()  # 0.08 / 1 * 50 = 4 pixels, before the square
    assert blue.sum() == 16 + 4  # the second one is behind the square, the third one has the least size


def test_a_line_has_its_width_and_hides_behind_nearer_things(canvas):
    canvas.triangles(*square(0.1, 1.0, RED))
    ends = np.array([[-0.5, 0.0, 2.0]]), np.array([[0.5, 0.0, 2.0]])
    canvas.lines(*ends, np.full((1, 3), GREEN, np.uint8), 4.0)
    green = canvas.colour[..., 1] == GREEN[1]
    assert green[:, 22].sum() == 4
    assert not green[:, 32].any()


def test_the_picture_is_half_the_size_and_averages_edges():
    canvas = Canvas.empty(CAMERA, (0, 0, 0), (0, 0, 0))
    canvas.points(np.array([(0.01, 0.01, 1.0)]), np.full((1, 3), 200, np.uint8), 0.02)
    picture = canvas.picture()
    assert picture.shape == (24, 32, 3)
    # The square of 2x2 pixels lies across four of the picture's and fills a quarter of each.
    expected = np.zeros((24, 32), np.uint8)
    expected[11:13, 15:17] = 50
    np.testing.assert_array_equal(picture[..., 0], expected)


def test_the_background_runs_from_top_to_bottom_colour():
    colour = Canvas.empty(CAMERA, (200, 210, 220), (100, 110, 120)).colour
    assert colour[0, 0].tolist() == [200, 210, 220] and colour[-1, 5].tolist() == [100, 110, 120]
    assert (np.diff(colour[:, 0, 0].astype(int)) <= 0).all()
