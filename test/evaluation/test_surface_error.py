# SPDX-License-Identifier: Apache-2.0
"""Surface errors against a plane."""

import numpy as np
import pytest

from recon3d_ros.core.geometry import similarity
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.evaluation.surface import sample_surface, surface_error


def square(height):
    vertices = np.array([[0, 0, height], [1, 0, height], [1, 1, height], [0, 1, height]], np.float32)
    return MeshBlock(
        (0, 0, 0), vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.zeros((4, 3), np.uint8)
    )


def test_samples_cover_the_surface_by_area():
    points = sample_surface(square(0.0), 20_000)
    assert points.min() >= 0 and points.max() <= 1 and np.allclose(points[:, :2].mean(axis=0), 0.5, atol=0.01)


def test_the_error_is_the_distance_in_the_frame_of_the_truth():
    error = surface_error(square(0.1), similarity(2.0, np.eye(3), np.zeros(3)), lambda p: np.abs(p[:, 2]))
    assert error.median == pytest.approx(0.2) and error.p90 == pytest.approx(0.2)


def test_an_empty_mesh_has_no_error():
    empty = MeshBlock(
        (0, 0, 0), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    )
    assert surface_error(empty, np.eye(4), lambda p: p[:, 0]) is None
