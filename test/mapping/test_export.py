# SPDX-License-Identifier: Apache-2.0
"""Files read back by parsers of their own."""

import json
import struct

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.export import remove_small_components, write_glb, write_ply_mesh, write_ply_points

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


def test_a_mesh_of_another_library_is_the_same(tmp_path, mesh):
    trimesh = pytest.importorskip("trimesh")
    write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours)
    write_glb(tmp_path / "mesh.glb", mesh.vertices, mesh.triangles, mesh.colours)
    ply = trimesh.load(tmp_path / "mesh.ply", process=False)
    (glb,) = trimesh.load(tmp_path / "mesh.glb", process=False).geometry.values()
    for read in (ply, glb):
        assert np.allclose(read.vertices, mesh.vertices) and np.array_equal(read.faces, mesh.triangles)


def test_a_glb_holds_the_mesh_in_aligned_chunks_of_the_sizes_it_says(tmp_path, mesh):
    write_glb(tmp_path / "mesh.glb", mesh.vertices, mesh.triangles, mesh.colours)
    data = (tmp_path / "mesh.glb").read_bytes()
    magic, version, size, text_size, text_kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, text_kind) == (b"glTF", 2, len(data), b"JSON") and text_size % 4 == 0
    scene = json.loads(data[20 : 20 + text_size])
    binary_size, kind = struct.unpack_from("<I4s", data, 20 + text_size)
    body = data[28 + text_size :]
    assert (
        kind == b"BIN\0"
        and binary_size == len(body) == scene["buffers"][0]["byteLength"]
        and len(body) % 4 == 0
    )

    def accessor(number, dtype, width):
        about = scene["accessors"][number]
        view = scene["bufferViews"][about["bufferView"]]
        assert view["byteLength"] == about["count"] * width * np.dtype(dtype).itemsize
        return np.frombuffer(body, dtype, about["count"] * width, view["byteOffset"]).reshape(-1, width)

    primitive = scene["meshes"][0]["primitives"][0]
    assert np.array_equal(accessor(primitive["attributes"]["POSITION"], "<f4", 3), mesh.vertices)
    assert np.array_equal(accessor(primitive["indices"], "<u4", 1).reshape(-1, 3), mesh.triangles)
    linear = accessor(primitive["attributes"]["COLOR_0"], "<u2", 4) / 65535
    assert (linear[:, 3] == 1).all() and np.allclose(linear[:, :3], (mesh.colours / 255 / 12.92), atol=2e-3)


@pytest.mark.parametrize("where", ["nowhere/mesh.ply", "file/mesh.ply"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, mesh, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*mesh\.ply \(.+\): give another folder"):
        write_ply_mesh(tmp_path / where, mesh.vertices, mesh.triangles, mesh.colours)


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path, mesh, monkeypatch):
    (tmp_path / "mesh.ply").write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_ply_mesh(tmp_path / "mesh.ply", mesh.vertices, mesh.triangles, mesh.colours)
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.ply"] and (
        tmp_path / "mesh.ply"
    ).read_text() == "old"


def test_small_components_go_with_their_vertices(mesh):
    kept = remove_small_components(mesh, 2)
    assert np.array_equal(kept.triangles, mesh.triangles[:4])
    assert np.array_equal(kept.vertices, mesh.vertices[:4]) and np.array_equal(kept.colours, mesh.colours[:4])
    everything = remove_small_components(mesh, 1)
    assert len(everything.triangles) == 5 and len(everything.vertices) == 7
    nothing = remove_small_components(mesh, 100)
    assert len(nothing.triangles) == 0 and len(nothing.vertices) == 0
