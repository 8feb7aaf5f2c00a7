# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: DDS kept on this machine, thread limits, folders of recordings and vectors, slow and gpu."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import contextmanager
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
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
# Networks as small as those of the tests gain nothing from a second thread and lose much where the cores are busy.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


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


@pytest.fixture
def room_for():
    """`with room_for(number)`: no file can grow beyond so many bytes, in this process and those it starts: a disk as good
    as full, whose errors are real."""

    @contextmanager
    def limited(number: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


#: Sizes of a network that is small enough for thousands of frames.
OWN = dict(
    image_size=56,
    width=64,
    heads=1,
    depth=4,
    mlp_ratio=2.0,
    selected=(0, 1, 2, 3),
    vit_depth=1,
    vit_heads=1,
    camera_depth=1,
    camera_heads=1,
    dpt_features=16,
    dpt_channels=(8, 8, 16, 16),
)


@pytest.fixture(scope="session")
def own_tiny():
    """A network with seeded weights that needs no files. All parameters are random and of useful size; poses are of order
    1, fields of view about 1 rad, depths about 2."""
    torch = pytest.importorskip("torch")
    from recon3d_ros.backends.gct.architecture import Architecture
    from recon3d_ros.backends.gct.model import Gct

    generator = torch.Generator().manual_seed(7)
    model = Gct(Architecture(**OWN)).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "gamma" in name:
            p.copy_(0.4 + 0.1 * noise)
        elif "norm" in name:
            p.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif name.endswith("bias"):
            p.copy_(0.1 * noise)
        elif name.endswith(("token", "tokens", "pos_embed")):
            p.copy_(noise)
        else:
            p.copy_(noise / p[0].numel() ** 0.5)
    iterations = 4
    model.camera_head.pose_branch.fc2.weight.mul_(0.3)
    upright = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    model.camera_head.pose_branch.fc2.bias.copy_(upright / iterations)
    model.depth_head.scratch.output_conv2[2].weight.mul_(0.3)
    model.depth_head.scratch.output_conv2[2].bias.copy_(torch.tensor([0.7, 0.0]))
    return model


@pytest.fixture(scope="session")
def own_weights(own_tiny, tmp_path_factory):
    """A file with the weights of `own_tiny`."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(own_tiny.state_dict(), path, metadata={"architecture": own_tiny.arch.to_json()})
    return path
