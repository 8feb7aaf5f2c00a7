# SPDX-License-Identifier: Apache-2.0
"""The launch file and the RViz view: described, and in step with parameters and topics."""

import ast
import runpy
from pathlib import Path

import pytest
import yaml

from recon3d_ros.core.config import Config
from recon3d_ros.core.params import parameters

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch" / "slam.launch.py"
EXPECTED = {
    "namespace", "use_sim_time", "params_file", "rviz", "log_level", "image_topic", "camera_info_topic", "depth_topic",
    "backend", "base_frame", "odom_frame", "map_frame", "bag", "composed", "output",
}  # fmt: skip


def constants():
    """The tables at the top of the launch file, read without executing it."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(LAUNCH.read_text()).body
        if isinstance(node, ast.Assign)
    }


def test_every_argument_is_there_and_described():
    arguments = constants()["ARGUMENTS"]
    assert {name for name, _, _ in arguments} == EXPECTED
    assert all(len(text) > 10 for _, _, text in arguments)


def test_every_parameter_it_sets_exists():
    assert set(constants()["PARAMETERS"].values()) <= {p.name for p in parameters(Config)}
    assert set(constants()["PARAMETERS"]) | set(constants()["TOPICS"]) <= EXPECTED


def test_the_view_shows_topics_that_are_published():
    view = yaml.safe_load((ROOT / "config/rviz/recon3d.rviz").read_text())["Visualization Manager"]
    topics = {d["Topic"]["Value"] for d in view["Displays"] if "Topic" in d}
    assert topics == {f"/{topic}" for topic in constants()["SHOWN"]} | {"/image"}
    assert view["Global Options"]["Fixed Frame"] == Config().frames.map


@pytest.mark.parametrize(
    ("arguments", "programs"), [({}, 1), ({"composed": "false", "bag": "x", "rviz": "true"}, 4)]
)
def test_it_makes_the_processes_asked_for(arguments, programs):
    launch = pytest.importorskip("launch", reason="launch is not on the package index")
    pytest.importorskip("launch_ros")
    module = runpy.run_path(str(LAUNCH))
    context = launch.LaunchContext()
    defaults = {name: default for name, default, _ in module["ARGUMENTS"]}
    context.launch_configurations.update({**defaults, **arguments})
    assert len(module["make_nodes"](context)) == programs
