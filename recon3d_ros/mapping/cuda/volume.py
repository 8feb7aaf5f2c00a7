# SPDX-License-Identifier: Apache-2.0
"""The signed distance field of mapping/tsdf.py on a GPU: the same arrays, integrated and extracted by its kernels.

Voxels, and the triangles of every region, equal those of the CPU bit for bit as long as the pool has room. What differs:
the slots that blocks get, the order of vertices within a region, and, once the pool is full, which of the blocks that were
last seen at the same time are dropped (the blocks of the present view never are)."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import MeshBlock, Pose
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.band import touch_stride
from recon3d_ros.mapping.blocks import SIDE
from recon3d_ros.mapping.cuda.device import Device
from recon3d_ros.mapping.cuda.marching import Extractor
from recon3d_ros.mapping.cuda.memory import DevicePool
from recon3d_ros.mapping.regions import regions_of
from recon3d_ros.mapping.saved import CONTENT, TABLE, SavedBlocks
from recon3d_ros.mapping.seen import sample_stride
from recon3d_ros.mapping.splat import DepthImage
from recon3d_ros.mapping.voxel_hash import EMPTY

_LISTED, _FRESH = 0, 1  # places in the counters, as in blocks.cu

#: Stride, rays in a row, rays in all.
_Rays = tuple[np.int32, np.int32, np.int32]

#: `struct View` of tsdf.cu.
_VIEW = np.dtype(
    [("map_cam", np.float64, 12), ("cam_map", np.float64, 12)]
    + [(name, np.float64) for name in ("fx", "fy", "cx", "cy")]
    + [(name, np.float64) for name in ("voxel", "truncation", "far", "spread", "widest")]
    + [("width", np.int32), ("height", np.int32)]
)


class CudaVolume:
    """Like `tsdf.Volume`, on a device. The arrays of a depth image may lie on the host or, as those of torch do, be handed
    over there (`__dlpack__`)."""

    def __init__(
        self,
        device: Device,
        voxel_size: float,
        truncation: float,
        min_weight: float,
        capacity: int,
        carve: bool = True,
        widest: float = 0.0,
    ) -> None:
        self.voxel_size = voxel_size
        self.truncation = truncation
        self.widest = widest
        self.min_weight = pool.weight_of(min_weight)
        self.carve = carve
        self.refused = 0
        self.evicted = 0
        self.pool = DevicePool(device, capacity)
        self._device = device
        self._capacity = capacity
        self._extractor = Extractor(device)
        self._stamp = 0
        self._evicted: list[NDArray[np.int32]] = []
        self._checkpoints: list[CudaCheckpoint] = []

    @property
    def count(self) -> int:
        """Blocks held."""
        return pool.count(self.pool.blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks held, here and by checkpoints."""
        return pool.memory(self.pool.blocks) + sum(checkpoint.nbytes for checkpoint in self._checkpoints)

    def integrate(self, image: DepthImage, T_map_cam: Pose, far: float, spread: float = 0.0) -> None:
        """As `Volume.integrate`."""
        self._stamp += 1
        device = self._device
        depth = device.put(image.depth, np.float32)
        images = depth, device.put(image.colours, np.uint8), device.put(image.weights, np.uint8)
        view = self._view(image.camera, T_map_cam, far, spread)
        stride = touch_stride(image.camera, SIDE * self.voxel_size, far)
        listed, counts = self._list_touched(view, depth, self._rays(image.camera, stride))
        if self.carve:
            used = self.pool.used
            self.pool.launch("carve", used, view, depth, used, np.int64(self._stamp), listed, counts)
        number = int(device.get(counts)[_LISTED])
        self.pool.launch_blocks("update", number, view, *images, listed, np.int32(self.min_weight))

    def prepare(self) -> bool:
        """As `Volume.prepare`; there is nothing to do."""
        return False

    def take_changed(self) -> NDArray[np.int32]:
        """As `Volume.take_changed`."""
        blocks = self.pool.blocks
        changed = self._device.get(blocks.coords[blocks.dirty])
        blocks.dirty.fill(False)
        out = np.concatenate([changed, *self._evicted])
        self._evicted = []
        return out

    def coordinates(self) -> NDArray[np.int32]:
        """Coordinates [n,3] of all blocks."""
        return self._device.get(pool.coordinates(self.pool.blocks))

    def extract(self, regions: NDArray[np.int32]) -> list[MeshBlock]:
        """The triangles of each region [n,3], in the given order, with no vertex twice inside one."""
        return self._extractor.extract(self.pool, regions, self.voxel_size, self.min_weight)

    def extract_all(self) -> list[MeshBlock]:
        """All regions that have triangles."""
        return [block for block in self.extract(regions_of(self.coordinates())) if len(block.triangles)]

    def seen_share(self, image: DepthImage, T_map_cam: Pose, far: float, observations: float) -> float:
        """As `Volume.seen_share`."""
        device, camera = self._device, image.camera
        rays = self._rays(camera, sample_stride(camera.width * camera.height))
        taken = device.xp.full(1 << (2 * int(rays[-1])).bit_length(), EMPTY, np.int64)
        counts = device.xp.zeros(2, np.int32)
        weight = np.int32(pool.weight_of(observations))
        view, depth = self._view(camera, T_map_cam, far), device.put(image.depth, np.float32)
        keys = (taken, np.int64(len(taken)))
        self.pool.launch("count_seen", rays[-1], view, depth, *rays, weight, *keys, counts)
        occupied, seen = device.get(counts).tolist()
        return seen / occupied if occupied else 0.0

    def compare(self, other: CudaVolume) -> Iterator[NDArray[np.int32]]:
        """Coordinates [n,3] of the blocks of either volume whose surface the other does not have, in one step."""
        device, a, b = self._device, self.pool.blocks, other.pool.blocks
        mine, lacking = device.xp.zeros(len(a.alive), np.bool_), device.xp.zeros(len(b.alive), np.bool_)
        theirs, used = other.pool.structure(), other.pool.used
        self.pool.launch_blocks("compare", self.pool.used, theirs, np.int32(self.min_weight), mine)
        self.pool.launch("find_lacking", used, theirs, used, lacking)
        yield np.concatenate([device.get(a.coords[mine]), device.get(b.coords[lacking])])

    def copy(self) -> CudaVolume:
        """A volume of the same content."""
        other = copy.copy(self)
        other.pool = self.pool.copy()
        other._evicted, other._checkpoints = [], []
        return other

    def resume(self, saved: SavedBlocks) -> None:
        """As `Volume.resume`."""
        rows, slots, free = saved.placed(self._capacity, disk=False)
        while len(self.pool.blocks.alive) < len(slots) + len(free):
            if not self.pool.grow():
                raise InputError("no room on the GPU for the saved map: set mesh.device to cpu")
        saved.fill(self.pool.blocks, rows, slots, free, lambda array: self._device.put(array, array.dtype))
        self.pool.rehash()
        self._stamp = int(saved.stamp)

    def checkpoint(self) -> CudaCheckpoint:
        """The present content, copied: on a device that costs less than to note what changes."""
        self._checkpoints.append(CudaCheckpoint(self))
        return self._checkpoints[-1]

    def forget(self, checkpoint: CudaCheckpoint) -> None:
        """A checkpoint is not needed any more."""
        if checkpoint in self._checkpoints:
            self._checkpoints.remove(checkpoint)

    def saving(self) -> Generator[None, None, SavedBlocks]:
        """The present content, an array at a step. It must not change meanwhile."""
        blocks, get = self.pool.blocks, self._device.get
        slots = self._device.xp.flatnonzero(blocks.alive)
        free = np.array(get(blocks.free[: int(blocks.counts[pool.FREE])]))
        rows = {}
        for name in (*TABLE, *CONTENT):
            rows[name] = get(getattr(blocks, name)[slots])
            yield
        return SavedBlocks(np.array(self._stamp, np.int64), get(slots).astype(np.int32), free, **rows)

    def release(self) -> None:
        """Nothing is held on disk."""

    def _view(self, camera: Camera, T_map_cam: Pose, far: float, spread: float = 0.0) -> NDArray[np.void]:
        view = np.zeros(1, _VIEW)
        view["map_cam"], view["cam_map"] = T_map_cam[:3].reshape(-1), inverse(T_map_cam)[:3].reshape(-1)
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            view[name] = getattr(camera, name)
        view["voxel"], view["truncation"], view["widest"] = self.voxel_size, self.truncation, self.widest
        view["far"], view["spread"] = far, spread
        return view

    @staticmethod
    def _rays(camera: Camera, stride: int) -> _Rays:
        """Every stride-th pixel, for kernels."""
        rows, columns = (len(range(stride // 2, side, stride)) for side in (camera.height, camera.width))
        return np.int32(stride), np.int32(columns), np.int32(rows * columns)

    def _list_touched(self, view: NDArray[np.void], depth: Any, rays: _Rays) -> tuple[Any, Any]:
        """List (and make) the blocks in the band around the measured surface; makes room when the pool is full. Returns the
        slots int32 [C] and the counters, whose first is the number of slots."""
        xp, stamp = self._device.xp, np.int64(self._stamp)
        listed = xp.empty(self._capacity, np.int32)
        counts = xp.zeros(2, np.int32)
        final = False
        while True:
            room = self.pool.room
            fresh = xp.empty(room, np.int32)
            about = (view, depth, *rays, stamp, np.int32(room))
            self.pool.launch("touch", rays[-1], *about, listed, fresh, counts)
            wanted = int(self._device.get(counts)[_FRESH])
            if wanted <= room or final:
                break
            final = not self._make_room(stamp)
            counts[_FRESH] = 0
        self.pool.make(fresh, min(wanted, room), stamp, listed, counts)
        if wanted > room:
            self.refused += wanted - room
            self.pool.rehash()  # forget the keys that found no slot
        return listed, counts

    def _make_room(self, stamp: np.int64) -> bool:
        """Take more memory or, at the limit, drop the oldest blocks; False if all are in view."""
        if self.pool.grow():
            return True
        evicted = self.pool.evict(stamp)
        self._evicted.append(evicted)
        self.evicted += len(evicted)
        return len(evicted) > 0


class CudaCheckpoint:
    """The content of a volume at one moment."""

    def __init__(self, volume: CudaVolume) -> None:
        self._state = volume.copy()

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return self._state.nbytes

    def restored(self) -> tuple[CudaVolume, Iterator[None]]:
        """A volume with the content of that moment; no step is left to do."""
        return self._state.copy(), iter(())

    def saving(self) -> Generator[None, None, SavedBlocks]:
        """The content of that moment, an array at a step."""
        return self._state.saving()
