# SPDX-License-Identifier: Apache-2.0
"""What the two builds make of this tree: a wheel through pip, an install tree through colcon. Both need a package index."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import recon3d_ros
from recon3d_ros._typesupport import preload

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"slam", "reconstructor", "mesher", "replay", "recon3d"}
COLCON = ["colcon-common-extensions", "colcon-ros"]
# Loads the messages, looks for the kernels, and prints where the package looks for its launch and configuration files.
SHARE = """
from importlib.resources import files
assert (files("recon3d_ros.mapping.cuda") / "blocks.cu").is_file()
from recon3d_ros.msg import Keyframe
from recon3d_ros.ros.messages import Status, TFMessage
from recon3d_ros.ros.environment import share_directory
print(share_directory())
"""


def test_the_version_is_the_same_everywhere() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert {declared[1], package.findtext("version")} == {recon3d_ros.__version__}


def test_each_message_is_built_from_a_dependency_that_package_xml_names() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {element.text for element in package.findall("depend")}
    for message in (ROOT / "msg").rglob("*.msg"):
        used = set(re.findall(r"^([a-z0-9_]+)/", message.read_text(), re.MULTILINE))
        assert used <= named, message.name


def test_tested_versions_lie_within_the_declared_ranges() -> None:
    tomllib = pytest.importorskip("tomllib")
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["learned"], *extras["loops"], *extras["dev"]]
    ranges = {r.name.lower(): r.specifier for r in map(requirements.Requirement, declared)}
    lines = [line for line in (ROOT / "config" / "constraints.txt").read_text().splitlines() if "==" in line]
    for tested in map(requirements.Requirement, (line for line in lines if not line.startswith("#"))):
        (pin,) = tested.specifier
        assert ranges[tested.name.lower()].contains(pin.version), tested


def test_a_message_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "_lib").mkdir()
    (tmp_path / "_lib" / "libbroken.so").write_bytes(b"not a library")
    with pytest.raises(ImportError, match=r"libbroken\.so"):
        preload(str(tmp_path / "msg" / "__init__.py"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree without what builds have left in it."""
    copy = tmp_path_factory.mktemp("source") / "recon3d_ros"
    left = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "*.so", "_lib", "_vendor", "build", "install", "log"
    )
    shutil.copytree(ROOT, copy, ignore=left)
    shutil.rmtree(copy / "recon3d_ros" / "msg", ignore_errors=True)
    return copy


@pytest.fixture(scope="module")
def ros_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with what builds and runs the package, and colcon."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["ros"]
    prefix = tmp_path_factory.mktemp("venv")
    venv.create(prefix, with_pip=True)
    constraints = ["-c", str(ROOT / "config" / "constraints.txt")]
    run(prefix, "pip", "install", "-q", *constraints, *project["build-system"]["requires"], *runtime, *COLCON)
    return prefix


