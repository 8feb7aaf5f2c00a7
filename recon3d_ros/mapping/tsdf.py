# SPDX-License-Identifier: Apache-2.0
"""Truncated signed distance field on sparse blocks, updated projectively from depth images (Curless and Levoy 1996;
Newcombe et al. 2011). Voxel centres lie at integer multiples of the voxel size. Serial kernels that release the GIL: beside
a busy reconstructor the fork and join of parallel ones costs more than it wins."""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.types import Pose
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import LIMIT, SIDE, UNIT_WEIGHT, VOXELS
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.splat import DepthImage, Intrinsics, intrinsics

#: Voxel size, truncation, far limit; map units.
Lengths = tuple[float, float, float]

_WEIGHT_CAP = 100 * UNIT_WEIGHT
_COLOUR_CAP = 15 * UNIT_WEIGHT  # uint8 colours would lose small changes against a larger weight
_EVICTED_SHARE = 10  # a full pool drops one in so many of its blocks at once
_CENTRE = (SIDE - 1) / 2  # of a block, in voxels from its first one


class Volume:
    """A signed distance field that depth images are integrated into.

    voxel_size: map units. truncation: map units. min_weight: observations below which a voxel does not count as known
    (kept here because crossing it changes the surface). capacity: blocks held at most; when they are used up the least
    recently seen ones are dropped. carve: whether blocks in front of a measured depth are emptied too. refused, evicted:
    blocks for which there was no room, blocks dropped to make room.
    """

    def __init__(
        self, voxel_size: float, truncation: float, min_weight: float, capacity: int, carve: bool = True
    ) -> None:
        self.voxel_size = voxel_size
        self.truncation = truncation
        self.min_weight = max(1, round(min_weight * UNIT_WEIGHT))
        self.carve = carve
        self.blocks = pool.allocate(capacity)
        self.refused = 0
        self.evicted = 0
        self._stamp = 0
        self._evicted: list[NDArray[np.int32]] = []

    def integrate(self, image: DepthImage, T_map_cam: Pose, far: float) -> None:
        """Take in a depth image seen from a pose; depth and voxels beyond `far` (map units along z) are left alone."""
        self._stamp += 1
        T_map_cam = np.array(
            T_map_cam, np.float64
        )  # one memory layout, for which the kernels are compiled once
        view = intrinsics(image.camera)
        lengths = (self.voxel_size, self.truncation, far)
        listed = np.empty(len(self.blocks.alive), np.int32)
        number = self._list_touched(listed, image, view, T_map_cam, lengths)
        T_cam_map = inverse(T_map_cam)
        if self.carve:
            scene = (image.depth, view, T_cam_map, lengths)
            number = _list_carved(self.blocks, listed, number, self._stamp, *scene)
        images = (image.depth, image.colours, image.weights)
        _update(self.blocks, listed[:number], images, view, T_cam_map, lengths, self.min_weight)

    def take_changed(self) -> NDArray[np.int32]:
        """Coordinates [n,3] of the blocks whose surface may differ since the last call, those dropped among them."""
        changed = self.blocks.coords[self.blocks.dirty]
        self.blocks.dirty[:] = False
        out = np.concatenate([changed, *self._evicted])
        self._evicted = []
        return out

    def copy(self) -> Volume:
        """An independent volume of the same content."""
        other = copy.copy(self)
        other.blocks = pool.copy(self.blocks)
        other._evicted = list(self._evicted)
        return other

    def _list_touched(
        self,
        listed: NDArray[np.int32],
        image: DepthImage,
        view: Intrinsics,
        T_map_cam: Pose,
        lengths: Lengths,
    ) -> int:
        """List (and make) the blocks in the band around the measured surface; makes room when the pool is full."""
        stride = _touch_stride(image.camera, SIDE * self.voxel_size, far=lengths[2])
        number, final = 0, False
        while True:
            number, refused = _list_touched(
                self.blocks, listed, number, self._stamp, image.depth, view, T_map_cam, lengths, stride, final
            )
            if not refused or final:
                self.refused += refused
                return number
            evicted = pool.evict(self.blocks, math.ceil(len(self.blocks.alive) / _EVICTED_SHARE), self._stamp)
            self._evicted.append(evicted)
            self.evicted += len(evicted)
            final = len(evicted) == 0


