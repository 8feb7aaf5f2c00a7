# SPDX-License-Identifier: Apache-2.0
"""How much of what a depth image shows is known already, by voxels: a box in the map says nothing of its inside."""

from __future__ import annotations

import math

import numpy as np

from recon3d_ros.core.types import Floats, Pose
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping.band import rotated
from recon3d_ros.mapping.blocks import SIDE, Blocks
from recon3d_ros.mapping.jit import kernel
from recon3d_ros.mapping.splat import Intrinsics
from recon3d_ros.mapping.voxel_hash import EMPTY, pack, probe

_SAMPLES = 5000


def sample_stride(pixels: int) -> int:
    """Distance in rows and columns of the pixels that are looked at, of an image of so many."""
    return max(1, math.isqrt(pixels // _SAMPLES))


def seen_share(
    blocks: Blocks, depth: Floats, view: Intrinsics, T_map_cam: Pose, voxel: float, far: float, weight: int
) -> float:
    """Share of the voxels that some thousand pixels of a depth image occupy whose weight in the pool is at least `weight`.
    Depth beyond `far` (map units) does not count; 0 when there is none."""
    stride = sample_stride(depth.size)
    seen, occupied = _count(blocks, depth, view, T_map_cam, voxel, far, weight, stride)
    return seen / occupied if occupied else 0.0


@kernel
def _count(blocks, depth, view, T_map_cam, voxel, far, weight, stride):
    """Voxels seen often enough and voxels occupied."""
    height, width = depth.shape
    fx, fy, cx, cy = view
    keys, slots, weights = blocks.keys, blocks.slots, blocks.weight
    size = 16
    while size < 2 * (height // stride + 1) * (width // stride + 1):
        size *= 2
    taken = np.full(size, EMPTY, np.int64)
    seen = occupied = 0
    for v in range(stride // 2, height, stride):
        for u in range(stride // 2, width, stride):
            d = np.float64(depth[v, u])
            if d <= 0 or d > far:
                continue
            x, y = (u - cx) / fx * d, (v - cy) / fy * d
            vx = math.floor((rotated(T_map_cam, 0, x, y, d) + T_map_cam[0, 3]) / voxel + 0.5)
            vy = math.floor((rotated(T_map_cam, 1, x, y, d) + T_map_cam[1, 3]) / voxel + 0.5)
            vz = math.floor((rotated(T_map_cam, 2, x, y, d) + T_map_cam[2, 3]) / voxel + 0.5)
            key = pack(vx, vy, vz)
            place = probe(taken, key)
            if taken[place] == key:
                continue
            taken[place] = key
            occupied += 1
            slot = pool.find(keys, slots, vx // SIDE, vy // SIDE, vz // SIDE)
            if slot >= 0:
                seen += weights[slot, (vz % SIDE * SIDE + vy % SIDE) * SIDE + vx % SIDE] >= weight
    return seen, occupied
