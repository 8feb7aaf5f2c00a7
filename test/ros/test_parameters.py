# SPDX-License-Identifier: Apache-2.0
"""Parameters of the nodes: one definition, checked, refused with a reason."""

from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from recon3d_ros.core.config import Config  # noqa: E402
from recon3d_ros.core.errors import InputError  # noqa: E402
from recon3d_ros.core.params import dump_yaml, flatten, parameters  # noqa: E402
from recon3d_ros.ros.parameters import current, declare  # noqa: E402

DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"


@pytest.fixture
def start():
    def start(*ros_args, **options):
        rclpy.init(args=["test", "--ros-args", *ros_args])
        node = Node("tested", automatically_declare_parameters_from_overrides=True)
        return node, declare(node, Config, **options)

    yield start
    rclpy.try_shutdown()


def test_the_file_in_config_holds_the_defaults_of_the_definition():
    assert yaml.safe_load(DEFAULTS.read_text()) == yaml.safe_load(dump_yaml(Config()))
    assert DEFAULTS.read_text().endswith(dump_yaml(Config()))


def test_the_file_in_config_leaves_every_parameter_at_its_default(start):
    node, config = start("--params-file", str(DEFAULTS))
    assert config == Config() == current(node, Config)


def test_every_parameter_is_declared_with_meaning_and_range(start):
    node, _ = start()
    for p in parameters(Config):
        about = node.describe_parameter(p.name)
        assert p.text in about.description and about.read_only
        ranges = list(about.floating_point_range) + list(about.integer_range)
        assert len(ranges) == (p.low is not None or p.high is not None)
        assert node.get_parameter(p.name).value == p.default


def test_values_are_taken_from_arguments_whole_numbers_for_lengths_too(start):
    _, config = start("-p", "mesh.voxel_size:=1", "-p", "backend:=rgbd", "-p", "use_sim_time:=true")
    assert config.mesh.voxel_size == 1.0 and config.backend == "rgbd"
    changed = {n for n, v in flatten(config).items() if v != flatten(Config())[n]}
    assert changed == {"mesh.voxel_size", "backend"}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("mesh.voxelsize:=0.1", "did you mean 'mesh.voxel_size'"),
        ("mesh.voxel_size:=-1.0", "must lie in 0"),
        ("backend:=colmap", "must be one of auto"),
        ("input.queue:=many", "takes a whole number"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_with_the_mend(start, argument, said):
    with pytest.raises(InputError, match=said):
        start("-p", argument)


def test_while_running_live_parameters_change_and_others_say_why_not(start):
    seen = []
    node, _ = start(live=("output", "input.wait"), changed=seen.append)
    accepted = node.set_parameters([Parameter("output", value="/tmp/x"), Parameter("input.wait", value=3)])
    assert [a.successful for a in accepted] == [True, True]
    assert (seen[-1].output, seen[-1].input.wait) == ("/tmp/x", 3.0)
    for name, value, reason in (
        ("input.wait", -1.0, "range"),
        ("backend", "rgbd", "read-only"),
        ("output", 3, "type"),
    ):
        answer = node.set_parameters([Parameter(name, value=value)])[0]
        assert not answer.successful and reason in answer.reason
