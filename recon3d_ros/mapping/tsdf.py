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
from recon3d_ros.mapping.blocks import LIMIT, SIDE, UNIT_WEIGHT
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.splat import DepthImage

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
        camera = image.camera
        view = (camera.fx, camera.fy, camera.cx, camera.cy)
        listed = np.empty(len(self.blocks.alive), np.int32)
        number = self._touch(image, T_map_cam, view, far, listed)
        T_cam_map = inverse(T_map_cam)
        if self.carve:
            number = _list_carved(
                self.blocks,
                listed,
                number,
                self._stamp,
                image.depth,
                view,
                T_cam_map,
                self.voxel_size,
                self.truncation,
                far,
            )
        _update(
            self.blocks, listed[:number], image.depth, image.colours, image.weights, view, T_cam_map,
            self.voxel_size, self.truncation, far, self.min_weight,
        )  # fmt: skip

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

    def _touch(
        self,
        image: DepthImage,
        T_map_cam: Pose,
        view: tuple[float, ...],
        far: float,
        listed: NDArray[np.int32],
    ) -> int:
        """List (and make) the blocks in the band around the measured surface; makes room when the pool is full."""
        stride = touch_stride(image.camera, SIDE * self.voxel_size, far)
        number, final = 0, False
        while True:
            number, refused = _touch(
                self.blocks, listed, number, self._stamp, image.depth, view, T_map_cam, self.voxel_size, self.truncation,
                far, stride, final,
            )  # fmt: skip
            if not refused or final:
                self.refused += refused
                return number
            evicted = pool.evict(self.blocks, math.ceil(len(self.blocks.alive) / _EVICTED_SHARE), self._stamp)
            self._evicted.append(evicted)
            self.evicted += len(evicted)
            final = len(evicted) == 0


def touch_stride(camera: Camera, block: float, far: float) -> int:
    """Pixels between the rays that look for blocks: their distance at `far` is at most a third of a block, 4 at most."""
    return int(np.clip(block * min(camera.fx, camera.fy) / (3 * far), 1, 4))


@kernel
def _touch(blocks, listed, number, stamp, depth, view, T_map_cam, voxel, truncation, far, stride, final):
    """Walk every stride-th ray through the truncation band in half-block steps. Returns the number of blocks listed and
    of those refused; stops at the first refusal unless `final`."""
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
            dx = T_map_cam[0, 0] * x + T_map_cam[0, 1] * y + T_map_cam[0, 2]
            dy = T_map_cam[1, 0] * x + T_map_cam[1, 1] * y + T_map_cam[1, 2]
            dz = T_map_cam[2, 0] * x + T_map_cam[2, 1] * y + T_map_cam[2, 2]
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
def _list_carved(blocks, listed, number, stamp, depth, view, T_cam_map, voxel, truncation, far):
    """Append the blocks not listed yet whose centre lies in front of the depth measured there."""
    height, width = depth.shape
    fx, fy, cx, cy = view
    for slot in range(blocks.counts[0]):
        if not blocks.alive[slot] or blocks.last_seen[slot] == stamp:
            continue
        x = (blocks.coords[slot, 0] * SIDE + _CENTRE) * voxel
        y = (blocks.coords[slot, 1] * SIDE + _CENTRE) * voxel
        z = (blocks.coords[slot, 2] * SIDE + _CENTRE) * voxel
        pz = T_cam_map[2, 0] * x + T_cam_map[2, 1] * y + T_cam_map[2, 2] * z + T_cam_map[2, 3]
        if pz <= 0 or pz > far:
            continue
        u = math.floor(
            fx * (T_cam_map[0, 0] * x + T_cam_map[0, 1] * y + T_cam_map[0, 2] * z + T_cam_map[0, 3]) / pz
            + cx
            + 0.5
        )
        v = math.floor(
            fy * (T_cam_map[1, 0] * x + T_cam_map[1, 1] * y + T_cam_map[1, 2] * z + T_cam_map[1, 3]) / pz
            + cy
            + 0.5
        )
        if 0 <= u < width and 0 <= v < height and depth[v, u] > 0 and pz < depth[v, u] + truncation:
            blocks.last_seen[slot] = stamp
            listed[number] = slot
            number += 1
    return number


