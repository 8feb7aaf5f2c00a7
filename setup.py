# SPDX-License-Identifier: Apache-2.0
"""Builds the ROS 2 messages for pip with the CMakeLists.txt that colcon uses; everything else is in pyproject.toml.

The generators come as build requirements where wheels of them exist. Elsewhere the package installs without messages:
the command line works, and the live nodes need a colcon build.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NAME = "recon3d_ros"
PRELOAD = "from recon3d_ros._typesupport import preload\n\npreload(__file__)\n"


def find_generators() -> tuple[Path, Path] | None:
    """Prefix and site-packages of the message generators: in pip's isolated build an overlay, not `sys.prefix`."""
    spec = importlib.util.find_spec("rosidl_cmake")
    if spec is None or spec.origin is None:
        return None
    site = Path(spec.origin).parents[1]
    return next(path for path in site.parents if (path / "share" / "ament_index").is_dir()), site


def run_cmake(prefix: Path, site: Path, build: Path, install: Path) -> None:
    """Configure, compile and install the messages into `install`."""
    env = dict(
        os.environ,
        AMENT_PREFIX_PATH=str(prefix),
        CMAKE_PREFIX_PATH=str(prefix),
        PYTHONPATH=os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
        _ROS_WHEELS_BOOTSTRAP_COMPLETE="1",  # generators need no ROS libraries, so no second start of Python
    )
    options = {
        "RECON3D_WHEEL": "ON",
        "BUILD_TESTING": "OFF",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": install,
        "PYTHON_INSTALL_DIR": "python",
        "Python3_EXECUTABLE": sys.executable,
    }
    defines = [f"-D{key}={value}" for key, value in options.items()]
    subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *defines], check=True, env=env)
    subprocess.run(["cmake", "--build", build, "--target", "install"], check=True, env=env)


def copy_messages(install: Path, name: str, target: Path) -> None:
    """Copy one generated message package and its C libraries from the CMake install tree to `target`."""
    source = install / "python" / name
    for folder in (target / "msg", target / "_lib"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for library in (install / "lib").glob(f"lib{name}__*.so"):
        if not library.stem.endswith("cpp"):
            shutil.copy2(library, target / "_lib")
    for extension in source.glob(f"{name}_s__*.so"):
        shutil.copy2(extension, target)
    for module in (source / "msg").glob("*.py"):
        shutil.copy2(module, target / "msg")
    init = target / "msg" / "__init__.py"
    init.write_text(PRELOAD + init.read_text())


def data_files(base: Path, names: list[str], target: str = "") -> list[tuple[str, list[str]]]:
    """The files and folders `base/name`, to be installed as `<prefix>/target/name`."""
    paths = [path for name in names for path in [base / name, *(base / name).rglob("*")]]
    files = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
    return [(str(Path(target) / path.parent.relative_to(base)), [str(path)]) for path in files]


class BuildMessages(build_ext):
    """Puts `msg`, `_lib` and `_vendor` into the package: into the source tree for editable installs."""

    def run(self) -> None:
        generators = find_generators()
        if generators is None:
            self.warn("no ROS message generators here: building without recon3d_ros.msg")
            return
        work = Path(self.build_temp).resolve() / "messages"
        shutil.rmtree(work, ignore_errors=True)
        install = work / "install"
        run_cmake(*generators, work / "build", install)
        package = (ROOT if self.inplace or self.editable_mode else Path(self.build_lib)) / NAME
        copy_messages(install, NAME, package)
        for vendored in sorted((ROOT / "msg" / "vendor").iterdir()):
            if (install / "python" / vendored.name).is_dir():
                target = package / "_vendor" / vendored.name
                copy_messages(install, vendored.name, target)
                (target / "__init__.py").touch()
        index = "share/ament_index/resource_index"
        names = [
            f"share/{NAME}/msg",
            f"{index}/packages/{NAME}",
            f"{index}/rosidl_interfaces/{NAME}",
            f"lib/{NAME}",
        ]
        self.distribution.data_files += data_files(install, names)

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


# The extension has no source: it marks the wheel as one for this platform and Python.
setup(
    ext_modules=[Extension(f"{NAME}._messages", sources=[])],
    cmdclass={"build_ext": BuildMessages},
    data_files=data_files(Path(), ["package.xml", "launch", "config"], f"share/{NAME}"),
)
