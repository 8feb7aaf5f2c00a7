# SPDX-License-Identifier: Apache-2.0
"""The demo and what it rests on: programs that are started, watched and ended, flags in the words of ROS, saved results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from recon3d_ros.cli.main import main, parser
from recon3d_ros.cli.nodes import ros_arguments
from recon3d_ros.cli.processes import Processes
from recon3d_ros.core.errors import ReconError

SMALL = ["--frames", "40", "--size", "320x240", "--quiet"]


def test_the_demo_flies_through_real_nodes_and_the_map_fits_the_truth(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), *SMALL]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["tracked"] == report["frames"] == 40
    assert report["published"] == report["received"]
    assert min(report["received"].values()) > 0 and report["received"]["/tf"] == 40
    assert report["ate_percent_of_path"] < 1.0
    assert report["surface_median_voxels"] < 2.0
    assert report["triangles"] > 5_000
    for name in (
        "trajectory.txt",
        "keyframes.csv",
        "cloud.ply",
        "mesh.ply",
        "report.md",
        "preview.png",
        "config.yaml",
    ):
        assert (tmp_path / name).stat().st_size > 0
    assert "received by another process" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_keeps_what_was_computed(tmp_path):
    code = "import sys; from recon3d_ros.cli.main import main; sys.exit(main())"
    demo = subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--out", str(tmp_path), "--rate", "0.2", *SMALL]
    )
    try:
        log = tmp_path / "log.txt"
        end = time.monotonic() + 120
        while not (log.exists() and "subscribed" in log.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(4.0)
        assert len(programs_about(tmp_path)) >= 3  # the demo, slam, the observer
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
    assert 0 < len((tmp_path / "trajectory.txt").read_text().splitlines()) < 40
    assert not programs_about(tmp_path)


def programs_about(folder):
    """Command lines of all processes that name a folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in lines if str(folder) in line]


def test_a_program_that_fails_is_reported_with_the_last_line_it_said(tmp_path):
    with Processes(tmp_path / "log.txt") as processes:
        slam = processes.start("slam", "--ros-args", "-p", "mesh.voxelsize:=1")
        with pytest.raises(ReconError, match=r"slam ended with code 2.*did you mean 'mesh.voxel_size'"):
            slam.wait_for("never said", 30.0)


def test_no_program_is_left_behind_when_something_else_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), Processes(tmp_path / "log.txt") as processes:
        observer = processes.start("observer", str(tmp_path / "counts.json"))
        while not (tmp_path / "log.txt").exists():
            time.sleep(0.01)
        raise ZeroDivisionError
    assert not observer.is_running


def test_programs_stay_on_this_machine_in_a_domain_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    environment = Processes(tmp_path / "log.txt")._environment
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert environment["ROS_DOMAIN_ID"] == str(os.getpid() % 101 + 1)


def test_flags_become_ros_parameters_and_what_follows_goes_to_ros(tmp_path):
    (tmp_path / "p.yaml").write_text("mesh:\n  carve: false\n")
    words = "slam --backend rgbd --set cloud.stride=3 --set output=123 --ros-args -r image:=/cam/image -p input.queue:=9"
    args = parser().parse_args([*words.split()[:1], "--config", str(tmp_path / "p.yaml"), *words.split()[1:]])
    assert ros_arguments(args) == [
        "--ros-args", "-p", 'backend:="rgbd"', "-p", 'output:="123"', "-p", "cloud.stride:=3", "-p", "mesh.carve:=false",
        "-r", "image:=/cam/image", "-p", "input.queue:=9",
    ]  # fmt: skip


def test_a_wrong_flag_is_refused_before_anything_starts(capsys):
    assert main(["slam", "--set", "mesh.voxelsize=1"]) == 2
    assert "did you mean 'mesh.voxel_size'?" in capsys.readouterr().err
    assert main(["demo", "--size", "10x10"]) == 2
