# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, changed pieces of the surface out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from functools import partial

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import is_pose
from recon3d_ros.core.types import Arrays, Keyframe, MeshBlock, Pose, Scale
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.duplicates import Duplicates
from recon3d_ros.mapping.field import Field
from recon3d_ros.mapping.history import History
from recon3d_ros.mapping.rebuild import Rebuild
from recon3d_ros.mapping.regions import regions_of
from recon3d_ros.mapping.saved import SavedSurface
from recon3d_ros.mapping.shown import Shown
from recon3d_ros.mapping.splat import DepthImage, blank, median_depth, splat
from recon3d_ros.mapping.view import View
from recon3d_ros.mapping.volumes import Volumes
from recon3d_ros.mapping.weld import joined

log = logging.getLogger(__name__)

#: Pixels with depth below which a keyframe is not integrated.
MIN_POINTS = 100

#: Keys of `Mesher.counters`: why a keyframe was skipped, then what else was given up.
SKIPPED = ("repeated", "bad pose", "few points", "out of range", "seen before")
DROPPED = ("points dropped", "blocks refused", "blocks evicted", "corrections dropped")

#: Depth beyond this many medians is an error of the source.
_ABSURD_DEPTH = 100.0


class Mesher:
    """The live mesh. One thread calls it, others may read the properties; its kernels release the GIL. Raises InputError
    for parameters that contradict each other.

    counters: keyframes skipped and things dropped, by reason. voxel_size: map units, 0 until the first keyframe when it
    is derived from that one's depth.
    """

    def __init__(self, params: MeshParams) -> None:
        if params.max_truncation < params.truncation:
            raise InputError("mesh.max_truncation must not be less than mesh.truncation")
        if params.fast_speed < params.slow_speed:
            raise InputError("mesh.fast_speed must not be less than mesh.slow_speed")
        self.params = params
        self._volumes = Volumes(params)
        self._rebuild: Rebuild | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next keyframe is the first."""
        # Every key is there from the start, so that others can iterate over it at any time.
        self.counters: Counter[str] = Counter(dict.fromkeys(SKIPPED + DROPPED, 0))
        self.voxel_size = float(self.params.voxel_size)
        self._volume: Field | None = None
        if self._rebuild is not None:
            self._rebuild.abandon()
        self._rebuild = None
        self._volumes.reset()
        self._history = History(self.params.depth_memory * 1_000_000)
        self._integrated: set[int] = set()
        self._duplicates = Duplicates(self.params)
        self._farthest = 0.0
        self._shown = Shown()
        self._blank: DepthImage | None = None
        self._camera: Camera | None = None

    def saving(self) -> Generator[None, None, Arrays]:
        """What `resume` takes, of the moment of the first step; the mesher may go on between the steps, which are bounded.
        The voxels are copied once. Poses corrected since the last rebuild are not in it. Raises InputError without a
        surface."""
        if self._volume is None:
            raise InputError("there is no surface yet")
        volume, moment, about = self._volume, self._volume.checkpoint(), self._about()
        try:
            blocks = yield from moment.saving()
        finally:
            volume.forget(moment)
        return about(blocks=blocks).arrays()

    def resume(self, arrays: Arrays) -> None:
        """Go on from what `saving` returned, instead of what is there; `changed` then gives the whole surface. Keyframes in
        it are repeated ones, and stay where they are whatever is corrected: their depth is not saved. Raises InputError,
        and nothing is changed, where the parameters contradict it or it is damaged."""
        saved = SavedSurface.of(arrays)
        saved.check(self.params)
        self.reset()
        self.voxel_size, self._farthest = saved.voxel_size, saved.farthest
        self._volumes.begin(saved.voxel_size, saved.median, saved.scale)
        volume = self._volumes.make()
        volume.resume(saved.blocks)
        self._volume = volume
        self._history.resume(volume, saved.newest)
        self._integrated = set(saved.integrated.tolist())
        self._duplicates.resume(saved.place, saved.alike)

    @property
    def triangles(self) -> int:
        """Triangles of the mesh as of the last `changed`."""
        return self._shown.triangles

    @property
    def keyframes(self) -> int:
        """Keyframes integrated."""
        return len(self._integrated)

    @property
    def blocks(self) -> int:
        """Blocks of 8x8x8 voxels held."""
        return 0 if self._volume is None else self._volume.count

    @property
    def memory_mb(self) -> float:
        """Memory that voxels and kept depth images use, in 10^6 bytes."""
        volume, rebuild = self._volume, self._rebuild
        volumes = [volume, rebuild.volume if rebuild is not None else None]
        return (sum(v.nbytes for v in volumes if v is not None) + self._history.nbytes) / 1e6

    @property
    def waiting(self) -> bool:
        """True while `changed` has more to give."""
        return self._shown.waiting

    @property
    def moved(self) -> bool:
        """True if a keyframe was corrected by more than half a voxel since it was integrated."""
        return self._history.moved(self.voxel_size / 2)

    @property
    def rebuilding(self) -> bool:
        """True while a rebuild is under way."""
        return self._rebuild is not None

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
        blank, self._blank = self._blank, None
        if blank is not None and blank.camera != keyframe.camera:
            blank = None
        image, filled, dropped = splat(keyframe, _ABSURD_DEPTH * median, blank)
        self._camera = keyframe.camera
        self.counters["points dropped"] += dropped
        if filled < MIN_POINTS:
            return "few points"
        pose = self._history.newest_pose(keyframe.id, keyframe.T_map_cam)
        view = View.of(image, pose, median, self.params)
        voxel_size = self.voxel_size or view.voxel_size(self.params)
        if not _in_range(view.pose, view.far, voxel_size):
            return "out of range"
        if self._volume is None:
            self._begin(keyframe, view.median, voxel_size)
        assert self._volume is not None
        if self._duplicates.has(self._volume, view):
            return "seen before"
        self._volume.integrate(view.image, view.pose, view.far, view.spread)
        self._history.add(self._volume, view.record(keyframe.id))
        self._integrated.add(keyframe.id)
        self._duplicates.integrated(view)
        self._farthest = max(self._farthest, view.far)
        self._count_blocks(self._volume)
        return ""

    def prepare(self) -> bool:
        """Between keyframes, a step of what the next one would otherwise wait for. True while more is to be done."""
        if self._camera is not None and self._blank is None:
            self._blank = blank(self._camera)  # that of the last one was kept
        return self._volume is not None and self._volume.prepare()

    def changed(self, most: int | None = None) -> list[MeshBlock]:
        """The regions whose triangles may differ since the last call, at most so many (then the others are `waiting`); one
        that became empty comes with 0 triangles."""
        if self._volume is None:
            return []
        taken = self._volume.take_changed()
        if self._rebuild is not None:
            self._rebuild.published(taken)
        self._shown.note(taken)
        return self._shown.changes(self._volume, most)

    def all_blocks(self, spilled: bool = False) -> list[MeshBlock]:
        """Every region that has triangles, for those who join late; leaves `changed` alone. spilled: also those of blocks
        on disk."""
        if self._volume is None:
            return []
        if spilled:
            return self._volume.extract_all()
        regions = regions_of(self._volume.coordinates())
        return [block for block in self._volume.extract(regions) if len(block.triangles)]

    def surface(self) -> MeshBlock:
        """The whole mesh with the vertices of neighbouring regions joined, also of blocks on disk; id (0, 0, 0)."""
        return joined(self.all_blocks(spilled=True))

    def correct(self, poses: Mapping[int, Pose]) -> None:
        """Note newer poses of keyframes; a rebuild applies them. Poses that are none, or out of range, are counted."""
        usable = {i: T for i, T in poses.items() if is_pose(T) and self._is_in_range(T)}
        self.counters["corrections dropped"] += len(poses) - len(usable)
        self._history.correct(usable)

    def rebuild_step(self, exactly: bool = False) -> bool:
        """One bounded piece of the rebuild under way; begins one when keyframes have moved by more than half a voxel or, if
        `exactly`, at all. True while more is to be done.

        The result is that of `Rebuild`; `changed` then gives what it changed."""
        if self._rebuild is not None and self._rebuild.stale:
            self._rebuild.abandon()
            self._rebuild = None
        if self._rebuild is None:
            if self._volume is None or not self._is_due(exactly):
                return False
            self._rebuild = Rebuild(self._history, self._volume, self._volumes.make)
        if self._rebuild.step():
            self._shown.note(self._rebuild.swap())
            self._volume, self._rebuild = self._rebuild.volume, None
            self._count_blocks(self._volume)
        return self._rebuild is not None or self._is_due(exactly)

    def rebuild(self, exactly: bool = False) -> bool:
        """Build the volume anew until all kept keyframes stand at their newest poses. False, and nothing done, while none
        has moved (see `rebuild_step`)."""
        worked = self.rebuilding
        while self.rebuild_step(exactly):
            worked = True
        return worked

    def _about(self) -> Callable[..., SavedSurface]:
        """The present state, without blocks."""
        return partial(
            SavedSurface,
            voxel_size=self.voxel_size,
            truncation=self.params.truncation,
            median=self._volumes.median,
            scale=self._volumes.scale,
            integrated=np.array(sorted(self._integrated), np.int64),
            newest=self._history.newest,
            farthest=self._farthest,
            place=self._duplicates.place,
            alike=self._duplicates.alike,
        )

    def _is_due(self, exactly: bool) -> bool:
        return self._history.moved(0.0) if exactly else self.moved

    def _is_in_range(self, pose: Pose) -> bool:
        """While no keyframe is integrated, everywhere."""
        return self._volume is None or _in_range(pose, self._farthest, self.voxel_size)

    def _begin(self, keyframe: Keyframe, median: float, voxel_size: float) -> None:
        """The first keyframe that can be used."""
        self.voxel_size = voxel_size
        self._volumes.begin(voxel_size, median, keyframe.scale)
        self._volume = self._volumes.make()
        if self.params.voxel_size and keyframe.scale == Scale.UNKNOWN:
            log.warning(
                "mesh.voxel_size is %g map units, whose length is unknown: 0 takes a share of the depth",
                voxel_size,
            )

    def _count_blocks(self, volume: Field) -> None:
        counts = {"blocks refused": volume.refused, "blocks evicted": volume.evicted}
        if any(counts.values()) and not any(self.counters[key] for key in counts):
            log.warning(
                "the mesh is full and drops its oldest parts: raise mesh.max_blocks or mesh.voxel_size"
            )
        self.counters.update({key: n - self.counters[key] for key, n in counts.items()})


def _in_range(pose: Pose, far: float, voxel_size: float) -> bool:
    """Whether block coordinates reach as far as a camera there can see."""
    return float(np.abs(pose[:3, 3]).max()) + 10 * far <= pool.LIMIT * pool.SIDE * voxel_size
