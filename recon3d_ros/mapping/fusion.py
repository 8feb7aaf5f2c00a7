# SPDX-License-Identifier: Apache-2.0
"""The update of voxels from a depth image seen from a pose: each looks at the nearest pixel (Newcombe et al. 2011)."""

from __future__ import annotations

import math

import numpy as np

from recon3d_ros.mapping.band import rotated
from recon3d_ros.mapping.blocks import MOST_VIEWS, SIDE, UNIT_WEIGHT, VIEW_BITS, VOXELS
from recon3d_ros.mapping.jit import kernel

_WEIGHT_CAP = 100 * UNIT_WEIGHT


@kernel
def update(blocks, listed, images, view, T_cam_map, lengths, min_weight):
    """Running means over all voxels of the listed blocks: of the distance, weighted, and of the colour, over the views that
    saw the surface there. Flags blocks whose surface may differ as dirty: a distance or colour changed, or a weight crossed
    `min_weight`."""
    voxel, truncation, far, spread, widest = lengths
    size = np.int32(images[0].shape[1]), np.int32(images[0].shape[0])
    depth, colours, weights = images[0].reshape(-1), images[1].reshape(-1, 3), images[2].reshape(-1)
    to_share = np.float32(32767.0 / truncation)
    wider, widest = np.float32(spread), np.float32(widest)
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
            if depth[pixel] <= 0:
                continue
            if distance < band and distance < -min(wider * depth[pixel] * depth[pixel], widest):
                continue
            held, gain = np.int32(weight[i]), np.int32(weights[pixel])
            past, views = held >> VIEW_BITS, held & MOST_VIEWS
            dirty |= _average_distance(tsdf, i, distance * to_share, past, gain)
            # Far in front of the surface a pixel shows what lies behind: it colours a voxel only until a better one comes.
            near = abs(distance) < edge
            if near or past == 0:
                dirty |= _average_colour(colour, i, colours[pixel], views)
                views = min(views + np.int32(near), np.int32(MOST_VIEWS))
            total = min(past + gain, np.int32(_WEIGHT_CAP)) << VIEW_BITS | views
            dirty |= (held < min_weight) != (total < min_weight)
            weight[i] = total
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
    px = rotated(T_cam_map, 0, x, y, z) + T_cam_map[0, 3]
    py = rotated(T_cam_map, 1, x, y, z) + T_cam_map[1, 3]
    pz = rotated(T_cam_map, 2, x, y, z) + T_cam_map[2, 3]
    return np.float32(px), np.float32(py), np.float32(pz)


@kernel
def _average_distance(tsdf, i, value, past, gain):
    """Returns whether the distance changed."""
    old = tsdf[i]
    value = min(max(value, np.float32(-32767.0)), np.float32(32767.0))
    step = (value - np.float32(old)) * (np.float32(gain) / np.float32(past + gain))
    new = np.int16(math.floor(np.float32(old) + step + np.float32(0.5)))
    tsdf[i] = new
    return new != old


@kernel
def _average_colour(colour, i, pixel, views):
    """One more view. Returns whether the colour changed."""
    rate = np.float32(1.0) / np.float32(views + 1)
    r = _blend(colour[i, 0], pixel[0], rate)
    g = _blend(colour[i, 1], pixel[1], rate)
    b = _blend(colour[i, 2], pixel[2], rate)
    changed = (r != colour[i, 0]) | (g != colour[i, 1]) | (b != colour[i, 2])
    colour[i, 0], colour[i, 1], colour[i, 2] = r, g, b
    return changed


@kernel
def _blend(old, new, rate):
    return np.uint8(np.float32(old) + (np.float32(new) - np.float32(old)) * rate + np.float32(0.5))
