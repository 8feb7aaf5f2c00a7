# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: DDS kept on this machine, thread limits, folders of recordings and vectors, slow and gpu."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _own_domain() -> str:
    """A ROS domain for this process: each xdist worker has another one."""
    base = int(os.environ.get("ROS_DOMAIN_ID") or os.getpid())
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")
    return str((base + int(worker)) % 101 + 1)


# Before anything imports rclpy or numba.
os.environ["ROS_DOMAIN_ID"] = _own_domain()
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
for _variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {}
    if not (config.getoption("--slow") or os.environ.get("RECON3D_SLOW") == "1"):
        skips["slow"] = pytest.mark.skip(reason="slow: runs with --slow or RECON3D_SLOW=1")
    if not _has_cuda():
        skips["gpu"] = pytest.mark.skip(reason="no CUDA device here")
    for item in items:
        for name, skip in skips.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


def _has_cuda() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT / default)
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable} to run this test")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real recordings."""
    return _folder("RECON3D_DATA", "../shared/data")


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """Folder of reference numbers for parity tests."""
    return _folder("RECON3D_VECTORS", "../shared/vectors")
