# SPDX-License-Identifier: Apache-2.0
"""The folder `depth/` of an output folder: the depth of each keyframe as it comes, and the cameras that belong to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.core.geometry import scale_of
from recon3d_ros.core.types import Floats, Join, Update
from recon3d_ros.mapping.export import replacing

log = logging.getLogger(__name__)

FOLDER, INDEX = "depth", "cameras.json"


@dataclass(frozen=True)
class SavedDepth:
    """A depth image on disk. id: of its keyframe. camera: ideal pinhole of its pixels. map_id: of its map; scale: what the
    values of the file are multiplied with to be in the unit of that map, since a map may grow when it joins another."""

    id: int
    stamp_ns: int
    file: Path
    camera: Camera
    map_id: int = 0
    scale: float = 1.0

    def read(self) -> Floats:
        """Depth float32 [H,W] along z in map units, NaN = none. Raises InputError for a missing or damaged file."""
        try:
            depth: Floats = np.load(self.file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read depth {self.file}: {error}") from error
        if depth.shape != (self.camera.height, self.camera.width):
            raise InputError(f"{self.file} is {depth.shape}, its camera {self.camera.size}: run once more")
        return depth if self.scale == 1.0 else depth * np.float32(self.scale)


class DepthFolder:
    """Writes depth images while a run goes on, so that none is held in memory. failures: one line when the disk refused;
    nothing is written after that."""

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER
        self.failures: list[str] = []
        self._saved: dict[int, SavedDepth] = {}

    def write(self, update: Update) -> None:
        """Save the depth of an update, if it has any; a newer one of the same keyframe takes its place."""
        if update.join is not None:
            self._join(update.join)
        if update.depth is None or update.camera is None or self.failures:
            return
        file = self.folder / f"{update.index:06d}.npy"
        try:
            self.folder.mkdir(exist_ok=True)
            with replacing(file) as out:
                np.save(out, update.depth)
        except (OSError, ReconError) as error:
            self._fail(error)
        else:
            self._saved[update.index] = SavedDepth(
                update.index, update.stamp_ns, file, update.camera, update.map_id
            )

    def close(self) -> None:
        """Write the index of what was saved."""
        if not self._saved:
            return
        try:
            with replacing(self.folder / INDEX) as out:
                out.write(_index([self._saved[i] for i in sorted(self._saved)]).encode())
        except ReconError as error:
            self._fail(error)

    def _join(self, join: Join) -> None:
        growth = {join.kept: 1.0, join.moved: scale_of(join.S_kept_moved)}
        for i, saved in self._saved.items():
            if saved.map_id in growth:
                scale = saved.scale * growth[saved.map_id]
                self._saved[i] = replace(saved, map_id=join.id, scale=scale)

    def _fail(self, error: Exception) -> None:
        self.failures.append(f"depth/ not complete: {error}")
        log.error("%s", self.failures[-1])


def saved_depth(output: Path) -> list[SavedDepth]:
    """The depth images of an output folder, none if it has none. Raises InputError for a damaged index."""
    index = output / FOLDER / INDEX
    if not index.is_file():
        return []
    try:
        rows = json.loads(index.read_text())["keyframes"]
        return [_saved(index.parent, row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is damaged ({error!r}): run once more") from error


def remove_depth(output: Path) -> None:
    """Remove what an earlier run has saved: it does not belong to the poses of the next one."""
    try:
        for saved in saved_depth(output):
            saved.file.unlink(missing_ok=True)
    except InputError as error:
        log.warning("files of an earlier run stay in %s: %s", output / FOLDER, error)
    (output / FOLDER / INDEX).unlink(missing_ok=True)


def _saved(folder: Path, row: Mapping[str, Any]) -> SavedDepth:
    fx, fy, cx, cy = (float(row[name]) for name in ("fx", "fy", "cx", "cy"))
    camera = Camera(int(row["width"]), int(row["height"]), fx, fy, cx, cy)
    # A name, not a path: nothing outside the folder is ever read or removed.
    file = folder / Path(row["file"]).name
    return SavedDepth(
        int(row["id"]), int(row["stamp_ns"]), file, camera, int(row["map"]), float(row["scale"])
    )


def _index(depths: list[SavedDepth]) -> str:
    rows = []
    for d in depths:
        c = d.camera
        camera = {"width": c.width, "height": c.height, "fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy}
        place = {"map": d.map_id, "scale": d.scale}
        rows.append({"id": d.id, "stamp_ns": d.stamp_ns, "file": d.file.name, **camera, **place})
    return '{"keyframes": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n"
