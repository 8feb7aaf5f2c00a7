# SPDX-License-Identifier: Apache-2.0
"""`recon3d eval` as a user meets it: what is compared with what, exit codes, and one clear line for what is wrong."""

import json
import shutil

import cv2
import numpy as np
import pytest

from recon3d_ros.cli.main import main
from recon3d_ros.core.geometry import apply_similarity, se3_exp, similarity, transform
from recon3d_ros.core.trajectory import Trajectory, format_tum, read_tum
from recon3d_ros.mapping.export import write_ply_mesh, write_ply_points
from recon3d_ros.mapping.ply import load_ply
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

FLIGHT = "synthetic:room/forward?frames=12&size=160x120&depth=1"
#: From the map of an estimate to the truth.
S = similarity(2.0, se3_exp(np.array([0, 0, 0, 0.2, -0.3, 0.5]))[:3, :3], np.array([1.0, 2, 3]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of a run with sensor depth."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["run", FLIGHT, "--out", str(out), "--quiet", "--save-depth"]) == 0
    return out


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A TUM-style folder of the same flight: images, exact depth of another camera than the image's, poses."""
    folder = tmp_path_factory.mktemp("recording")
    options = FlightOptions(frames=12, camera=camera_of(160, 120, 70.0))
    flight, wide = SyntheticFlight("room", "forward", options), camera_of(200, 150, 80.0)
    truth = SyntheticFlight("room", "forward", FlightOptions(frames=12, camera=wide))
    colours, depths = [], []
    for i, stamp in enumerate(flight.truth.stamps_ns):
        seconds = f"{stamp / 1e9:.3f}"
        cv2.imwrite(str(folder / f"{i}.jpg"), flight.view(i)[0])
        cv2.imwrite(str(folder / f"{i}.png"), np.nan_to_num(5000 * truth.view(i)[1]).astype(np.uint16))
        colours.append(f"{seconds} {i}.jpg")
        depths.append(f"{seconds} {i}.png")
    (folder / "rgb.txt").write_text("\n".join(colours))
    (folder / "depth.txt").write_text("\n".join(depths))
    (folder / "poses.txt").write_text(format_tum(flight.truth))
    camera = options.camera
    calibration = {
        "width": 160,
        "height": 120,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
    }
    calibration |= {"depth_scale": 5000, "depth_width": 200, "depth_height": 150, "depth_fx": wide.fx}
    calibration |= {"depth_fy": wide.fy, "depth_cx": wide.cx, "depth_cy": wide.cy}
    (folder / "calib.json").write_text(json.dumps(calibration))
    return folder


def evaluate(capsys, *arguments):
    """The JSON report."""
    assert main(["eval", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_files_give_the_errors_of_the_trajectory(run, tmp_path, capsys):
    truth = read_tum(run / "trajectory.txt")
    moved = Trajectory(truth.stamps_ns, np.array([apply_similarity(S, T) for T in truth.poses]))
    (tmp_path / "truth.txt").write_text(format_tum(moved))
    result = evaluate(capsys, run / "trajectory.txt", tmp_path / "truth.txt")
    assert result["pairs"] == 12 and result["alignment"] == "sim3"
    assert result["scale"] == pytest.approx(2.0) and result["ate"]["rmse"] < 1e-6
    assert {"rpe_translation", "rpe_rotation", "path", "ate_percent_of_path", "T_truth_map"} <= set(result)
    assert "depth" not in result and "surface" not in result and result["notes"] == []
    rigid = evaluate(capsys, run / "trajectory.txt", tmp_path / "truth.txt", "--alignment", "se3")
    assert rigid["scale"] == pytest.approx(1.0) and rigid["scale_found"] == pytest.approx(2.0)


def test_a_run_on_a_synthetic_flight_is_compared_in_everything(run, capsys):
    result = evaluate(capsys, run, FLIGHT, "--delta", "2f")
    assert result["alignment"] == "se3" and result["coverage"] == 1.0 and result["delta"] == "2 frames"
    assert result["depth"]["scaling"] == "none" and result["depth"]["abs_rel_median"] < 1e-3
    report = json.loads((run / "report.json").read_text())
    assert result["surface"]["threshold"] == pytest.approx(2 * report["voxel_size"], rel=0.01)
    assert result["surface"]["precision"] > 0.9 and result["surface"]["recall"] > 0.5
    assert result["ate"]["rmse"] == pytest.approx(report["ate_m"])
    assert result["surface"]["accuracy"]["median"] == pytest.approx(report["surface_median_m"], rel=1e-6)


def test_a_recording_with_depth_of_another_camera_gives_the_same_as_its_exact_truth(run, recording, capsys):
    result = evaluate(capsys, run, recording, "--depth-scale", "keyframe")
    assert result["ate"]["rmse"] < 0.02 and result["frames"] == 12
    assert result["depth"]["abs_rel_median"] < 2e-3 and result["depth"]["coverage"] > 0.98
    exact = evaluate(capsys, run, FLIGHT)["surface"]["accuracy"]
    fused = result["surface"]["accuracy"]
    assert fused["median"] == pytest.approx(exact["median"], abs=0.01)
    assert result["surface"]["f_score"] > 0.6


def test_the_alignment_of_the_trajectory_moves_the_surface_too(run, tmp_path, capsys):
    mesh = load_ply(run / "mesh.ply")
    vertices = transform(S, mesh.vertices).astype(np.float32)
    write_ply_mesh(tmp_path / "truth.ply", vertices, mesh.triangles, mesh.colours)
    truth = read_tum(run / "trajectory.txt")
    moved = Trajectory(truth.stamps_ns, np.array([apply_similarity(S, T) for T in truth.poses]))
    (tmp_path / "truth.txt").write_text(format_tum(moved))
    files = (run, tmp_path / "truth.txt", "--surface", tmp_path / "truth.ply", "--align", "sim3")
    aligned = evaluate(capsys, *files)["surface"]
    assert aligned["f_score"] == 1.0 and aligned["accuracy"]["p90"] < 1e-3
    unmoved = evaluate(capsys, run, tmp_path / "truth.ply")
    assert unmoved["surface"]["f_score"] < 0.1
    assert any("as it stands" in note for note in unmoved["notes"])


def test_a_mesh_is_compared_with_a_cloud(run, capsys):
    result = evaluate(capsys, run / "mesh.ply", run / "cloud.ply", "--threshold", "0.1")
    assert result["surface"]["precision"] > 0.9 and "ate" not in result


def test_two_runs_are_compared_with_each_other(run, capsys):
    result = evaluate(capsys, run, run)
    assert result["ate"]["rmse"] < 1e-9 and result["surface"]["f_score"] == 1.0


def test_depth_beyond_a_limit_counts_for_nothing(run, recording, capsys):
    near = evaluate(capsys, run, recording, "--max-depth", "2.5")
    everything = evaluate(capsys, run, recording)
    assert near["depth"]["pixels"] < everything["depth"]["pixels"]
    assert near["surface"]["unseen"] > everything["surface"]["unseen"]


def test_what_cannot_be_compared_is_said_in_a_line_each(run, recording, tmp_path, capsys):
    for name in ("trajectory.txt", "report.json"):
        shutil.copy(run / name, tmp_path)
    assert main(["eval", str(tmp_path), str(recording)]) == 0
    text = capsys.readouterr().out
    assert "depth not compared" in text and "--save-depth" in text
    assert "surface not compared" in text and "## Trajectory" in text


def test_a_new_run_into_the_same_folder_leaves_no_depth_of_the_one_before(run, tmp_path):
    shutil.copytree(run / "depth", tmp_path / "depth")
    short = "synthetic:room/forward?frames=3&size=160x120&depth=1"
    assert main(["run", short, "--out", str(tmp_path), "--quiet"]) == 0
    assert list((tmp_path / "depth").iterdir()) == []


def test_only_the_largest_of_several_maps_is_compared_and_the_rest_is_said(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "out")
    whole = read_tum(run / "trajectory.txt")
    parts = {"trajectory.txt": slice(0, 8), "trajectory_map2.txt": slice(8, 12)}
    for name, part in parts.items():
        text = format_tum(Trajectory(whole.stamps_ns[part], whole.poses[part]))
        (tmp_path / "out" / name).write_text(text)
    result = evaluate(capsys, tmp_path / "out", FLIGHT)
    assert result["pairs"] == 8 and "4 frames in other maps" in result["notes"][0]
    assert 0 < result["depth"]["keyframes"] <= evaluate(capsys, run, FLIGHT)["depth"]["keyframes"]


def test_the_report_is_written_in_both_forms(run, tmp_path, capsys):
    files = [tmp_path / "eval.md", tmp_path / "eval.json"]
    assert main(["eval", str(run), FLIGHT, "--out", str(files[0]), "--out", str(files[1])]) == 0
    text = files[0].read_text()
    assert text == capsys.readouterr().out
    assert all(title in text for title in ("# Evaluation", "## Trajectory", "## Depth", "## Surface"))
    assert json.loads(files[1].read_text())["surface"]["f_score"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing", "{tmp}/poses.txt"], "no such file or folder"),
        (["{tmp}/poses.txt", "{tmp}/nothing"], "no such file or folder"),
        (["{tmp}/poses.txt", "{tmp}/late.txt"], "share a clock"),
        (["{tmp}/blank.txt", "{tmp}/poses.txt"], "holds no poses"),
        (["{tmp}/words.txt", "{tmp}/poses.txt"], "words.txt:1: not a line of"),
        (["{tmp}/folder", "{tmp}/poses.txt"], "no output folder"),
        (["{tmp}/poses.txt", "{tmp}/folder"], "holds no truth"),
        (["{tmp}/empty.ply", "{tmp}/cloud.ply"], "empty.ply is empty"),
        (["{tmp}/cloud.ply", "{tmp}/empty.ply"], "empty.ply is empty"),
        (["{tmp}/cloud.ply", "{tmp}/broken.ply"], "no complete PLY file"),
        (["{tmp}/poses.txt", "{tmp}/cloud.ply"], "nothing to compare"),
        (["{tmp}/poses.txt", "synthetic:moon/orbit"], "moon"),
        (["{tmp}/poses.txt", "{tmp}/poses.txt", "--delta", "3"], "no distance of poses"),
        (["{tmp}/poses.txt", "{tmp}/poses.txt", "--out", "{tmp}/report.pdf"], "ends in .md or .json"),
        (["{tmp}/poses.txt", "{tmp}/poses.txt", "--out", "{tmp}/no/report.md"], "cannot write"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(tmp_path, capsys, arguments, message):
    walk = np.array([se3_exp(np.array([0.1 * i, 0.02 * i * i, 0, 0, 0, 0])) for i in range(5)])
    stamps = np.arange(5, dtype=np.int64) * 10**8
    (tmp_path / "poses.txt").write_text(format_tum(Trajectory(stamps, walk)))
    (tmp_path / "late.txt").write_text(format_tum(Trajectory(stamps + 10**12, walk)))
    (tmp_path / "blank.txt").write_text("# nothing\n")
    (tmp_path / "words.txt").write_text("hello world\n")
    (tmp_path / "folder").mkdir()
    points = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    write_ply_points(tmp_path / "cloud.ply", points, np.zeros((50, 3), np.uint8))
    write_ply_points(tmp_path / "empty.ply", points[:0], np.zeros((0, 3), np.uint8))
    (tmp_path / "broken.ply").write_bytes((tmp_path / "cloud.ply").read_bytes()[:-7])
    assert main(["eval", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
