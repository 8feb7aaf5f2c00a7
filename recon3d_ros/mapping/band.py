# SPDX-License-Identifier: Apache-2.0
"""Which blocks a depth image concerns: those in the truncation band around what it measured, made where they are missing,
and those that are held in front of it, to be carved."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.blocks import SIDE
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.voxel_hash import EMPTY, pack

_CENTRE = (SIDE - 1) / 2  # of a block, in voxels from its first one
_MET = 256  # blocks remembered of those that rays just met: neighbouring rays meet the same ones


class Lengths(NamedTuple):
    """What the kernels measure with, map units. voxel: its edge. truncation: half width of the band. far: depth beyond
    which nothing is done. spread, widest: the band around depth d is min(spread d^2, widest) wide where that is more
    (spread in 1 / map units)."""

    voxel: float
    truncation: float
    far: float
    spread: float = 0.0
    widest: float = 0.0


def touch_stride(camera: Camera, block: float, far: float) -> int:
    """Pixels between the rays that look for blocks: their distance at `far` is at most a third of a block, 4 at most."""
    return int(np.clip(block * min(camera.fx, camera.fy) / (3 * far), 1, 4))


@kernel
def half_width(depth, truncation, spread, widest):
    """Half width of the band around a measured depth."""
    return max(truncation, min(spread * depth * depth, widest))


@kernel
def rotated(T, row, x, y, z):
    """One coordinate of the rotated vector."""
    return T[row, 0] * x + T[row, 1] * y + T[row, 2] * z


@kernel
def list_touched(blocks, listed, number, stamp, depth, view, T_map_cam, lengths, stride, final):
    """Walk every stride-th ray through the truncation band in half-block steps. Returns the number of blocks listed and
    of those refused; stops at the first refusal unless `final`."""
    voxel, truncation, far, spread, widest = lengths
    height, width = depth.shape
    fx, fy, cx, cy = view
    per_unit = 1.0 / (SIDE * voxel)  # blocks
    ox, oy, oz = T_map_cam[0, 3] * per_unit, T_map_cam[1, 3] * per_unit, T_map_cam[2, 3] * per_unit
    met = np.full(_MET, EMPTY, np.int64)
    refused = 0
    for v in range(stride // 2, height, stride):
        for u in range(stride // 2, width, stride):
            d = np.float64(depth[v, u])
            if d <= 0 or d > far:
                continue
            x, y = (u - cx) / fx, (v - cy) / fy
            dx = rotated(T_map_cam, 0, x, y, 1.0) * per_unit
            dy = rotated(T_map_cam, 1, x, y, 1.0) * per_unit
            dz = rotated(T_map_cam, 2, x, y, 1.0) * per_unit
            half = half_width(d, truncation, spread, widest)
            steps = math.ceil(4 * half * math.sqrt(x * x + y * y + 1) * per_unit)
            step = 2 * half / steps
            for i in range(steps + 1):
                z = max(d - half + i * step, 0.0)
                bx = np.int64(math.floor(ox + z * dx + 0.5 / SIDE))
                by = np.int64(math.floor(oy + z * dy + 0.5 / SIDE))
                bz = np.int64(math.floor(oz + z * dz + 0.5 / SIDE))
                key, place = pack(bx, by, bz), (bx + 7 * by + 49 * bz) & (_MET - 1)
                if met[place] == key:
                    continue
                met[place] = key
                slot = pool.find(blocks.keys, blocks.slots, bx, by, bz)
                if slot < 0:
                    slot = pool.insert(blocks, bx, by, bz)
                if slot < 0:
                    refused += 1
                    if not final:
                        return number, refused
                elif blocks.last_seen[slot] != stamp:
                    blocks.last_seen[slot] = stamp
                    listed[number] = slot
                    number += 1
    return number, refused


@kernel
def list_carved(blocks, listed, number, stamp, depth, view, T_cam_map, lengths):
    """Append the blocks not listed yet whose centre lies in front of the depth measured there."""
    voxel, truncation, far, spread, widest = lengths
    height, width = depth.shape
    fx, fy, cx, cy = view
    for slot in range(blocks.counts[pool.HIGH]):
        if not blocks.alive[slot] or blocks.last_seen[slot] == stamp:
            continue
        x = (blocks.coords[slot, 0] * SIDE + _CENTRE) * voxel
        y = (blocks.coords[slot, 1] * SIDE + _CENTRE) * voxel
        z = (blocks.coords[slot, 2] * SIDE + _CENTRE) * voxel
        pz = rotated(T_cam_map, 2, x, y, z) + T_cam_map[2, 3]
        if pz <= 0 or pz > far:
            continue
        u = math.floor(fx * (rotated(T_cam_map, 0, x, y, z) + T_cam_map[0, 3]) / pz + cx + 0.5)
        v = math.floor(fy * (rotated(T_cam_map, 1, x, y, z) + T_cam_map[1, 3]) / pz + cy + 0.5)
        if not (0 <= u < width and 0 <= v < height):
            continue
        d = np.float64(depth[v, u])
        if d > 0 and pz < d + half_width(d, truncation, spread, widest):
            blocks.last_seen[slot] = stamp
            listed[number] = slot
            number += 1
    return number