def _touch_stride(camera: Camera, block: float, far: float) -> int:
    """Pixels between the rays that look for blocks: their distance at `far` is at most a third of a block, 4 at most."""
    return int(np.clip(block * min(camera.fx, camera.fy) / (3 * far), 1, 4))


@kernel
def _rotated(T, row, x, y, z):
    """One coordinate of the rotated vector."""
    return T[row, 0] * x + T[row, 1] * y + T[row, 2] * z


@kernel
def _list_touched(blocks, listed, number, stamp, depth, view, T_map_cam, lengths, stride, final):
    """Walk every stride-th ray through the truncation band in half-block steps. Returns the number of blocks listed and
    of those refused; stops at the first refusal unless `final`."""
    voxel, truncation, far = lengths
    height, width = depth.shape
    fx, fy, cx, cy = view
    keys, slots, last_seen = blocks.keys, blocks.slots, blocks.last_seen
    block = SIDE * voxel
    refused = 0
    last_x = last_y = last_z = LIMIT
    for v in range(stride // 2, height, stride):
        for u in range(stride // 2, width, stride):
            d = np.float64(depth[v, u])
            if d <= 0 or d > far:
                continue
            x, y = (u - cx) / fx, (v - cy) / fy
            dx = _rotated(T_map_cam, 0, x, y, 1.0)
            dy = _rotated(T_map_cam, 1, x, y, 1.0)
            dz = _rotated(T_map_cam, 2, x, y, 1.0)
            steps = int(math.ceil(2 * truncation * math.sqrt(x * x + y * y + 1) / (block / 2)))
            for i in range(steps + 1):
                z = max(d + truncation * (2 * i / steps - 1), 0.0)
                bx = math.floor((T_map_cam[0, 3] + z * dx) / block + 0.5 / SIDE)
                by = math.floor((T_map_cam[1, 3] + z * dy) / block + 0.5 / SIDE)
                bz = math.floor((T_map_cam[2, 3] + z * dz) / block + 0.5 / SIDE)
                if bx == last_x and by == last_y and bz == last_z:
                    continue
                last_x, last_y, last_z = bx, by, bz
                slot = pool.find(keys, slots, bx, by, bz)
                if slot < 0:
                    slot = pool.insert(blocks, bx, by, bz)
                if slot < 0:
                    refused += 1
                    if not final:
                        return number, refused
                elif last_seen[slot] != stamp:
                    last_seen[slot] = stamp
                    listed[number] = slot
                    number += 1
    return number, refused


@kernel
def _list_carved(blocks, listed, number, stamp, depth, view, T_cam_map, lengths):
    """Append the blocks not listed yet whose centre lies in front of the depth measured there."""
    voxel, truncation, far = lengths
    height, width = depth.shape
    fx, fy, cx, cy = view
    for slot in range(blocks.counts[pool.HIGH]):
        if not blocks.alive[slot] or blocks.last_seen[slot] == stamp:
            continue
        x = (blocks.coords[slot, 0] * SIDE + _CENTRE) * voxel
        y = (blocks.coords[slot, 1] * SIDE + _CENTRE) * voxel
        z = (blocks.coords[slot, 2] * SIDE + _CENTRE) * voxel
        pz = _rotated(T_cam_map, 2, x, y, z) + T_cam_map[2, 3]
        if pz <= 0 or pz > far:
            continue
        u = math.floor(fx * (_rotated(T_cam_map, 0, x, y, z) + T_cam_map[0, 3]) / pz + cx + 0.5)
        v = math.floor(fy * (_rotated(T_cam_map, 1, x, y, z) + T_cam_map[1, 3]) / pz + cy + 0.5)
        if 0 <= u < width and 0 <= v < height and depth[v, u] > 0 and pz < depth[v, u] + truncation:
            blocks.last_seen[slot] = stamp
            listed[number] = slot
            number += 1
    return number


@kernel
def _update(blocks, listed, images, view, T_cam_map, lengths, min_weight):
    """Weighted running mean of distance and colour over all voxels of the listed blocks; flags blocks whose surface may
    differ as dirty: a distance or colour changed, or a weight crossed `min_weight`."""
    voxel, truncation, far = lengths
    size = np.int32(images[0].shape[1]), np.int32(images[0].shape[0])
    depth, colours, weights = images[0].reshape(-1), images[1].reshape(-1, 3), images[2].reshape(-1)
    to_share = np.float32(32767.0 / truncation)
    band, limit, edge = np.float32(-truncation), np.float32(far), np.float32(voxel)
    steps = (T_cam_map[:3, :3] * voxel).astype(np.float32)
    pixels, z = np.empty(VOXELS, np.int32), np.empty(VOXELS, np.float32)
    for k in range(len(listed)):
        slot = listed[k]
        tsdf, weight, colour = blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot]
        _project(_origin(T_cam_map, blocks.coords[slot], voxel), steps, view, size, limit, pixels, z)
        dirty = False
        for i in range(VOXELS):
            if pixels[i] < 0:
                continue
            pixel = np.uint32(pixels[i])  # unsigned: spares the test for a negative index
            distance = depth[pixel] - z[i]
            if depth[pixel] <= 0 or distance < band:
                continue
            past, gain = np.int32(weight[i]), np.int32(weights[pixel])
            dirty |= _average_distance(tsdf, weight, i, distance * to_share, past, gain, min_weight)
            # Far in front of the surface a pixel shows what lies behind: it colours a voxel only until a better one comes.
            coloured = (colour[i, 0] | colour[i, 1] | colour[i, 2]) != 0
            if abs(distance) < edge or not coloured:
                dirty |= _average_colour(colour, i, colours[pixel], past if coloured else np.int32(0), gain)
        blocks.dirty[slot] |= dirty


@kernel
def _project(origin, steps, view, size, limit, pixels, z):
    """Number of the nearest pixel of every voxel of a block, -1 outside the image, and depth of the voxel. `steps`: to the
    next voxel along x, y, z, as columns. Free of branches, so that it becomes vector code."""
    fx, fy = np.float32(view[0]), np.float32(view[1])
    cx, cy = np.float32(view[2] + 0.5), np.float32(view[3] + 0.5)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = steps
    width, height = size
    for i in range(VOXELS):
        vx, vy, vz = np.float32(i % SIDE), np.float32(i // SIDE % SIDE), np.float32(i // (SIDE * SIDE))
        depth = origin[2] + zx * vx + zy * vy + zz * vz
        inverse_depth = np.float32(1.0) / depth
        u = fx * (origin[0] + xx * vx + xy * vy + xz * vz) * inverse_depth + cx
        v = fy * (origin[1] + yx * vx + yy * vy + yz * vz) * inverse_depth + cy
        inside = (depth > 0) & (depth <= limit) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixels[i] = np.int32(v) * width + np.int32(u) if inside else np.int32(-1)
        z[i] = depth


@kernel
def _origin(T_cam_map, coords, voxel):
    """First voxel of a block in the camera frame."""
    x, y, z = coords[0] * SIDE * voxel, coords[1] * SIDE * voxel, coords[2] * SIDE * voxel
    px = _rotated(T_cam_map, 0, x, y, z) + T_cam_map[0, 3]
    py = _rotated(T_cam_map, 1, x, y, z) + T_cam_map[1, 3]
    pz = _rotated(T_cam_map, 2, x, y, z) + T_cam_map[2, 3]
    return np.float32(px), np.float32(py), np.float32(pz)


@kernel
def _average_distance(tsdf, weight, i, value, past, gain, min_weight):
    """Returns whether the surface may have changed."""
    old = tsdf[i]
    step = (min(value, np.float32(32767.0)) - np.float32(old)) * (np.float32(gain) / np.float32(past + gain))
    new = np.int16(math.floor(np.float32(old) + step + np.float32(0.5)))
    total = min(past + gain, _WEIGHT_CAP)
    tsdf[i] = new
    weight[i] = total
    return (new != old) | ((past < min_weight) != (total < min_weight))


@kernel
def _average_colour(colour, i, pixel, past, gain):
    """Returns whether the colour changed."""
    rate = np.float32(gain) / np.float32(min(past, _COLOUR_CAP) + gain)
    r = _blend(colour[i, 0], pixel[0], rate)
    g = _blend(colour[i, 1], pixel[1], rate)
    b = _blend(colour[i, 2], pixel[2], rate)
    changed = (r != colour[i, 0]) | (g != colour[i, 1]) | (b != colour[i, 2])
    colour[i, 0], colour[i, 1], colour[i, 2] = r, g, b
    return changed


@kernel
def _blend(old, new, rate):
    return np.uint8(np.float32(old) + (np.float32(new) - np.float32(old)) * rate + np.float32(0.5))
