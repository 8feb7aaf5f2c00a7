# SPDX-License-Identifier: Apache-2.0
"""What a process needs before `rclpy.init`: shared files, transport settings, and a look for mixed ROS installations."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path

import recon3d_ros

log = logging.getLogger(__name__)

#: Free bytes of /dev/shm below which the transport profile is left out: each process takes a segment of 64 MiB.
SHARED_MEMORY_NEEDED = 256 << 20


def share_directory() -> Path:
    """Folder that holds `launch/` and `config/`: the installed one that belongs to this package, or the source tree.

    Found from where the package lies, so that neither a ROS environment nor the ament index is needed.
    """
    package = Path(recon3d_ros.__file__).parent
    for parent in package.parents:
        for candidate in (parent, parent / "share" / package.name):
            if (candidate / "package.xml").is_file() and (candidate / "config").is_dir():
                return candidate
    raise FileNotFoundError(
        f"no share/{package.name} above {package}: the installation is incomplete, install again"
    )


def mixed_installations() -> str | None:
    """One line for the user where ROS wheels and a sourced ROS would both be loaded from, else None."""
    if importlib.util.find_spec("ros_wheels_bootstrapper") is None:
        return None
    variables = ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
    entries = [entry for name in variables for entry in os.environ.get(name, "").split(os.pathsep)]
    sourced = next((entry for entry in entries if entry.startswith("/opt/ros/")), None)
    if sourced is None:
        return None
    distribution = "/".join(sourced.split("/")[:4])
    return (
        f"{distribution} is sourced and {sys.prefix} has ROS 2 wheels: which libraries load is chance. Start from a shell "
        "that did not source it, or use ./run.sh"
    )


def check_environment() -> None:
    """Warn about mixed ROS installations, and set what the user left unset. Call before `rclpy.init`.

    Sets `AMENT_PREFIX_PATH` (the ament index of the wheels) and `FASTDDS_DEFAULT_PROFILES_FILE` (`config/fastdds.xml`,
    where /dev/shm has room for its segments).
    """
    warning = mixed_installations()
    if warning:
        log.warning(warning)
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    if "FASTDDS_DEFAULT_PROFILES_FILE" not in os.environ and _has_shared_memory():
        os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(share_directory() / "config" / "fastdds.xml")


def _has_shared_memory() -> bool:
    free = shutil.disk_usage("/dev/shm").free
    if free < SHARED_MEMORY_NEEDED:
        log.warning(
            f"/dev/shm has {free >> 20} MB free, images and clouds between processes may be lost: give it "
            f"{SHARED_MEMORY_NEEDED >> 20} MB or more (a container: --shm-size=1g)"
        )
    return free >= SHARED_MEMORY_NEEDED