def environment(prefix: Path) -> dict[str, str]:
    """Environment of a fresh shell in which `prefix` is activated."""
    foreign = ("PYTHONPATH", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    env = {key: value for key, value in os.environ.items() if key not in foreign}
    return env | {"VIRTUAL_ENV": str(prefix), "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}"}


def run(prefix: Path, *command: str, cwd: Path | None = None, **env: str) -> str:
    """Output of a command in a virtual environment; its end is shown where it fails."""
    program = str(prefix / "bin" / command[0]) if (prefix / "bin" / command[0]).exists() else command[0]
    result = subprocess.run(
        [program, *command[1:]],
        cwd=cwd,
        env=environment(prefix) | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_sdist_has_what_both_builds_need(tree: Path, ros_venv: Path, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    run(ros_venv, "python", "-c", code, cwd=tree)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    tracked = {"CMakeLists.txt", "package.xml", "setup.py", "run.sh", "LICENSE", "config/fastdds.xml"}
    for part in ("msg", "launch", "recon3d_ros"):
        tracked |= {str(path.relative_to(tree)) for path in (tree / part).rglob("*.*")}
    assert tracked <= names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_carries_messages_launch_and_configuration(
    tree: Path, ros_venv: Path, tmp_path: Path
) -> None:
    run(ros_venv, "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(tree))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = f"recon3d_ros-{recon3d_ros.__version__}.data/data"
    assert f"{data}/share/recon3d_ros/config/fastdds.xml" in names
    assert {n.rpartition("/")[2] for n in names if n.startswith(f"{data}/lib/recon3d_ros/")} == PROGRAMS
    launch = {path.name for path in (tree / "launch").glob("*.py")}
    assert launch == {
        n.rpartition("/")[2] for n in names if n.startswith(f"{data}/share/recon3d_ros/launch/")
    }
    assert any(
        re.fullmatch(r"recon3d_ros/_lib/librecon3d_ros__rosidl_typesupport_fastrtps_c\.so", n) for n in names
    )
    assert (
        "recon3d_ros/msg/_keyframe.py" in names and "recon3d_ros/_vendor/tf2_msgs/msg/_tf_message.py" in names
    )
    assert not [n for n in names if n.startswith("test/") or "cpp" in n]

    target = tmp_path / "installed"
    run(ros_venv, "pip", "install", "-q", "--no-deps", "--prefix", str(target), str(wheel))
    assert os.access(target / "lib" / "recon3d_ros" / "slam", os.X_OK)
    (site,) = target.glob("lib/python3*/site-packages")
    share = run(ros_venv, "python", "-c", SHARE, cwd=tmp_path, PYTHONPATH=str(site))
    assert share.strip() == str(target / "share" / "recon3d_ros")


@pytest.fixture(scope="module", params=["copied", "symlinked"])
def colcon_prefix(
    request: pytest.FixtureRequest, tree: Path, ros_venv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Install prefix that `colcon build` makes of the tree on the ROS wheels."""
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / "src").mkdir()
    (workspace / "src" / "recon3d_ros").symlink_to(tree)
    options = ["--symlink-install"] if request.param == "symlinked" else []
    prefix = str(ros_venv)
    run(
        ros_venv,
        "colcon",
        "build",
        *options,
        cwd=workspace,
        AMENT_PREFIX_PATH=prefix,
        CMAKE_PREFIX_PATH=prefix,
    )
    return workspace / "install"


def sourced(install: Path, command: str) -> list[str]:
    return ["sh", "-c", f". {install}/setup.sh && {command}"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_colcon_build_finds_its_messages_and_shared_files(
    colcon_prefix: Path, ros_venv: Path, tmp_path: Path
) -> None:
    command = sourced(colcon_prefix, f"python -c '{SHARE}'")
    share = run(ros_venv, *command, cwd=tmp_path, AMENT_PREFIX_PATH=str(ros_venv))
    assert share.strip() == str(colcon_prefix / "recon3d_ros" / "share" / "recon3d_ros")


@pytest.fixture
def mesher(colcon_prefix: Path, ros_venv: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    program = colcon_prefix / "recon3d_ros" / "lib" / "recon3d_ros" / "mesher"
    env = environment(ros_venv) | {"AMENT_PREFIX_PATH": str(ros_venv)}
    command = sourced(colcon_prefix, f"exec {program} --ros-args -r __node:=built_by_colcon")
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_from_a_colcon_build_starts_and_stops(
    mesher: subprocess.Popen[str], colcon_prefix: Path
) -> None:
    rclpy = pytest.importorskip("rclpy")
    programs = colcon_prefix / "recon3d_ros" / "lib" / "recon3d_ros"
    assert {path.name for path in programs.iterdir() if os.access(path, os.X_OK)} == PROGRAMS
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = rclpy.create_node("observer", context=context)
    deadline = time.monotonic() + 60
    while (
        "built_by_colcon" not in observer.get_node_names()
        and mesher.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    seen = observer.get_node_names()
    observer.destroy_node()
    rclpy.shutdown(context=context)
    mesher.send_signal(signal.SIGINT)
    _, errors = mesher.communicate(timeout=120)  # it may be compiling its kernels
    assert "built_by_colcon" in seen, errors
    assert mesher.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_editable_install_works_from_the_folder_above_the_clone(
    tree: Path, ros_venv: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "recon3d_ros"
    shutil.copytree(tree, copy)
    run(ros_venv, "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", str(copy))
    assert run(ros_venv, "python", "-c", SHARE, cwd=tmp_path).strip() == str(copy)
