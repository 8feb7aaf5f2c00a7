# SPDX-License-Identifier: Apache-2.0
"""Normals for files, on surfaces whose normals are known."""

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.normals import area_normals, pca_normals, with_normals

NOISE = 0.01  # share of the depth


def meshed(shots, min_weight):
    """The welded mesh, 5 cm voxels, of noisy views."""
    mesher = Mesher(MeshParams(voxel_size=0.05, min_weight=min_weight))
    for i, shot in enumerate(shots):
        assert mesher.integrate(shot.keyframe(i, noise=NOISE))
    return mesher.surface()


def degrees(normals, truth):
    """Angles [N] of unit vectors."""
    return np.degrees(np.arccos(np.clip((normals * truth).sum(axis=1), -1, 1)))


def test_m13_normals_of_a_noisy_plane_are_right_to_two_degrees(take_flight, box_corners):
    mesh = with_normals(meshed(take_flight(14, box_corners[:1]), 5.0))
    floor = (np.abs(mesh.vertices[:, 2]) < 0.05) & (np.abs(mesh.vertices[:, :2]).max(axis=1) < 1.5)
    assert floor.sum() > 3000
    assert degrees(mesh.normals[floor], np.array([0.0, 0.0, 1.0])).mean() < 2.0
    plain = degrees(area_normals(mesh)[floor], np.array([0.0, 0.0, 1.0])).mean()
    assert plain > 3.0  # what the triangles alone would say


def test_m13_normals_of_a_noisy_sphere_are_right_to_two_degrees_and_point_outwards(take_sphere):
    mesh = with_normals(meshed(take_sphere(1.0, 40), 5.0))
    truth = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    error = degrees(mesh.normals, truth)
    assert len(error) > 5000 and error.mean() < 2.0 and error.max() < 20.0


def test_points_are_turned_to_the_camera_that_saw_them():
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    points[:, 2] = 0.0
    for side in (2.0, -2.0):
        camera = np.array([0.0, 0.0, side], np.float32)
        normals = pca_normals(points, camera - points, radius=1.0)
        assert np.allclose(normals, [0, 0, np.sign(side)], atol=1e-6) and normals.dtype == np.float32


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_neighbours_beyond_the_radius_do_not_count(offset):
    """Two walls that stand side by side, with fewer points each than there are neighbours."""
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(5)), axis=-1).reshape(-1, 2) / 8
    flat = np.column_stack([grid, np.zeros(20)])
    upright = np.column_stack([grid[:, 0] + 2, np.zeros(20), grid[:, 1]])
    points = (np.concatenate([flat, upright]) + offset).astype(np.float32)
    normals = pca_normals(points, np.full_like(points, 1.0), radius=1.0)
    assert np.allclose(normals[:20], [0, 0, 1], atol=1e-3) and np.allclose(normals[20:], [0, 1, 0], atol=1e-3)


def test_a_triangle_by_itself_keeps_the_normal_of_its_own():
    vertices = np.array([(0, 0, 0), (9, 0, 0), (0, 9, 0), (50, 0, 0)], np.float32)
    lone = MeshBlock((0, 0, 0), vertices, np.array([(0, 1, 2)], np.int32), np.zeros((4, 3), np.uint8))
    assert np.allclose(with_normals(lone).normals[:3], [0, 0, 1], atol=1e-6)
    assert np.isfinite(with_normals(lone).normals).all()


def test_an_empty_mesh_has_no_normals():
    empty = MeshBlock((0, 0, 0), *(np.empty((0, 3), kind) for kind in (np.float32, np.int32, np.uint8)))
    assert with_normals(empty).normals.shape == (0, 3)
