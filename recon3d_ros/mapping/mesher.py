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

#: Keys of `Mesher.counters`: why a keyframe was skipped, then what else was given up.
SKIPPED = ("repeated", "bad pose", "few points", "out of range")
DROPPED = ("points dropped", "blocks refused", "blocks evicted")

#: Depth beyond this many medians is an error of the source.
_ABSURD_DEPTH = 100.0

_WHOLE = (0, 0, 0)  # id of the welded mesh


class Mesher:
    """The live mesh. One thread calls it, others may read the properties; its kernels release the GIL.

    counters: keyframes skipped and things dropped, by reason. voxel_size: map units, 0 until the first keyframe when it
    is derived from that one's depth. triangles: of the mesh as of the last `changed`.
    """

    def __init__(self, params: MeshParams) -> None:
        self.params = params
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next keyframe is the first."""
        # Every key is there from the start, so that others can iterate over it at any time.
        self.counters: Counter[str] = Counter(dict.fromkeys(SKIPPED + DROPPED, 0))
        self.triangles = 0
        self.voxel_size = float(self.params.voxel_size)
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
    def blocks(self) -> int:
        """Blocks of 8x8x8 voxels held."""
        volume = self._volume
        return 0 if volume is None else pool.count(volume.blocks)

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
            before, after = self._sizes.pop(block.id, 0), len(block.triangles)
            self.triangles += after - before
            if after:
                self._sizes[block.id] = after
            if before or after:
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
        if not parts:
            return MeshBlock(_WHOLE, *(np.empty((0, 3), kind) for kind in (np.float32, np.int32, np.uint8)))
        vertices = np.concatenate([part.vertices for part in parts])
        triangles = np.concatenate([part.triangles + o for part, o in zip(parts, offsets, strict=False)])
        colours = np.concatenate([part.colours for part in parts])
        return MeshBlock(_WHOLE, *weld(vertices, triangles, colours))

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
        assert mesher._volume is not None
        pool.evict(mesher._volume.blocks, 0, stamp=0)

    def _make_volume(self) -> Volume:
        p = self.params
        return Volume(self.voxel_size, p.truncation * self.voxel_size, p.min_weight, p.max_blocks, p.carve)

    def _extract(self, regions: NDArray[np.int32]) -> list[MeshBlock]:
        assert self._volume is not None
        return marching.extract(self._volume.blocks, regions, self.voxel_size, self._volume.min_weight)

    def _count_blocks(self, volume: Volume) -> None:
        counts = {"blocks refused": volume.refused, "blocks evicted": volume.evicted}
        if any(counts.values()) and not any(self.counters[key] for key in counts):
            log.warning(
                "the mesh is full and drops its oldest parts: raise mesh.max_blocks or mesh.voxel_size"
            )
        self.counters.update({key: n - self.counters[key] for key, n in counts.items()})
