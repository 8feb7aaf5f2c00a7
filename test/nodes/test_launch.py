# SPDX-License-Identifier: Apache-2.0
"""Launch files, the RViz view and the example parameter files: described, and in step with parameters and topics."""

import ast
import runpy
from pathlib import Path

import pytest
import yaml

from recon3d_ros.core.config import Config
from recon3d_ros.core.params import build, flatten, load_yaml, parameters

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
EXPECTED = {
    "namespace", "use_sim_time", "params_file", "rviz", "log_level", "autostart", "use_respawn", "nodes", "composed",
    "bag", "rate", "loop", "output", "backend", "image_topic", "camera_info_topic", "depth_topic", "odom_topic",
    "imu_topic", "fix_topic", "image_transport", "base_frame", "odom_frame", "map_frame", "frame_prefix",
    "map", "save_map",
}  # fmt: skip
EXAMPLES = {"realsense", "usb_camera", "px4_gazebo", "tello", "dji"}


def constants(name):
    """The tables at the top of a launch file, read without executing it."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "launch" / f"{name}.launch.py").read_text()).body
        if isinstance(node, ast.Assign)
    }


def test_every_launch_file_that_is_promised_is_there():
    assert {path.name.partition(".")[0] for path in FILES} == {
        "slam", "mesher", "replay", "demo", "multi_drone",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_argument_is_described_and_the_file_is_short(path):
    tables = constants(path.name.partition(".")[0])
    described = [*tables.get("ARGUMENTS", ()), *tables.get("REQUIRED", ())]
    assert all(len(entry[-1]) > 10 for entry in described)
    assert len({entry[0] for entry in described}) == len(described)
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_arguments_are_those_that_people_expect():
    assert {name for name, _, _ in constants("slam")["ARGUMENTS"]} == EXPECTED


def test_every_parameter_it_sets_exists():
    slam = constants("slam")
    assert set(slam["PARAMETERS"].values()) <= {p.name for p in parameters(Config)}
    assert set(slam["PARAMETERS"]) | set(slam["TOPICS"]) <= EXPECTED


def test_an_argument_that_is_not_given_overwrites_no_parameter():
    slam = constants("slam")
    defaults = {name: default for name, default, _ in slam["ARGUMENTS"]}
    assert {defaults[name] for name in (*slam["PARAMETERS"], *slam["TOPICS"], "use_sim_time")} == {""}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_a_file_sets_of_the_one_it_includes_is_an_argument_of_that(path):
    tree = ast.parse(path.read_text())
    own = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "own"), None)
    dicts = [n for n in ast.walk(own) if isinstance(n, ast.Dict)] if own is not None else []
    names = {key.value for n in dicts for key in n.keys if key is not None}
    assert names | set(constants(path.name.partition(".")[0]).get("SET", {})) <= EXPECTED


def test_the_view_shows_topics_that_are_published():
    view = yaml.safe_load((ROOT / "config/rviz/recon3d.rviz").read_text())["Visualization Manager"]
    topics = {d["Topic"]["Value"] for d in view["Displays"] if "Topic" in d}
    assert topics == {f"/{topic}" for topic in constants("slam")["SHOWN"]} | {"/image"}
    assert view["Global Options"]["Fixed Frame"] == Config().frames.map


def test_the_view_asks_for_what_is_offered():
    """A display that asks for transient local gets nothing from a volatile publisher."""
    qos = pytest.importorskip("recon3d_ros.ros.qos")
    latched = {"/mesher/mesh": qos.MESH, "/reconstructor/path": qos.LATCHED}
    view = yaml.safe_load((ROOT / "config/rviz/recon3d.rviz").read_text())["Visualization Manager"]
    for topic in (d["Topic"] for d in view["Displays"] if "Topic" in d):
        offered = "Transient Local" if topic["Value"] in latched else "Volatile"
        assert topic["Durability Policy"] == offered, topic
        assert topic["Depth"] >= getattr(latched.get(topic["Value"]), "depth", 1)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_sets_only_what_differs_and_says_how_it_is_used(name):
    path = ROOT / "config" / f"{name}.yaml"
    given = load_yaml(path)
    defaults = flatten(Config())
    assert given and flatten(build(Config, given))
    assert [key for key, value in given.items() if value == defaults[key]] == []
    share = "$(ros2 pkg prefix --share recon3d_ros)"
    assert (
        f"ros2 launch recon3d_ros slam.launch.py params_file:={share}/config/{name}.yaml" in path.read_text()
    )


#: Arguments, and the programs they start.
CASES = [
    ("slam", {}, ["slam"]),
    ("slam", {"composed": "false", "bag": "x", "rviz": "true"}, ["reconstructor", "mesher", "replay", "rviz2"]),
    ("mesher", {}, ["mesher"]),
    ("replay", {"bag": "x"}, ["slam", "replay"]),
    ("multi_drone", {"drones": "a, b", "composed": "false"}, ["reconstructor", "mesher"] * 2),
    ("demo", {"rviz": "true"}, ["rviz2"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "programs"), CASES)
def test_it_makes_the_processes_asked_for(name, arguments, programs, monkeypatch):
    nodes = visited(name, arguments, monkeypatch)
    assert [node._Node__node_executable for node in nodes] == programs


def test_only_what_is_given_is_passed_on(monkeypatch):
    (node,) = visited("slam", {}, monkeypatch)
    assert not node._Node__parameters and not node._Node__remappings
    (node,) = visited("slam", {"autostart": "false", "backend": "rgbd", "image_topic": "a"}, monkeypatch)
    assert len(node._Node__parameters) == 1 and len(node._Node__remappings) == 1


def visited(name, arguments, monkeypatch):
    """The nodes that a launch file makes, none of which is started."""
    launch = pytest.importorskip("launch", reason="launch is not on the package index")
    launch_ros = pytest.importorskip("launch_ros.actions")
    substitutions = pytest.importorskip("launch_ros.substitutions")
    monkeypatch.setattr(substitutions.FindPackageShare, "find", lambda self, package: str(ROOT))
    made = []
    monkeypatch.setattr(launch_ros.Node, "execute", lambda self, context: made.append(self))
    monkeypatch.setattr(launch.actions.ExecuteProcess, "execute", lambda self, context: None)
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)

    def visit(entity):
        for other in entity.visit(context) or []:
            visit(other)

    visit(runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))["generate_launch_description"]())
    return made
