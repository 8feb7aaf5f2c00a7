# SPDX-License-Identifier: Apache-2.0
"""The file `reconstruction.npz` of a saved map: what the reconstructor needs to go on with it. The surface lies beside."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.packing import part_of, within
from recon3d_ros.core.params import dump_yaml
from recon3d_ros.core.types import Arrays
from recon3d_ros.runtime.archive import read_archive, write_archive
from recon3d_ros.runtime.pipeline import Pipeline
from recon3d_ros.runtime.results import prepare_folder

log = logging.getLogger(__name__)

#: Folder, in an output folder, that maps are saved in.
FOLDER = "map"
#: The file that a mesher writes beside.
SURFACE = "surface.npz"
_FILE, _KIND = "reconstruction.npz", "reconstruction"


@dataclass(frozen=True, eq=False)
class SavedMap:
    """backend: that made it, and can go on with it. config: parameters at that time, YAML; for whoever wants to know."""

    backend: str
    config: str
    arrays: Arrays

    @staticmethod
    def of(pipeline: Pipeline, backend: str) -> SavedMap:
        """The map of a pipeline as it is now. Raises InputError where there is none that one could go on with."""
        return SavedMap(backend, dump_yaml(pipeline.config), pipeline.saved())

    @staticmethod
    def read(folder: str | Path, backend: str) -> SavedMap:
        """The map in a folder, for this backend ("auto": any). Raises InputError for what cannot be gone on with."""
        path = Path(folder) / _FILE
        arrays = read_archive(path, _KIND)
        made_by, config = (str(arrays.get(name, "")) for name in ("backend", "config"))
        if backend not in ("auto", made_by):
            raise InputError(
                f"{path} is a map of backend '{made_by}', not '{backend}': set backend to {made_by}"
            )
        return SavedMap(made_by, config, part_of("pipeline", arrays))

    def write(self, folder: str | Path) -> Path:
        """Write it into a folder, which is made; returns the file. Raises InputError when that cannot be."""
        path = prepare_folder(folder) / _FILE
        about = {"backend": np.array(self.backend), "config": np.array(self.config)}
        write_archive(path, _KIND, {**about, **within("pipeline", self.arrays)})
        return path

    def resume(self, pipeline: Pipeline) -> None:
        """Let a pipeline go on with it."""
        try:
            pipeline.resume(self.arrays)
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(f"the saved map lacks something ({error!r}): save it anew") from error
        log.info("a saved map of %d points is loaded; the camera looks for its place", len(pipeline.cloud))
