# SPDX-License-Identifier: Apache-2.0
"""GLB files: by the letter of the format, and as another library reads them."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.glb import write_glb


@pytest.fixture
def mesh():
    """A tetrahedron, and a triangle by itself, with normals."""
    vertices = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    triangles = np.array([(0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 3, 2), (5, 6, 7)], np.int32)
    normals = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return MeshBlock((0, 0, 0), vertices, triangles, np.arange(0, 240, 10, np.uint8).reshape(8, 3), normals)


def linear(colours):
    """sRGB to linear intensity, in 0..1."""
    share = colours / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def chunks(data):
    """The JSON and the binary part, after a look at all sizes."""
    magic, version, size, text_size, text_kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, text_kind) == (b"glTF", 2, len(data), b"JSON") and text_size % 4 == 0
    scene = json.loads(data[20 : 20 + text_size])
    binary_size, kind = struct.unpack_from("<I4s", data, 20 + text_size)
    body = data[28 + text_size :]
    assert kind == b"BIN\0" and len(body) % 4 == 0
    assert binary_size == len(body) == scene["buffers"][0]["byteLength"]
    return scene, body


def test_it_holds_the_mesh_in_aligned_chunks_of_the_sizes_it_says(tmp_path, mesh):
    write_glb(tmp_path / "mesh.glb", mesh)
    scene, body = chunks((tmp_path / "mesh.glb").read_bytes())

    def values(number, dtype, width):
        about = scene["accessors"][number]
        view = scene["bufferViews"][about["bufferView"]]
        assert view["byteLength"] == about["count"] * width * np.dtype(dtype).itemsize
        return np.frombuffer(body, dtype, about["count"] * width, view["byteOffset"]).reshape(-1, width)

    primitive = scene["meshes"][0]["primitives"][0]
    names = primitive["attributes"]
    assert np.array_equal(values(names["POSITION"], "<f4", 3), mesh.vertices)
    assert np.array_equal(values(names["NORMAL"], "<f4", 3), mesh.normals)
    assert np.array_equal(values(primitive["indices"], "<u4", 1).reshape(-1, 3), mesh.triangles)
    colours = values(names["COLOR_0"], "<u2", 4) / 65535
    assert (colours[:, 3] == 1).all() and np.allclose(colours[:, :3], linear(mesh.colours), atol=1e-5)
    bounds = scene["accessors"][names["POSITION"]]
    assert np.allclose((bounds["min"], bounds["max"]), (mesh.vertices.min(0), mesh.vertices.max(0)))


def test_another_library_reads_the_same_mesh_and_turns_it_upright(tmp_path, mesh):
    trimesh = pytest.importorskip("trimesh")
    write_glb(tmp_path / "mesh.glb", mesh)
    scene = trimesh.load(tmp_path / "mesh.glb", process=False)
    (read,) = scene.geometry.values()
    assert np.array_equal(read.vertices, mesh.vertices) and np.array_equal(read.faces, mesh.triangles)
    assert np.allclose(read.vertex_normals, mesh.normals, atol=1e-6)
    colours = read.visual.vertex_attributes["color"] / 65535
    assert np.allclose(colours[:, :3], linear(mesh.colours), atol=1e-5)
    upright = scene.to_geometry().vertices
    x, y, z = mesh.vertices.T
    assert np.allclose(upright, np.column_stack([x, z, -y]), atol=1e-6)  # y is up there


def test_normals_may_be_left_out(tmp_path, mesh):
    write_glb(tmp_path / "mesh.glb", dataclasses.replace(mesh, normals=None))
    scene, _ = chunks((tmp_path / "mesh.glb").read_bytes())
    assert set(scene["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "COLOR_0"}


def test_a_full_disk_leaves_the_old_file(tmp_path, mesh, room_for):
    (tmp_path / "mesh.glb").write_text("old")
    with room_for(500), pytest.raises(InputError, match="File too large"):
        write_glb(tmp_path / "mesh.glb", mesh)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_mesh_without_triangles_is_refused_since_the_format_has_no_empty_arrays(tmp_path, mesh):
    with pytest.raises(InputError, match="no surface"):
        write_glb(tmp_path / "mesh.glb", dataclasses.replace(mesh, triangles=mesh.triangles[:0]))
    assert not list(tmp_path.iterdir())
