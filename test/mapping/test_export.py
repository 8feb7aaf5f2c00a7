# SPDX-License-Identifier: Apache-2.0
"""Files read back by parsers of their own."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.export import write_ply_mesh, write_ply_points

TYPES = {"float": "<f4", "uchar": "u1", "int": "<i4"}


def read_ply(path):
    """Elements of a binary PLY, by its header alone: name -> structured array."""
    data = path.read_bytes()
    header, _, body = data.partition(b"end_header\n")
    lines = [line.split() for line in header.decode().splitlines()]
    assert lines[0] == ["ply"] and lines[1] == ["format", "binary_little_endian", "1.0"]
    elements, at = {}, 0
    for i, words in enumerate(lines):
        if words[0] != "element":
            continue
        fields = []
        for property_ in lines[i + 1 :]:
            if property_[0] != "property":
                break
            if property_[1] == "list":
                fields += [("length", TYPES[property_[2]]), (property_[4], TYPES[property_[3]], 3)]
            else:
                fields.append((property_[2], TYPES[property_[1]]))
        elements[words[1]] = np.frombuffer(body, np.dtype(fields), int(words[2]), at)
        at += elements[words[1]].nbytes
    assert at == len(body)
    return elements


def columns(table, *names):
    return np.column_stack([table[name] for name in names])


@pytest.fixture
def mesh():
    """A tetrahedron, and a triangle by itself."""
    vertices = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    triangles = np.array([(0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 3, 2), (5, 6, 7)], np.int32)
    return MeshBlock((0, 0, 0), vertices, triangles, np.arange(24, dtype=np.uint8).reshape(8, 3))


@pytest.mark.parametrize("with_normals", [False, True])
def test_a_mesh_comes_back_from_its_ply(tmp_path, mesh, with_normals):
    normals = -mesh.vertices if with_normals else None
    write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours, normals)
    read = read_ply(tmp_path / "mesh.ply")
    assert np.array_equal(columns(read["vertex"], "x", "y", "z"), mesh.vertices)
    assert np.array_equal(columns(read["vertex"], "red", "green", "blue"), mesh.colours)
    assert (
        np.array_equal(read["face"]["vertex_indices"], mesh.triangles) and (read["face"]["length"] == 3).all()
    )
    if with_normals:
        assert np.array_equal(columns(read["vertex"], "nx", "ny", "nz"), normals)
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.ply"]


@pytest.mark.parametrize("number", [0, 8])
def test_points_come_back_from_their_ply_with_confidence(tmp_path, mesh, number):
    confidence = np.linspace(0, 1, 8, dtype=np.float32)[:number]
    write_ply_points(tmp_path / "cloud.ply", mesh.vertices[:number], mesh.colours[:number], confidence)
    read = read_ply(tmp_path / "cloud.ply")["vertex"]
    assert np.array_equal(columns(read, "x", "y", "z"), mesh.vertices[:number])
    assert np.array_equal(read["confidence"], confidence)


def test_m18_a_mesh_is_the_same_in_another_library(tmp_path, mesh):
    trimesh = pytest.importorskip("trimesh")
    normals = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours, normals)
    read = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert np.array_equal(read.vertices, mesh.vertices) and np.array_equal(read.faces, mesh.triangles)
    assert np.array_equal(read.visual.vertex_colors[:, :3], mesh.colours)
    assert np.allclose(read.vertex_normals, normals, atol=1e-6)


@pytest.mark.parametrize("where", ["nowhere/mesh.ply", "file/mesh.ply"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, mesh, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*mesh\.ply \(.+\): give another folder"):
        write_ply_mesh(tmp_path / where, mesh.vertices, mesh.triangles, mesh.colours)


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path, mesh, room_for):
    (tmp_path / "mesh.ply").write_text("old")
    with room_for(300), pytest.raises(InputError, match=r"cannot write .*mesh\.ply \(File too large\)"):
        write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours)
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.ply"]
    assert (tmp_path / "mesh.ply").read_text() == "old"
    write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours)
    assert len(read_ply(tmp_path / "mesh.ply")["face"]) == 5
