# SPDX-License-Identifier: Apache-2.0
"""Colours of the mesh: from the right pixels, of the surface itself, and nowhere missing."""

import numpy as np
import pytest

from recon3d_ros.backends.rgbd.view import Rectifier
from recon3d_ros.core.backend_params import RgbdParams
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Frame, Keyframe
from recon3d_ros.mapping.mesher import Mesher

VOXEL = 0.02
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
#: As of the Kinect of 7scenes, a quarter of the size: the depth camera sees a smaller angle.
DEPTH_CAMERA = Camera(160, 120, 146.25, 146.25, 79.5, 59.5)
COLOUR_CAMERA = Camera(320, 240, 262.5, 262.5, 159.5, 119.5)


def wall(number, distance, colours, camera=DEPTH_CAMERA):
    """A keyframe of a wall square to the optical axis; colours: of its pixels, or of all."""
    rays = np.dstack([camera.rays(), np.ones((camera.height, camera.width))])
    points = (rays * distance).reshape(-1, 3).astype(np.float32)
    colours = np.broadcast_to(np.asarray(colours, np.uint8), (camera.height, camera.width, 3)).reshape(-1, 3)
    return Keyframe(number, number, np.eye(4), camera, points, colours)


def meshed(*keyframes):
    mesher = Mesher(MeshParams(voxel_size=VOXEL, min_weight=1.0, duplicate_share=0.0))
    for keyframe in keyframes:
        assert mesher.integrate(keyframe)
    return mesher.surface()


@pytest.mark.parametrize("colour", [RED, BLACK], ids=["red", "black"])
def test_a_pixel_colours_only_voxels_within_one_of_its_surface_where_there_is_a_colour_already(colour):
    """A blue wall three and a half voxels behind another: half way between them no voxel is within one of the blue."""
    mesh = meshed(wall(0, 2.0, colour), wall(1, 2.0 + 3.5 * VOXEL, BLUE))
    between = np.abs((mesh.vertices[:, 2] - 2.0) / VOXEL - 1.75) < 0.1
    assert between.sum() > 5000 and (mesh.colours[between] == colour).all()


def test_a_colour_from_afar_gives_way_to_those_of_the_surface_itself():
    distance = 2.0 + VOXEL / 2  # between two layers of voxels
    mesh = meshed(wall(0, distance + 3 * VOXEL, RED), *(wall(i, distance, BLUE) for i in range(1, 12)))
    red, _, blue = np.median(mesh.colours, axis=0)
    assert red < 35 and blue > 220


@pytest.mark.parametrize("turn", [0, 3])
def test_the_colour_of_a_place_is_the_mean_of_the_views_that_saw_the_surface_there(turn):
    """Five did; to another one the voxels lie two and three edges in front of what it sees."""
    distance = 2.0 + VOXEL / 2  # between two layers of voxels
    views = [wall(i, distance, (0, 40 * i, 250 - 40 * i)) for i in range(5)]
    views.insert(turn, wall(9, distance + 2.5 * VOXEL, RED))
    colours = meshed(*views).colours
    assert len(colours) > 5000 and np.abs(colours.astype(int) - (0, 80, 170)).max() <= 2


def test_no_vertex_mixes_with_a_voxel_that_was_never_coloured(take_flight):
    """Else dark stripes would run along the surface."""
    mesher = Mesher(MeshParams(voxel_size=0.05, min_weight=1.0))
    for i, shot in enumerate(take_flight(12)):
        shot.colours[:] = 200
        mesher.integrate(shot.keyframe(i, noise=0.01))
    colours = mesher.surface().colours
    assert len(colours) > 5000 and (colours == 200).all()


@pytest.mark.parametrize("own", [True, False], ids=["colour camera", "depth camera"])
def test_colours_are_looked_up_with_the_intrinsics_of_the_colour_camera(own):
    """A wall, red left of x = 0.5 and blue right of it. With the intrinsics of the depth camera the border would lie five
    centimetres off."""
    distance, border = 2.0, 0.5
    column = COLOUR_CAMERA.fx * border / distance + COLOUR_CAMERA.cx
    image = np.where(np.arange(320)[None, :, None] < column, RED, BLUE).astype(np.uint8)
    image = np.broadcast_to(image, (240, 320, 3)).copy()
    taken = COLOUR_CAMERA if own else DEPTH_CAMERA.resized(320, 240)
    depth = np.full((120, 160), distance, np.float32)
    view = Rectifier(RgbdParams()).view(Frame(0, image, taken, depth, DEPTH_CAMERA))
    mesh = meshed(wall(0, distance, view.colours))
    reddest = mesh.colours[:, 0].astype(int) - mesh.colours[:, 2]
    x = mesh.vertices[:, 0]
    found = (x[reddest > 0].max() + x[reddest < 0].min()) / 2
    error = abs(found - border) / VOXEL
    assert error < 1.0 if own else error > 2.0
