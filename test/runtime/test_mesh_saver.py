# SPDX-License-Identifier: Apache-2.0
"""Meshes saved by a process of its own: complete files, or the old ones and a line that says why."""

import threading
import time

import numpy as np
import pytest

from recon3d_ros.core.errors import ReconError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.ply import load_ply
from recon3d_ros.runtime.mesh_file import MeshOptions
from recon3d_ros.runtime.mesh_saver import MeshSaver


def sheet(number):
    """A flat sheet of number x number vertices."""
    x, y = np.meshgrid(np.arange(number), np.arange(number))
    i = np.arange(number * number).reshape(number, number)
    a, b, c, d = (part.ravel() for part in (i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]))
    triangles = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    vertices = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    return MeshBlock(
        (0, 0, 0),
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        np.full((number**2, 3), 90, np.uint8),
    )


MESH = sheet(30)
PLAIN = 900 * 15 + 2 * 29**2 * 13 + 250  # bytes of the file without normals, about


def test_the_file_holds_the_mesh_with_normals_and_nothing_else_is_left(tmp_path):
    path = MeshSaver().save(MESH, tmp_path / "new" / "folder", MeshOptions())
    ply = load_ply(path)
    assert np.array_equal(ply.vertices, MESH.vertices) and np.array_equal(ply.triangles, MESH.triangles)
    assert b"property float nx" in path.read_bytes()[:500]
    assert path == tmp_path / "new" / "folder" / "mesh.ply" and list(path.parent.iterdir()) == [path]


def test_another_kind_of_surface_has_a_name_of_its_own(tmp_path):
    pytest.importorskip("fast_simplification")
    path = MeshSaver().save(MESH, tmp_path, MeshOptions(simplify=0.2, format="glb"))
    assert path.name == "mesh_simplified.glb" and path.read_bytes()[:4] == b"glTF"
    assert MeshOptions(poisson=True).name == "mesh_poisson.ply"


@pytest.mark.parametrize("room", [PLAIN // 2, PLAIN + 500], ids=["of the plain mesh", "of the finished one"])
def test_a_full_disk_leaves_the_old_file_and_the_saver_goes_on(tmp_path, room_for, room):
    (tmp_path / "mesh.ply").write_text("old")
    saver = MeshSaver()
    with (
        room_for(room),
        pytest.raises(ReconError, match=rf"^cannot write {tmp_path}/mesh.ply \(File too large\)"),
    ):
        saver.save(MESH, tmp_path, MeshOptions())
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    saver.save(MESH, tmp_path, MeshOptions())
    assert len(load_ply(tmp_path / "mesh.ply").triangles) == len(MESH.triangles)


@pytest.mark.parametrize("folder", ["file/out", "/proc/recon3d"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(ReconError, match=r"cannot write to output folder .*: give another"):
        MeshSaver().save(MESH, tmp_path / folder, MeshOptions())


def test_an_empty_mesh_is_not_saved_over_an_older_one(tmp_path):
    (tmp_path / "mesh.ply").write_text("old")
    empty = MeshBlock((0, 0, 0), *(np.empty((0, 3), kind) for kind in (np.float32, np.int32, np.uint8)))
    with pytest.raises(ReconError, match="no surface yet"):
        MeshSaver().save(empty, tmp_path, MeshOptions())
    assert (tmp_path / "mesh.ply").read_text() == "old"


def test_what_fails_in_the_other_process_is_told_in_its_words(tmp_path, monkeypatch):
    (tmp_path / "fast_simplification.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ReconError, match=r"^fast_simplification is not available \(not here\): install it"):
        MeshSaver().save(MESH, tmp_path, MeshOptions(simplify=0.5))


def test_a_save_under_way_is_given_up_when_the_saver_closes(tmp_path):
    saver, said = MeshSaver(), []

    def save():
        try:
            saver.save(sheet(700), tmp_path, MeshOptions())
        except ReconError as error:
            said.append(str(error))

    thread = threading.Thread(target=save)
    thread.start()
    while saver._process is None:
        time.sleep(0.01)
    saver.close()
    thread.join(20)
    assert said == ["given up, because the node ends"] and not list(tmp_path.iterdir())
