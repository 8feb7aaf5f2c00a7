# SPDX-License-Identifier: Apache-2.0
"""Where a network runs and how exactly. Needs no torch until it is asked."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from recon3d_ros.core.errors import InputError

if TYPE_CHECKING:
    import torch


def has_cuda() -> bool:
    """A GPU that torch can use is there."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device. Raises InputError when there is no GPU for `cuda`."""
    import torch

    if name == "cuda" and not has_cuda():
        raise InputError("no GPU that torch can use: set gct.device to auto or cpu")
    return torch.device("cuda" if name != "cpu" and has_cuda() else "cpu")


def precision(name: str, on: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU; on a GPU bfloat16, or float16 before compute capability 8.0."""
    import torch

    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if on.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(on)[0] >= 8 else torch.float16
