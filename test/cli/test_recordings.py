# SPDX-License-Identifier: Apache-2.0
"""Real recordings through `recon3d run`: what this package promises of them."""

import json

import numpy as np
import pytest

from recon3d_ros.cli.main import main
from recon3d_ros.core.trajectory import read_tum
from recon3d_ros.runtime.sources import open_source

pytestmark = pytest.mark.data


def report_of(tmp_path, source, *arguments):
    assert main(["run", str(source), "--out", str(tmp_path), "--quiet", *arguments]) == 0
    assert (tmp_path / "mesh.ply").stat().st_size > 10_000 and (tmp_path / "preview.png").exists()
    return json.loads((tmp_path / "report.json").read_text())


def test_a_car_drive_without_depth_is_tracked_within_one_percent(data_dir, tmp_path):
    report = report_of(tmp_path, data_dir / "kitti-odometry-a", "--backend", "geometric")
    assert report["tracked"] == report["frames"] == 51
    assert report["alignment"] == "sim3" and report["ate_percent_of_path"] < 1.0


def test_a_kitchen_is_mapped_from_depth_without_given_poses(data_dir, tmp_path):
    report = report_of(tmp_path, data_dir / "7scenes-redkitchen", "--backend", "rgbd")
    assert report["tracked"] == report["frames"] == 200
    assert report["alignment"] == "se3" and report["ate_m"] < 0.06 and report["triangles"] > 100_000


def test_a_real_drone_video_is_tracked_without_calibration(data_dir, tmp_path):
    report = report_of(tmp_path, data_dir / "worldsystem-drone/hall_0140_segment_014.h264")
    assert report["frames"] == 144 and report["tracked"] >= 0.9 * 144
    assert report["triangles"] > 1000 and report["scale_state"] == "unknown"


def test_a_resting_drone_does_not_drift(data_dir, tmp_path):
    main(["run", str(data_dir / "euroc-v101-ground"), "--out", str(tmp_path), "--quiet"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] == 19 and report["tracked"] == 0 and report["keyframes"] == 0


@pytest.mark.slow
def test_a_photo_survey_with_gps_becomes_metric_and_level(data_dir, tmp_path):
    folder = data_dir / "drone-brighton-beach"
    report = report_of(tmp_path, folder, "--backend", "geometric")
    assert report["tracked"] >= 16 and report["frames"] == 18
    assert (report["scale_state"], report["gravity_state"]) == ("prior", "gps")
    flown = read_tum(tmp_path / "trajectory.txt")
    given = open_source(folder).positions
    error = [
        np.linalg.norm(T[:3, 3] - given[t])
        for t, T in zip(flown.stamps_ns.tolist(), flown.poses, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(error))) < 1.5
    # The camera looks straight down.
    axis = flown.poses[:, :3, 2].mean(axis=0)
    assert np.degrees(np.arccos(-axis[2] / np.linalg.norm(axis))) < 5.0


def test_the_height_of_the_camera_gives_a_car_its_metres(data_dir, tmp_path):
    given = ("--backend", "geometric", "--set", "scale.camera_height=1.65")
    report = report_of(tmp_path, data_dir / "kitti-odometry-a", *given)
    assert (report["scale_state"], report["gravity_state"]) == ("prior", "plane")
    assert report["alignment"] == "se3" and report["ate_percent_of_path"] < 1.0
