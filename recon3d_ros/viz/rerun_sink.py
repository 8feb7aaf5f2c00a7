# SPDX-License-Identifier: Apache-2.0
"""A recording of a run for the Rerun viewer: camera, path, points of the keyframes and, at the end, the mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon3d_ros.core.errors import InputError, require
from recon3d_ros.core.types import Keyframe, MeshBlock, Update
from recon3d_ros.runtime.pipeline import Step

#: Points logged per keyframe at most: a recording of minutes stays small enough to open.
POINTS_PER_KEYFRAME = 10_000


class RerunSink:
    """Writes one .rrd file. Raises MissingDependency without rerun-sdk, InputError when the file cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self._rr = require("rerun", extra="viz")
        self._stream = self._rr.RecordingStream("recon3d")
        try:
            self._stream.save(str(path))
        except Exception as error:
            raise InputError(f"cannot write recording {path}: {error}") from error
        self._path: list[np.ndarray] = []
        self._stream.log("map", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def log_step(self, step: Step) -> None:
        """Log one answer of the pipeline at the time of its image."""
        update = step.update
        self._stream.set_time("image", timestamp=np.datetime64(update.stamp_ns, "ns"))
        if update.T_map_cam is not None and not update.revises:
            self._log_camera(update)
        if step.keyframe is not None:
            self._log_keyframe(step.keyframe)

    def log_mesh(self, mesh: MeshBlock) -> None:
        """Log the surface, valid from the time of the last image on."""
        entity = self._rr.Mesh3D(
            vertex_positions=mesh.vertices, triangle_indices=mesh.triangles, vertex_colors=mesh.colours
        )
        self._stream.log("map/mesh", entity)

    def close(self) -> None:
        """Write what is left."""
        self._stream.flush()
        self._stream.disconnect()

    def _log_camera(self, update: Update) -> None:
        T = update.T_map_cam
        assert T is not None
        self._path.append(T[:3, 3])
        self._stream.log("map/camera", self._rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        self._stream.log("status", self._rr.TextLog(f"{update.tracking.value} {update.reason}".strip()))
        if len(self._path) % 10 == 0:
            self._stream.log("map/path", self._rr.LineStrips3D([np.array(self._path)], colors=[255, 140, 0]))

    def _log_keyframe(self, keyframe: Keyframe) -> None:
        camera = keyframe.camera
        self._stream.log(
            "map/camera",
            self._rr.Pinhole(
                image_from_camera=camera.K,
                resolution=camera.size,
                camera_xyz=self._rr.ViewCoordinates.RDF,
            ),
        )
        step = max(1, len(keyframe.points) // POINTS_PER_KEYFRAME)
        points = self._rr.Points3D(keyframe.points[::step], colors=keyframe.colours[::step])
        self._stream.log(f"map/keyframes/{keyframe.id}", points)