@kernel
def _update(blocks, listed, depth, colours, weights, view, T_cam_map, voxel, truncation, far, min_weight):
    """Weighted running mean of distance and colour over all voxels of the listed blocks; flags blocks whose surface may
    differ as dirty: a distance or colour changed, or a weight crossed `min_weight`."""
    height, width = depth.shape
    fx, fy, cx, cy = (
        np.float32(view[0]),
        np.float32(view[1]),
        np.float32(view[2] + 0.5),
        np.float32(view[3] + 0.5),
    )
    # One voxel further along each axis of the map, in the camera frame; scalars, because the compiler cannot know that
    # writing voxels leaves a matrix alone.
    R = (T_cam_map[:3, :3] * voxel).astype(np.float32)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = (
        R[0, 0],
        R[0, 1],
        R[0, 2],
        R[1, 0],
        R[1, 1],
        R[1, 2],
        R[2, 0],
        R[2, 1],
        R[2, 2],
    )
    to_share = np.float32(32767.0 / truncation)
    band, limit, edge = np.float32(-truncation), np.float32(far), np.float32(voxel)
    w_limit, h_limit = np.float32(width), np.float32(height)
    for k in range(len(listed)):
        slot = listed[k]
        tsdf, weight, colour = blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot]
        base_x, base_y, base_z = _origin(T_cam_map, blocks.coords[slot], voxel)
        dirty = False
        for row in range(SIDE * SIDE):
            vy, vz = np.float32(row % SIDE), np.float32(row // SIDE)
            row_x = base_x + xy * vy + xz * vz
            row_y = base_y + yy * vy + yz * vz
            row_z = base_z + zy * vy + zz * vz
            for vx in range(SIDE):
                z = row_z + zx * np.float32(vx)
                inverse_z = np.float32(1.0) / z
                u = fx * (row_x + xx * np.float32(vx)) * inverse_z + cx
                v = fy * (row_y + yx * np.float32(vx)) * inverse_z + cy
                if not (0 < z <= limit and 0 <= u < w_limit and 0 <= v < h_limit):
                    continue
                # Unsigned indices spare the test for negative ones.
                x, y, i = np.uint32(np.int32(u)), np.uint32(np.int32(v)), np.uint32(row * SIDE + vx)
                d = depth[y, x]
                distance = d - z
                if d <= 0 or distance < band:
                    continue
                past, gain = np.int32(weight[i]), np.int32(weights[y, x])
                dirty |= _average_distance(tsdf, weight, i, distance * to_share, past, gain, min_weight)
                # Far in front of the surface a pixel shows what lies behind: it colours a voxel only until a better one
                # comes.
                coloured = (colour[i, 0] | colour[i, 1] | colour[i, 2]) != 0
                if abs(distance) < edge or not coloured:
                    dirty |= _average_colour(
                        colour, i, colours[y, x], past if coloured else np.int32(0), gain
                    )
        blocks.dirty[slot] |= dirty


@kernel
def _origin(T_cam_map, coords, voxel):
    """First voxel of a block in the camera frame."""
    x, y, z = coords[0] * SIDE * voxel, coords[1] * SIDE * voxel, coords[2] * SIDE * voxel
    return (
        np.float32(T_cam_map[0, 0] * x + T_cam_map[0, 1] * y + T_cam_map[0, 2] * z + T_cam_map[0, 3]),
        np.float32(T_cam_map[1, 0] * x + T_cam_map[1, 1] * y + T_cam_map[1, 2] * z + T_cam_map[1, 3]),
        np.float32(T_cam_map[2, 0] * x + T_cam_map[2, 1] * y + T_cam_map[2, 2] * z + T_cam_map[2, 3]),
    )


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
