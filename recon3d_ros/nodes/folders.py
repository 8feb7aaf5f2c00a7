# SPDX-License-Identifier: Apache-2.0
"""The folders that the services of the nodes write to and read from. Parameters name them, never a request."""

from __future__ import annotations

from pathlib import Path

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime.saved_map import FOLDER


def output_folder(config: Config) -> Path:
    """The folder `output`. Raises InputError where none is named."""
    if not config.output:
        raise InputError("set the parameter 'output' to a folder first")
    return Path(config.output)


def map_to_load(config: Config) -> Path:
    """The folder `map`, else that of the map saved last. Raises InputError where neither is named."""
    if not (config.map or config.output):
        raise InputError("set the parameter 'map' to the folder of a saved map first")
    return Path(config.map) if config.map else Path(config.output) / FOLDER
