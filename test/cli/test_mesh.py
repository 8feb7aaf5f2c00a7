# SPDX-License-Identifier: Apache-2.0
"""`recon3d mesh` as a user meets it: files, their names, exit codes, and one clear line for what is wrong."""

import sys

import numpy as np
import pytest

from recon3d_ros.cli.main import main
from recon3d_ros.mapping.export import write_ply_points
from recon3d_ros.mapping.ply import load_ply

FLIGHT = "synthetic:room/forward?frames=12&size=160x120&depth=1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of a run with sensor depth."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["run", FLIGHT, "--out", str(out), "--quiet"]) == 0
    return out


def test_a_tenth_of_the_triangles_is_kept_with_normals_beside_the_mesh(run, capsys):
    pytest.importorskip("fast_simplification")
    before = (run / "mesh.ply").read_bytes()
    assert main(["mesh", str(run), "--simplify", "0.1"]) == 0
    full, less = load_ply(run / "mesh.ply"), load_ply(run / "mesh_simplified.ply")
    assert 0.08 < len(less.triangles) / len(full.triangles) < 0.13
    assert f"{len(less.triangles)} triangles" in capsys.readouterr().out
    assert (run / "mesh.ply").read_bytes() == before


def test_a_glb_opens_in_another_library(run):
    trimesh = pytest.importorskip("trimesh")
    assert main(["mesh", str(run), "--format", "glb"]) == 0
    full = load_ply(run / "mesh.ply")
    (read,) = trimesh.load(run / "mesh.glb", process=False).geometry.values()
    assert np.array_equal(read.vertices, full.vertices.astype(np.float32))
    assert np.array_equal(read.faces, full.triangles)
    facing = (read.vertex_normals * read.face_normals[read.vertex_faces[:, 0]]).sum(axis=1)
    assert np.median(facing) > 0.9


def test_the_name_of_the_file_says_its_format(run, tmp_path):
    assert main(["mesh", str(run / "mesh.ply"), "-o", str(tmp_path / "room.glb")]) == 0
    assert (tmp_path / "room.glb").read_bytes()[:4] == b"glTF"
    assert main(["mesh", str(run), "-o", str(tmp_path / "room.ply")]) == 0
    assert len(load_ply(tmp_path / "room.ply").triangles) == len(load_ply(run / "mesh.ply").triangles)


def test_m14_poisson_writes_a_file_of_its_own(run):
    pytest.importorskip("open3d")
    assert main(["mesh", str(run), "--poisson", "--depth", "6"]) == 0
    assert len(load_ply(run / "mesh_poisson.ply").triangles) > 1000
    assert main(["mesh", str(run), "--poisson", "--simplify", "0.1", "--format", "glb"]) == 0
    assert (run / "mesh_poisson_simplified.glb").exists()


@pytest.mark.parametrize(
    ("module", "flags", "extra"),
    [("open3d", ["--poisson"], "poisson"), ("fast_simplification", ["--simplify", "0.5"], "mesh")],
)
def test_m14_what_is_not_installed_is_one_line_and_exit_code_2(
    run, monkeypatch, capsys, module, flags, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["mesh", str(run), *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"pip install 'recon3d_ros[{extra}]'" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "nothing to do: give --simplify"),
        (["{tmp}", "--format", "glb"], "cannot read {tmp}/mesh.ply: No such file"),
        (["{tmp}/cloud.ply", "--format", "glb"], "has no triangles"),
        (["{run}", "--simplify", "0"], "above 0 and up to 1, got 0"),
        (["{run}", "--simplify", "nan"], "above 0 and up to 1, got nan"),
        (["{run}", "--poisson", "--depth", "40"], "--depth must lie in 4 .. 12"),
        (["{run}", "-o", "{tmp}/mesh.obj"], "must end in .ply or .glb"),
        (["{run}", "-o", "{tmp}/mesh.ply", "--format", "glb"], "do not agree"),
        (["{run}", "-o", "{tmp}/nowhere/mesh.ply"], "give another folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(run, tmp_path, capsys, arguments, message):
    write_ply_points(tmp_path / "cloud.ply", np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8))
    assert main(["mesh", *(a.format(tmp=tmp_path, run=run) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message.format(tmp=tmp_path) in said
    assert [p.name for p in tmp_path.iterdir()] == ["cloud.ply"]
