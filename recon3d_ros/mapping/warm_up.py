# SPDX-License-Identifier: Apache-2.0
"""Everything that a mesher does, once, on a tiny input: its kernels are compiled then, or loaded from the cache."""

from __future__ import annotations

import dataclasses

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Keyframe, Scale
from recon3d_ros.mapping.cuda.device import choose
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.splat import splat
from recon3d_ros.mapping.volumes import Volumes

_VOXEL = 0.1


def warm_up(params: MeshParams) -> None:
    """Compile the kernels for the CPU, and those for a GPU where a mesher of these parameters may use one. Raises
    InputError where it must and cannot."""
    tiny = MeshParams(voxel_size=_VOXEL, max_blocks=64, min_weight=1.0)
    for device in ("cpu",) if choose(params) is None else ("cpu", "cuda"):
        _try_out(dataclasses.replace(tiny, device=device))


def _try_out(params: MeshParams) -> None:
    keyframes = [_wall(number) for number in range(2)]
    mesher = Mesher(params)
    for keyframe in keyframes:
        mesher.integrate(keyframe)
    moved = np.eye(4)
    moved[2, 3] = 1.0
    mesher.correct({1: moved})
    mesher.rebuild()
    mesher.prepare()
    mesher.changed()
    mesher.surface()
    # Checkpoints are taken where the memory of depth images is full.
    volumes = Volumes(params)
    volumes.begin(_VOXEL, 1.0, Scale.SENSOR)
    volume = volumes.make()
    volume.integrate(splat(keyframes[0], 10.0)[0], np.eye(4), 5.0)
    for _ in volume.checkpoint().restored()[1]:
        pass


def _wall(number: int) -> Keyframe:
    """A keyframe of a wall at 1, 16x16."""
    camera = Camera(16, 16, 16.0, 16.0, 7.5, 7.5)
    points = np.concatenate([camera.rays(), np.ones((16, 16, 1), np.float32)], axis=-1).reshape(-1, 3)
    colours = np.zeros((len(points), 3), np.uint8)
    return Keyframe(number, number, np.eye(4), camera, points, colours, scale=Scale.SENSOR)
