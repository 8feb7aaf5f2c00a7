# SPDX-License-Identifier: Apache-2.0
"""What was written is read back; what was not is refused."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping.export import write_ply_mesh, write_ply_points
from recon3d_ros.mapping.ply import load_ply, read_ply

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


def text_ply(vertices, faces="", columns="property double x\nproperty double y\nproperty double z\n"):
    lists = f"element face {len(faces.splitlines())}\nproperty list uchar int vertex_index\n" if faces else ""
    count = len(vertices.splitlines())
    head = f"ply\nformat ascii 1.0\ncomment another program\nelement vertex {count}\n{columns}{lists}end_header\n"
    return head + vertices + faces


def test_a_text_file_of_another_program_is_read_and_its_polygons_become_triangles(tmp_path):
    path = tmp_path / "square.ply"
    path.write_text(text_ply("0 0 0\n1 0 0\n1 1 0\n4000000.25 1 0\n", "4 0 1 2 3\n"))
    ply = load_ply(path)
    assert ply.vertices[3].tolist() == [4000000.25, 1, 0] and ply.colours is None
    assert ply.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(("name", "order"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
def test_binary_files_of_either_byte_order_with_other_columns_are_read(tmp_path, name, order):
    table = np.zeros(5, [("nx", order + "f4"), ("x", order + "f8"), ("y", order + "f8"), ("z", order + "f8")])
    for i, axis in enumerate("xyz"):
        table[axis] = POINTS[:, i]
    faces = np.zeros(2, [("n", "u1"), ("v", order + "u4", 3), ("flag", "u1")])[["n", "v"]]
    faces = np.array([(3, t) for t in TRIANGLES.tolist()], [("n", "u1"), ("v", order + "u4", 3)])
    head = f"ply\nformat {name} 1.0\nelement vertex 5\nproperty float nx\n"
    head += "".join(f"property double {axis}\n" for axis in "xyz")
    head += "element face 2\nproperty list uchar uint vertex_indices\nend_header\n"
    (tmp_path / "mesh.ply").write_bytes(head.encode() + table.tobytes() + faces.tobytes())
    ply = load_ply(tmp_path / "mesh.ply")
    assert (ply.vertices == POINTS).all() and (ply.triangles == TRIANGLES).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (text_ply("0 0 0\n1 0 0\n1 1 0\n", "3 0 1 7\n"), "does not exist"),
        (text_ply("0 0 0\n1 0 0\n1 1 0\n2 2 2\n", "3 0 1 2\n4 0 1 2 3\n"), "different numbers of corners"),
        (text_ply("0 0\n", columns="property float x\nproperty float y\n"), "x, y, z"),
        (text_ply("0 0 zero\n"), "zero"),
        ("ply\nelement vertex 0\nend_header\n", "no format"),
        ("ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "many"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, message):
    (tmp_path / "bad.ply").write_text(text)
    with pytest.raises(InputError, match=message):
        load_ply(tmp_path / "bad.ply")
