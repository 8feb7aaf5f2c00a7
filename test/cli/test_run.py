# SPDX-License-Identifier: Apache-2.0
"""`recon3d run` as a user meets it: results, exit codes, and one clear line for what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from recon3d_ros.cli.main import main
from recon3d_ros.core.trajectory import read_tum

FLIGHT = "synthetic:room/forward?frames=12&size=160x120&depth=1"


@pytest.fixture
def photos(tmp_path):
    """A folder of twelve images of a textured wall that moves sideways."""
    folder = tmp_path / "photos"
    folder.mkdir()
    texture = cv2.resize(np.random.default_rng(0).integers(0, 255, (60, 120, 3), np.uint8), (480, 240))
    for i in range(12):
        cv2.imwrite(str(folder / f"{i}.png"), texture[:120, 5 * i : 5 * i + 160])
    return folder


def test_a_run_leaves_every_file_and_the_errors_against_the_truth(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", FLIGHT, "--out", str(out), "--quiet"]) == 0
    names = {"trajectory.txt", "keyframes.csv", "cloud.ply", "mesh.ply", "report.json", "report.md"}
    assert names | {"preview.png", "config.yaml", "log.txt"} == set(os.listdir(out))
    report = json.loads((out / "report.json").read_text())
    assert report["frames"] == report["tracked"] == 12 == len(read_tum(out / "trajectory.txt"))
    assert report["scale_state"] == "sensor" and report["alignment"] == "se3" and report["ate_m"] < 0.02
    assert report["surface_median_voxels"] < 2 and report["triangles"] > 1000
    assert {"p50", "p95", "max"} == set(report["latency_ms"]) and report["peak_rss_mb"] > 0
    assert "12 of 12" in capsys.readouterr().out
    assert cv2.imread(str(out / "preview.png")).std() > 5


def test_the_configuration_used_is_taken_back(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert main(["run", FLIGHT, "--out", str(first), "--quiet", "--set", "mesh.voxel_size=0.08"]) == 0
    assert main(["run", FLIGHT, "--out", str(second), "--quiet", "--config", str(first / "config.yaml")]) == 0
    reports = [json.loads((f / "report.json").read_text()) for f in (first, second)]
    assert reports[0]["voxel_size"] == 0.08 and reports[0]["triangles"] == reports[1]["triangles"]
    assert (first / "trajectory.txt").read_text() == (second / "trajectory.txt").read_text()


def test_a_second_run_goes_on_in_the_map_of_the_first(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert main(["run", FLIGHT, "--out", str(first), "--quiet", "--save-map"]) == 0
    assert {p.name for p in (first / "map").iterdir()} == {"reconstruction.npz", "surface.npz"}
    longer = FLIGHT.replace("frames=12", "frames=20")
    assert main(["run", longer, "--out", str(second), "--quiet", "--map", str(first / "map")]) == 0
    before, report = (json.loads((f / "report.json").read_text()) for f in (first, second))
    assert report["backend"] == "rgbd" and report["tracked"] == 20 == len(read_tum(second / "trajectory.txt"))
    assert report["points"] > before["points"] and report["voxel_size"] == before["voxel_size"]
    assert report["ate_m"] < 0.02 and report["surface_median_voxels"] < 2
    assert "map" not in os.listdir(second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing"], "no such file or folder"),
        ([FLIGHT, "--map", "{tmp}/empty"], "save a map first"),
        (["{tmp}/empty"], "no image"),
        (["{tmp}/notes.xyz"], "of no known kind"),
        (["synthetic:moon/orbit"], "moon"),
        ([FLIGHT, "--set", "mesh.voxelsize=1"], "did you mean 'mesh.voxel_size'"),
        ([FLIGHT, "--set", "mesh.voxel_size=-1"], "must lie in"),
        ([FLIGHT, "--set", "mesh.voxel_size"], "takes name=value"),
        ([FLIGHT, "--camera", "{tmp}/zero.yaml"], "not calibrated"),
        ([FLIGHT, "--out", "/proc/nowhere"], "cannot write to output folder"),
        ([FLIGHT, "--backend", "slam3r"], "not available"),
        (["synthetic:room/forward?frames=3", "--backend", "rgbd"], "--backend geometric"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.xyz").write_text("hello")
    (tmp_path / "zero.yaml").write_text(
        "image_width: 160\nimage_height: 120\ndistortion_model: plumb_bob\n"
        "camera_matrix: {rows: 3, cols: 3, data: [0, 0, 0, 0, 0, 0, 0, 0, 0]}\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n"
    )
    arguments = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    assert main(["run", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("recon3d:")]) == 1


def test_damaged_and_odd_images_are_counted_and_the_rest_is_used(tmp_path, photos):
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:500])
    (photos / "5.png").write_text("no image at all")
    cv2.imwrite(str(photos / "7.png"), np.zeros((240, 320, 3), np.uint8))
    assert main(["run", str(photos), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["frames"] == 9 and sum(report["drops"].values()) == 3
    assert report["drops"]["image size"] == 1


def test_a_full_disk_keeps_what_fits(tmp_path, monkeypatch, caplog):
    import recon3d_ros.runtime.results as results

    def full(path, *arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_ply_mesh", full)
    assert main(["run", FLIGHT, "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert "mesh.ply not written: [Errno 28] No space left" in caplog.text
    assert (tmp_path / "out/trajectory.txt").exists() and (tmp_path / "out/cloud.ply").exists()
    assert not [n for n in os.listdir(tmp_path / "out") if n.endswith(".part")]


def test_interruption_saves_what_is_there(tmp_path):
    out = tmp_path / "out"
    flight = "synthetic:room/forward?frames=5000&size=160x120&depth=1"
    command = [sys.executable, "-m", "recon3d_ros.cli.main", "run", flight, "--out", str(out), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while "backend" not in (out / "log.txt").read_text() if (out / "log.txt").exists() else True:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    report = json.loads((out / "report.json").read_text())
    assert report["interrupted"] and 0 < report["frames"] < 5000
    assert len(read_tum(out / "trajectory.txt")) == report["tracked"] and (out / "cloud.ply").exists()
