# SPDX-License-Identifier: Apache-2.0
"""Results and maps of the node `reconstructor` on disk: at its end, and by its services while it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.nodes.folders import map_to_load, output_folder
from recon3d_ros.runtime.results import Results, save
from recon3d_ros.runtime.saved_map import FOLDER, SavedMap

if TYPE_CHECKING:
    from recon3d_ros.nodes.reconstructor import ReconstructorNode


def save_all(
    node: ReconstructorNode, with_mesh: Callable[[Results], Results] = lambda results: results
) -> list[str]:
    """Save what the parameters ask for, at the end; returns what failed. with_mesh: adds what another node made."""
    results = node.results() if node.config.output else None
    if results is None:
        return []
    folder = output_folder(node.config)
    failures = save(with_mesh(results), folder)
    return failures + (_save_map(node, folder / FOLDER) if node.config.save_map else [])


def save_now(node: ReconstructorNode) -> str:
    """For ~/save_map: results, and the map beside them. Returns what to answer; raises ReconError with what failed."""
    folder, results = output_folder(node.config), node.results()
    if results is None:
        raise InputError("no images came yet")
    failures = save(results, folder) + _save_map(node, folder / FOLDER)
    if failures:
        raise ReconError("; ".join(failures))
    return f"saved in {folder}"


def load(node: ReconstructorNode) -> str:
    """For ~/load_map: go on with the map in the folder of the parameter `map`, or that which ~/save_map saved. Returns what
    to answer; raises ReconError, and then what was there goes on, unless it says that only the surface is missing."""
    folder = map_to_load(node.config)
    saved = SavedMap.read(folder, node.backend)
    if node.run is None:
        node.begins_with, node.backend = saved, saved.backend
    # It may have begun meanwhile.
    if node.run is not None:
        node.run.resume(saved)
    try:
        if node.consumer is not None:
            node.consumer.load_map(folder)
    except ReconError as error:
        raise ReconError(f"the map is loaded without its surface: {error}") from error
    return f"{folder} is loaded, the camera looks for its place in it"


def _save_map(node: ReconstructorNode, folder: Path) -> list[str]:
    """Save the map, to go on with it another time; returns what failed."""
    if node.run is None:
        return ["the map is not saved: no images came yet"]
    # The surface first: keyframes that come in between are known to the file written last, and their ids not given again.
    failures = node.consumer.save_map(folder) if node.consumer is not None else []
    try:
        node.run.saved(node.backend).write(folder)
    except ReconError as error:
        failures.append(f"the map is not saved: {error}")
    return failures
