# SPDX-License-Identifier: Apache-2.0
"""Name of a backend -> its class, imported only when asked for."""

from __future__ import annotations

import importlib

from recon3d_ros.backends.base import Reconstructor
from recon3d_ros.backends.learned import weights
from recon3d_ros.backends.learned.device import has_cuda
from recon3d_ros.backends.scaled import ScaledReconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError, require

_CLASSES = {
    "geometric": ("recon3d_ros.backends.geometric.backend", "GeometricReconstructor"),
    "rgbd": ("recon3d_ros.backends.rgbd.backend", "RgbdReconstructor"),
    "gct": ("recon3d_ros.backends.gct.backend", "GctReconstructor"),
}
#: Those that need weights and the extra `learned`.
LEARNED = ("gct",)


def available() -> tuple[str, ...]:
    """Names that `create` takes."""
    return tuple(_CLASSES)


def choose(name: str, has_depth: bool, config: Config) -> tuple[str, str]:
    """The backend that `auto` stands for, and the reason in words; another name is returned as it is. Raises InputError
    when the weights that the configuration names are not there."""
    if name != "auto":
        return name, "asked for"
    if has_depth:
        return "rgbd", "the source has depth"
    lacking = _what_gct_lacks(config)
    if not lacking:
        return "gct", "its weights and a GPU are there"
    return "geometric", f"the source has no depth, and for gct there {lacking}"


def create(name: str, config: Config, realtime: bool = False) -> Reconstructor:
    """Make the backend `name`. With `realtime`, work that would delay poses is dropped and counted; without, every frame
    gets all it can. Raises InputError for a name that is not available, and for weights that are not there."""
    if name not in _CLASSES:
        raise InputError(f"backend '{name}' is not available; use one of {', '.join(_CLASSES)}")
    if name in LEARNED:
        for needed in ("torch", "safetensors"):
            require(needed, "learned")
    module, cls = _CLASSES[name]
    backend: Reconstructor = getattr(importlib.import_module(module), cls)(config, realtime)
    return backend if backend.capabilities.metric else ScaledReconstructor(backend, config)


def _what_gct_lacks(config: Config) -> str:
    given = config.gct.weights
    path = weights.locate("gct", given) if given else weights.find("gct")
    if path is None:
        return "are no weights"
    return "" if config.gct.device != "cpu" and has_cuda() else "is no GPU"
