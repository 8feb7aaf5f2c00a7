# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, changed pieces of the surface out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.types import Keyframe, MeshBlock, Pose
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping import marching
from recon3d_ros.mapping.history import History
from recon3d_ros.mapping.splat import median_depth, splat
from recon3d_ros.mapping.tsdf import Volume
from recon3d_ros.mapping.weld import weld

log = logging.getLogger(__name__)

#: Pixels with depth below which a keyframe is not integrated.
MIN_POINTS = 100

#: Depth beyond this many medians is an error of the source.
_ABSURD_DEPTH = 100.0


class Mesher:
    """The live mesh. One thread calls it; its kernels release the GIL.

    counters: keyframes skipped and things dropped, by reason. voxel_size: map units, 0 until the first keyframe when it
    is derived from that one's depth.
    """

    def __init__(self, params: MeshParams) -> None:
        self.params = params
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next keyframe is the first."""
        self.counters: Counter[str] = Counter()
        self.voxel_size = self.params.voxel_size
        self._volume: Volume | None = None
        self._history = History(self.params.depth_memory * 1_000_000, self._make_volume)
        self._integrated: set[int] = set()
        self._pending: list[NDArray[np.int32]] = []
        self._sizes: dict[tuple[int, int, int], int] = {}

    @property
    def keyframes(self) -> int:
        """Keyframes integrated."""
        return len(self._integrated)

    @property
    def triangles(self) -> int:
        """Triangles of the mesh as of the last `changed`."""
        return sum(self._sizes.values())

    @property
    def blocks(self) -> int:
        """Blocks of 8x8x8 voxels held."""
        return 0 if self._volume is None else pool.count(self._volume.blocks)

    @property
    def memory_mb(self) -> float:
        """Memory that voxels and kept depth images use, in 10^6 bytes."""
        volumes = [volume for volume in (self._volume, self._history.settled) if volume is not None]
        return (sum(pool.memory(volume.blocks) for volume in volumes) + self._history.nbytes) / 1e6

    def integrate(self, keyframe: Keyframe) -> bool:
        """Take in a keyframe. False when it cannot be used: then it is counted by reason and nothing changes."""
        reason = self._take_in(keyframe)
        if reason:
            self.counters[reason] += 1
        return not reason

    def _take_in(self, keyframe: Keyframe) -> str:
        """Integrate; returns why not, or ""."""
        if keyframe.id in self._integrated:
            return "repeated"
        if not is_pose(keyframe.T_map_cam):
            return "bad pose"
        median = median_depth(keyframe)
        image, filled, dropped = splat(keyframe, _ABSURD_DEPTH * median)
        self.counters["points dropped"] += dropped
        if filled < MIN_POINTS:
            return "few points"
        far = self.params.max_depth * median
        voxel_size = self.voxel_size or self.params.voxel_share * median
        if np.abs(keyframe.T_map_cam[:3, 3]).max() + 10 * far > pool.LIMIT * pool.SIDE * voxel_size:
            return "out of range"
        self.voxel_size = voxel_size
        if self._volume is None:
            self._volume = self._make_volume()
        self._volume.integrate(image, keyframe.T_map_cam, far)
        self._history.add(keyframe.id, image, keyframe.T_map_cam, median, far)
        self._integrated.add(keyframe.id)
        self._count_blocks(self._volume)
        return ""

    def changed(self) -> list[MeshBlock]:
        """The regions whose triangles may differ since the last call; one that became empty comes with 0 triangles."""
        if self._volume is None:
            return []
        blocks = np.concatenate([*self._pending, self._volume.take_changed()])
        self._pending = []
        out = []
        for block in self._extract(marching.regions_meeting(blocks)):
            before = self._sizes.pop(block.id, 0)
            if len(block.triangles):
                self._sizes[block.id] = len(block.triangles)
            if before or len(block.triangles):
                out.append(block)
        return out

    def all_blocks(self) -> list[MeshBlock]:
        """Every region that has triangles, for those who join late; leaves `changed` alone."""
        if self._volume is None:
            return []
        blocks = pool.coordinates(self._volume.blocks)
        return [block for block in self._extract(marching.regions_of(blocks)) if len(block.triangles)]

    def surface(self) -> MeshBlock:
        """The whole mesh with the vertices of neighbouring regions joined; id (0, 0, 0)."""
        parts = self.all_blocks()
        offsets = np.cumsum([0] + [len(part.vertices) for part in parts], dtype=np.int32)
        vertices = np.concatenate([np.empty((0, 3), np.float32), *(part.vertices for part in parts)])
        colours = np.concatenate([np.empty((0, 3), np.uint8), *(part.colours for part in parts)])
        triangles = np.concatenate(
            [
                np.empty((0, 3), np.int32),
                *(part.triangles + o for part, o in zip(parts, offsets, strict=False)),
            ]
        )
        return MeshBlock((0, 0, 0), *weld(vertices, triangles, colours))

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Note newer poses of integrated keyframes; `rebuild` applies them."""
        self._history.correct({i: pose for i, pose in poses.items() if is_pose(pose)})

    def rebuild(self) -> bool:
        """Build the volume anew from all keyframes at their newest poses. False, and nothing done, while no keyframe has
        moved by more than half a voxel."""
        if self._volume is None or self._history.displacement() <= self.voxel_size / 2:
            return False
        fresh = self._history.replay()
        fresh.take_changed()
        changed, gone = pool.differing(self._volume.blocks, fresh.blocks, fresh.min_weight)
        self._pending += [
            self._volume.take_changed(),
            fresh.blocks.coords[changed],
            self._volume.blocks.coords[gone],
        ]
        self._volume = fresh
        self._count_blocks(fresh)
        return True

    @staticmethod
    def warm_up() -> None:
        """Compile all kernels (or load them from the cache) on a tiny input."""
        camera = Camera(16, 16, 16.0, 16.0, 7.5, 7.5)
        rays = np.concatenate([camera.rays(), np.ones((16, 16, 1), np.float32)], axis=-1)
        points = rays.reshape(-1, 3)
        mesher = Mesher(MeshParams(voxel_size=0.1, max_blocks=64, min_weight=1.0))
        for i in range(2):
            mesher.integrate(Keyframe(i, i, np.eye(4), camera, points, np.zeros((len(points), 3), np.uint8)))
        moved = np.eye(4)
        moved[2, 3] = 1.0
        mesher.correct({1: moved})
        mesher.rebuild()
        mesher.changed()
        mesher.surface()

    def _make_volume(self) -> Volume:
        p = self.params
        return Volume(self.voxel_size, p.truncation * self.voxel_size, p.min_weight, p.max_blocks, p.carve)

    def _extract(self, regions: NDArray[np.int32]) -> list[MeshBlock]:
        assert self._volume is not None
        return marching.extract(self._volume.blocks, regions, self.voxel_size, self._volume.min_weight)

    def _count_blocks(self, volume: Volume) -> None:
        if (volume.refused or volume.evicted) and not (
            self.counters["blocks refused"] or self.counters["blocks evicted"]
        ):
            log.warning(
                "the mesh is full: old parts are dropped; raise mesh.max_blocks or mesh.voxel_size to keep them"
            )
        self.counters["blocks refused"] = volume.refused
        self.counters["blocks evicted"] = volume.evicted
