# SPDX-License-Identifier: Apache-2.0
"""One definition of every parameter; YAML, checks and documentation made from it."""

from dataclasses import replace

import pytest

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.params import build, dump_yaml, flatten, load_yaml, markdown_table, parameters


def test_every_default_lies_in_its_own_range():
    for p in parameters(Config):
        assert p.check(p.default) == p.default
        assert type(p.default) is p.type and p.text


@pytest.mark.parametrize("ros", [True, False])
def test_a_written_configuration_reads_back_equal(tmp_path, ros):
    config = build(
        Config, {"mesh.voxel_size": 0.025, "backend": "rgbd", "mesh.carve": False, "frames.base": "base_link"}
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config, ros=ros))
    assert build(Config, load_yaml(path)) == config != Config()


def test_text_values_are_taken_as_the_type_of_the_parameter():
    config = build(
        Config,
        {"mesh.voxel_size": "0.05", "store.slots": "16", "mesh.carve": "false", "mesh.max_depth": "1e1"},
    )
    assert (config.mesh.voxel_size, config.store.slots, config.mesh.carve, config.mesh.max_depth) == (
        0.05,
        16,
        False,
        10.0,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mesh.voxelsize": 1}, "did you mean 'mesh.voxel_size'"),
        ({"qqqq": 1}, "unknown parameter 'qqqq'"),
        ({"mesh.voxel_size": -1.0}, "must lie in 0"),
        ({"mesh.voxel_size": float("nan")}, "is NaN"),
        ({"mesh.voxel_size": "big"}, "takes a number"),
        ({"store.slots": 2.5}, "takes a whole number"),
        ({"store.slots": True}, "takes a whole number"),
        ({"backend": "magic"}, "must be one of auto"),
    ],
)
def test_m23_a_wrong_parameter_is_refused_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        build(Config, values)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_configuration_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    for text in ("a: [", "- 1", "\x00"):
        path.write_text(text)
        with pytest.raises(InputError):
            build(Config, load_yaml(path))
    with pytest.raises(InputError, match="cannot read"):
        load_yaml(tmp_path / "missing.yaml")


def test_the_table_names_every_parameter():
    table = markdown_table(Config)
    assert all(f"`{name}`" in table for name in flatten(Config()))


def test_configurations_are_values():
    assert replace(Config(), backend="rgbd") != Config()
    with pytest.raises(AttributeError):
        Config().backend = "rgbd"  # type: ignore[misc]
