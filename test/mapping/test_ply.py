# SPDX-License-Identifier: Apache-2.0
"""What was written is read back; what was not is refused."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping.export import write_ply_mesh, write_ply_points
from recon3d_ros.mapping.ply import read_ply

RNG = np.random.default_rng(1)
POINTS, COLOURS = RNG.normal(size=(5, 3)).astype(np.float32), RNG.integers(0, 256, (5, 3), np.uint8)
TRIANGLES = np.array([[0, 1, 2], [2, 3, 4]], np.int32)


def test_a_mesh_comes_back_as_it_was_written(tmp_path):
    write_ply_mesh(tmp_path / "mesh.ply", POINTS, TRIANGLES, COLOURS, normals=POINTS)
    points, colours, triangles = read_ply(tmp_path / "mesh.ply")
    assert (points == POINTS).all() and (colours == COLOURS).all() and (triangles == TRIANGLES).all()


def test_a_cloud_comes_back_without_triangles(tmp_path):
    write_ply_points(tmp_path / "cloud.ply", POINTS, COLOURS, POINTS[:, 0])
    points, colours, triangles = read_ply(tmp_path / "cloud.ply")
    assert (points == POINTS).all() and (colours == COLOURS).all() and len(triangles) == 0


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"solid x", lambda data: data[:40]])
def test_a_file_that_is_cut_short_or_another_is_refused(tmp_path, damage):
    path = tmp_path / "mesh.ply"
    write_ply_mesh(path, POINTS, TRIANGLES, COLOURS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"PLY|cut short"):
        read_ply(path)
