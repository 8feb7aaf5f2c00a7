# SPDX-License-Identifier: Apache-2.0
"""run.sh, with a stand-in for Python that records what it is asked to do instead of installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PYTHON = """#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in
--version) echo "Python {version}" ;;
"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
"-m pip install"*)
    . "{calls}.pip"
    printf '#!/bin/sh\\necho recon3d "$@"; env\\n' > .venv/bin/recon3d; chmod +x .venv/bin/recon3d ;;
*"%d.%d"*) echo 3.12 ;;
esac
"""


class Tree:
    """A copy of what run.sh reads, and a stand-in for Python."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a tree"
        self.root.mkdir()
        for name in ("run.sh", "pyproject.toml", "setup.py", "CMakeLists.txt", "package.xml"):
            shutil.copy2(ROOT / name, self.root)
        for name in ("msg", "config"):
            shutil.copytree(ROOT / name, self.root / name)
        self.calls = root / "calls"
        self.python = root / "python"
        self.use_python()

    def use_python(self, version: str = "3.12.1", pip: str = ":") -> None:
        self.calls.with_suffix(".pip").write_text(pip)
        self.python.write_text(PYTHON.format(calls=self.calls, version=version))
        self.python.chmod(0o755)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        plain = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHON": str(self.python)}
        command = [str(self.root / "run.sh"), *args]
        return subprocess.run(command, env=plain | env, capture_output=True, text=True, timeout=60)

    def installs(self) -> int:
        return self.calls.read_text().count("-m pip install")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_without_a_word_it_tells_its_usage_and_installs_nothing(tree: Tree) -> None:
    for arguments in ([], ["--help"]):
        result = tree.run(*arguments)
        assert result.returncode == 0 and "Usage: ./run.sh" in result.stdout
    assert not (tree.root / ".venv").exists()


def test_the_first_start_sets_up_and_the_second_does_not(tree: Tree) -> None:
    first = tree.run("doctor", "--json")
    assert "recon3d doctor --json" in first.stdout
    assert [line[:5] for line in first.stderr.splitlines() if line.startswith("[")] == [
        "[1/4]",
        "[2/4]",
        "[3/4]",
        "[4/4]",
    ]
    assert tree.installs() == 1
    second = tree.run("doctor")
    assert "recon3d doctor" in second.stdout and second.stderr == ""
    assert tree.installs() == 0


def test_torch_comes_with_the_tests_or_when_asked_for_and_then_stays(tree: Tree) -> None:
    tree.run("doctor")
    assert "learned" not in tree.calls.read_text()
    tree.run("setup", "--learned")
    assert tree.installs() == 1 and "[ros,learned,loops,dev]" in tree.calls.read_text()
    for arguments in (("doctor",), ("setup",), ("setup", "--learned")):
        tree.run(*arguments)
        assert tree.installs() == 0
    with open(tree.root / "setup.py", "a") as file:
        file.write("# changed")
    tree.run("doctor")
    assert "[ros,learned,loops,dev]" in tree.calls.read_text()


def test_a_changed_message_is_built_anew_in_the_same_environment(tree: Tree) -> None:
    tree.run("doctor")
    kept = tree.root / ".venv" / "kept"
    kept.touch()
    with open(tree.root / "msg" / "Status.msg", "a") as file:
        file.write("uint8 more\n")
    tree.run("doctor")
    assert tree.installs() == 1 and kept.exists()


def test_an_interrupted_set_up_is_not_used(tree: Tree) -> None:
    tree.use_python(pip="kill -KILL $PPID; exit 1")
    assert tree.run("doctor").returncode != 0
    half = tree.root / ".venv" / "half"
    half.touch()
    tree.use_python()
    assert "recon3d doctor" in tree.run("doctor").stdout
    assert not half.exists()


def test_a_failure_shows_the_end_of_the_log_and_the_next_start_goes_on(tree: Tree) -> None:
    tree.use_python(pip='echo "no such package"; exit 1')
    result = tree.run("doctor")
    assert result.returncode == 1
    assert "no such package" in result.stderr and "setup.log" in result.stderr
    tree.use_python()
    assert tree.run("doctor").returncode == 0


def test_another_python_gets_an_environment_of_its_own(tree: Tree) -> None:
    tree.run("doctor")
    old = tree.root / ".venv" / "old"
    old.touch()
    tree.use_python(version="3.13.0")
    assert tree.run("doctor").returncode == 0
    assert not old.exists()


def test_a_virtual_environment_of_the_user_with_another_python_is_left_alone(tree: Tree) -> None:
    theirs = tree.root / ".venv" / "bin" / "python"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\necho Python 3.10.4\n")
    theirs.chmod(0o755)
    result = tree.run("doctor")
    assert result.returncode == 2 and "another Python" in result.stderr
    assert theirs.exists()


def test_a_sourced_ros_is_left_out_and_said(tree: Tree) -> None:
    tree.run("doctor")
    ros = "/opt/ros/jazzy"
    result = tree.run(
        "doctor",
        AMENT_PREFIX_PATH=ros,
        LD_LIBRARY_PATH=f"{ros}/lib",
        PYTHONPATH=f"{ros}/lib/python3.12/site-packages",
        ROS_DISTRO="jazzy",
        RMW_IMPLEMENTATION="rmw_cyclonedds_cpp",
    )
    assert ros not in result.stdout and "cyclonedds" not in result.stdout
    assert len(result.stderr.splitlines()) == 2 and "jazzy" in result.stderr


def test_a_demo_stays_on_this_machine_and_a_live_node_does_not(tree: Tree) -> None:
    tree.run("doctor")
    demo = tree.run("demo").stdout
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST" in demo and "ROS_DOMAIN_ID=" in demo
    assert "ROS_DOMAIN_ID=7\n" in tree.run("demo", ROS_DOMAIN_ID="7").stdout
    live = tree.run("slam").stdout
    assert "ROS_DOMAIN_ID" not in live and "DISCOVERY_RANGE" not in live


def test_no_usable_python_is_one_clear_line(tree: Tree) -> None:
    result = tree.run("doctor", PYTHON="no-such-python")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "Python 3.10 to 3.13" in line
