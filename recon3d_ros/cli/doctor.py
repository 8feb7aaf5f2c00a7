# SPDX-License-Identifier: Apache-2.0
"""`recon3d doctor`: what is installed, what is missing and the line that installs it, and what the ROS graph offers."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from dataclasses import dataclass

from recon3d_ros import __version__


@dataclass(frozen=True)
class Need:
    """An importable module, the distribution it comes in, what it is for, and the extra that brings it (empty: base)."""

    module: str
    distribution: str
    purpose: str
    extra: str = ""


NEEDS = (
    Need("numpy", "numpy", "arrays"),
    Need("scipy", "scipy", "numerics"),
    Need("cv2", "opencv-python-headless", "images, tracking"),
    Need("numba", "numba", "kernels"),
    Need("poselib", "poselib", "relative and absolute pose"),
    Need("rclpy", "ros-rclpy", "live nodes", "ros"),
    Need("recon3d_ros.msg", "recon3d-ros", "own messages (built by pip install or colcon)", "ros"),
    Need("rosbags", "rosbags", "reading and playing bags", "ros"),
    Need("torch", "torch", "learned engines", "learned"),
    Need("safetensors", "safetensors", "weights of learned engines", "learned"),
    Need("huggingface_hub", "huggingface_hub", "fetching weights", "learned"),
    Need("gtsam", "gtsam", "loop closing", "loops"),
    Need("cupy", "cupy-cuda12x", "meshing on a GPU", "cuda"),
    Need("rerun", "rerun-sdk", "--rerun recordings", "viz"),
    Need("fast_simplification", "fast-simplification", "meshes with fewer triangles", "mesh"),
    Need("open3d", "open3d", "Poisson meshes", "poisson"),
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "say what is installed, what is missing, and what the ROS graph offers"
    parser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument(
        "--graph",
        action="store_true",
        help="also list camera topics of the running ROS graph, and how our nodes in it are doing",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile all kernels now, so that the first run starts at once",
    )
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Print the findings; 1 when something the base needs is missing, or a running node has a problem."""
    print(
        f"recon3d {__version__}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"
    )
    missing = [need for need in NEEDS if not _line(need)]
    _learned(missing)
    _environment()
    if args.compile:
        _compile()
    healthy = _graph() if args.graph else True
    return 0 if healthy and all(need.extra for need in missing) else 1


def _line(need: Need) -> bool:
    try:
        found = importlib.util.find_spec(need.module) is not None
    except ImportError:
        found = False
    if found:
        try:
            version = importlib.metadata.version(need.distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "found"
        print(f"  ok       {need.module:20} {version:16} {need.purpose}")
    else:
        what = f"recon3d_ros[{need.extra}]" if need.extra else "recon3d_ros"
        print(f"  missing  {need.module:20} {'':16} {need.purpose}: pip install '{what}'")
    return found


def _learned(missing: list[Need]) -> None:
    """Weights on this machine, and the device that learned engines would run on."""
    from recon3d_ros.backends.learned import weights

    found = [path.name for entry in weights.CATALOGUE if (path := weights.path_of(entry)) is not None]
    if found:
        print(f"  ok       {'weights':20} {', '.join(found)} in {weights.folder()}")
    else:
        print(
            f"  none     {'weights':20} in {weights.folder()}: recon3d weights fetch {weights.CATALOGUE[0].name}"
        )
    if not any(need.module == "torch" for need in missing):
        state, text = _device()
        print(f"  {state:8} {'CUDA device':20} {text}")


def _device() -> tuple[str, str]:
    try:
        import torch

        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(0)
            return "ok", f"{device.name}, {device.total_memory / 1e9:.0f} GB"
    except (ImportError, OSError, RuntimeError) as error:  # an installation without its CUDA libraries
        return "warning", f"torch does not start: {(str(error) or 'no reason given').splitlines()[0]}"
    return "none", "learned engines run on the CPU"


def _environment() -> None:
    from recon3d_ros.ros.environment import mixed_installations

    mixed = mixed_installations()
    if mixed:
        print(f"  warning  {mixed}")
    free = shutil.disk_usage("/dev/shm").free / 2**20 if os.path.isdir("/dev/shm") else 0.0
    state = "ok      " if free > 256 else "warning "
    print(f"  {state} /dev/shm             {free:.0f} MB free for keyframes between processes")


def _compile() -> None:
    from recon3d_ros.core.config import Config
    from recon3d_ros.runtime.warm_up import warm_up_everything

    start = time.perf_counter()
    warm_up_everything(Config())
    print(f"  ok       kernels compiled in {time.perf_counter() - start:.0f} s")


def _graph() -> bool:
    """True when no running node has a problem."""
    from recon3d_ros.core.errors import require

    require("rclpy", extra="ros")
    from recon3d_ros.cli.graph import table
    from recon3d_ros.ros.graph import describe_graph
    from recon3d_ros.ros.survey import survey

    for line in describe_graph(wait=2.0):
        print(f"  {line}")
    seen = survey()
    for line in table(seen):
        print(f"  {line}")
    return not seen.problems
