# SPDX-License-Identifier: Apache-2.0
"""Name of a backend -> its class, imported only when asked for."""

from __future__ import annotations

import importlib

from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError

_CLASSES = {
    "geometric": ("recon3d_ros.backends.geometric.backend", "GeometricReconstructor"),
    "rgbd": ("recon3d_ros.backends.rgbd.backend", "RgbdReconstructor"),
}


def available() -> tuple[str, ...]:
    """Names that `create` takes."""
    return tuple(_CLASSES)


def choose(name: str, has_depth: bool) -> tuple[str, str]:
    """The backend that `auto` stands for, and the reason in words; another name is returned as it is."""
    if name != "auto":
        return name, "asked for"
    return ("rgbd", "the source has depth") if has_depth else ("geometric", "the source has no depth")


def create(name: str, config: Config, realtime: bool = False) -> Reconstructor:
    """Make the backend `name`. With `realtime`, work that would delay poses is dropped and counted; without, every frame
    gets all it can. Raises InputError for a name that is not available."""
    if name not in _CLASSES:
        raise InputError(f"backend '{name}' is not available; use one of {', '.join(_CLASSES)}")
    module, cls = _CLASSES[name]
    backend: Reconstructor = getattr(importlib.import_module(module), cls)(config, realtime)
    return backend
