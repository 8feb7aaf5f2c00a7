# SPDX-License-Identifier: Apache-2.0
"""What is written down agrees with the code: parameters, commands, configuration files."""

import re
from pathlib import Path

import pytest

from recon3d_ros.cli.main import parser
from recon3d_ros.core.config import Config
from recon3d_ros.core.params import build, dump_yaml, flatten, load_yaml, markdown_table

ROOT = Path(__file__).parents[1]


def test_the_default_parameter_file_is_made_from_the_definition():
    text = (ROOT / "config/default.yaml").read_text()
    assert text.endswith(dump_yaml(Config())), "write it anew: recon3d params --out config/default.yaml"


def test_the_table_of_parameters_is_made_from_the_definition():
    text = (ROOT / "docs/parameters.md").read_text()
    assert markdown_table(Config) in text, "paste the output of: recon3d params --format markdown"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_file_is_accepted(path):
    assert flatten(build(Config, load_yaml(path)))


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text()
    commands = next(a for a in parser()._actions if a.choices).choices
    assert [name for name in commands if not re.search(rf"`recon3d {name}\b|`{name}`", readme)] == []


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_test_that_a_page_names_exists():
    page = (ROOT / "docs/conventions.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", page))
    assert len(named) > 50
    assert [n for n in named if f"def {n[1]}(" not in (ROOT / "test" / n[0]).read_text()] == []
