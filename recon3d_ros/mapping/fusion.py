# SPDX-License-Identifier: Apache-2.0
"""The update of voxels from a depth image seen from a pose: each looks at the nearest pixel (Newcombe et al. 2011).

The steps go over all voxels of a block one after the other, free of branches and in 32 bits (numba makes 64 of a sum of two
integers of 32), so that they become vector code; only colours, which few voxels take, are a loop of branches."""

from __future__ import annotations

import math

import numpy as np

from recon3d_ros.mapping.band import rotated
from recon3d_ros.mapping.blocks import MOST_VIEWS, SIDE, UNIT_WEIGHT, VIEW_BITS, VOXELS
from recon3d_ros.mapping.jit import kernel

_WEIGHT_CAP = 100 * UNIT_WEIGHT
_GROUP = 8  # voxels passed over at once where none takes a colour


@kernel
def update(blocks, listed, images, view, T_cam_map, lengths, min_weight):
    """Running means over all voxels of the listed blocks: of the distance, weighted, and of the colour, over the views that
    saw the surface there. Flags blocks whose surface may differ as dirty: a distance or colour changed, or a weight crossed
    `min_weight`."""
    voxel, truncation, far, spread, widest = lengths
    size = np.int32(images[0].shape[1]), np.int32(images[0].shape[0])
    depth, colours, weights = images[0].reshape(-1), images[1].reshape(-1, 3), images[2].reshape(-1)
    band = np.float32(-truncation), np.float32(spread), np.float32(widest)
    to_share, limit, edge = np.float32(32767.0 / truncation), np.float32(far), np.float32(voxel)
    x, y, z = _offsets((T_cam_map[:3, :3] * voxel).astype(np.float32))
    pixels, deep = np.empty(VOXELS, np.int32), np.empty(VOXELS, np.float32)
    distance, gain = np.empty(VOXELS, np.float32), np.empty(VOXELS, np.float32)
    takes = np.zeros(VOXELS, np.bool_)
    for k in range(len(listed)):
        slot = listed[k]
        tsdf, weight, colour = blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot]
        origin = _origin(T_cam_map, blocks.coords[slot], voxel)
        _project(origin, x, y, z, view, size, limit, pixels, deep)
        _measure(depth, weights, pixels, deep, band, distance, gain)
        _choose(weight, distance, gain, edge, takes)
        dirty = _average_colour(colour, weight, colours, pixels, distance, edge, takes)
        dirty |= _average_distance(tsdf, weight, distance, gain, to_share, np.int32(min_weight))
        blocks.dirty[slot] |= dirty


@kernel
def _offsets(steps):
    """From the first voxel of a block to each of its voxels, in the camera frame. steps: to the next voxel along x, y, z,
    as columns."""
    out = np.empty((3, VOXELS), np.float32)
    for i in range(VOXELS):
        vx, vy, vz = np.float32(i % SIDE), np.float32(i // SIDE % SIDE), np.float32(i // (SIDE * SIDE))
        for row in range(3):
            out[row, i] = steps[row, 0] * vx + steps[row, 1] * vy + steps[row, 2] * vz
    return out[0], out[1], out[2]


@kernel
def _origin(T_cam_map, coords, voxel):
    """First voxel of a block in the camera frame."""
    x, y, z = coords[0] * SIDE * voxel, coords[1] * SIDE * voxel, coords[2] * SIDE * voxel
    px = rotated(T_cam_map, 0, x, y, z) + T_cam_map[0, 3]
    py = rotated(T_cam_map, 1, x, y, z) + T_cam_map[1, 3]
    pz = rotated(T_cam_map, 2, x, y, z) + T_cam_map[2, 3]
    return np.float32(px), np.float32(py), np.float32(pz)


@kernel
def _project(origin, x, y, z, view, size, limit, pixels, deep):
    """Number of the nearest pixel of every voxel, -1 outside the image, and depth of the voxel."""
    fx, fy = np.float32(view[0]), np.float32(view[1])
    cx, cy = np.float32(view[2] + 0.5), np.float32(view[3] + 0.5)
    width, right, bottom = size[0], np.float32(size[0]), np.float32(size[1])
    ox, oy, oz = origin
    zero = np.float32(0.0)
    for i in range(VOXELS):
        depth = oz + z[i]
        inverse_depth = np.float32(1.0) / depth
        u = fx * (ox + x[i]) * inverse_depth + cx
        v = fy * (oy + y[i]) * inverse_depth + cy
        inside = (depth > zero) & (depth <= limit) & (u >= zero) & (u < right) & (v >= zero) & (v < bottom)
        pixel = np.int32(np.int32(np.int32(v) * width) + np.int32(u))
        pixels[i] = pixel if inside else np.int32(-1)
        deep[i] = depth


@kernel
def _measure(depth, weights, pixels, deep, band, distance, gain):
    """How far the surface is behind each voxel as its pixel shows it, and the weight of that: 0 where the pixel shows
    nothing, or a surface in front of the band."""
    behind, spread, widest = band
    for i in range(VOXELS):  # on its own: nothing else keeps it from being scalar
        pixel = np.uint32(max(pixels[i], np.int32(0)))
        distance[i], gain[i] = depth[pixel], weights[pixel]
    for i in range(VOXELS):
        seen = distance[i]
        away = seen - deep[i]
        in_band = (away >= behind) | (away >= -min(spread * seen * seen, widest))
        known = (pixels[i] >= np.int32(0)) & (seen > np.float32(0.0)) & in_band
        distance[i] = away
        gain[i] = gain[i] if known else np.float32(0.0)


@kernel
def _choose(weight, distance, gain, edge, takes):
    """Which voxels take the colour of their pixel. Far in front of the surface it shows what lies behind: it colours a
    voxel only until a better one comes."""
    for i in range(VOXELS):
        is_new = weight[i] < np.uint16(1 << VIEW_BITS)
        takes[i] = (gain[i] > np.float32(0.0)) & ((abs(distance[i]) < edge) | is_new)


@kernel
def _average_colour(colour, weight, colours, pixels, distance, edge, takes):
    """One more view of the colour, counted where the surface is near. Returns whether a colour changed."""
    changed = False
    groups = takes.view(np.uint64)
    for group in range(VOXELS // _GROUP):
        if not groups[group]:
            continue
        for i in range(_GROUP * group, _GROUP * (group + 1)):
            if not takes[i]:
                continue
            held, near = np.int32(weight[i]), abs(distance[i]) < edge
            views = held & MOST_VIEWS
            changed |= _mix(colour[i], colours[np.uint32(pixels[i])], np.float32(1.0) / np.float32(views + 1))
            weight[i] = held - views + min(views + np.int32(near), np.int32(MOST_VIEWS))
    return changed


@kernel
def _mix(colour, pixel, rate):
    """Returns whether the colour changed."""
    changed = False
    for c in range(3):
        old = colour[c]
        mixed = np.float32(old) + (np.float32(pixel[c]) - np.float32(old)) * rate
        colour[c] = np.uint8(mixed + np.float32(0.5))
        changed |= colour[c] != old
    return changed


@kernel
def _average_distance(tsdf, weight, distance, gain, to_share, min_weight):
    """Weighted means of the distances; the weights grow. Returns whether a distance changed, or a weight crossed
    `min_weight`. With a gain of 0 a voxel stays as it is."""
    changed = np.int32(0)
    bits, most, cap = np.int32(VIEW_BITS), np.int32(MOST_VIEWS), np.float32(_WEIGHT_CAP)
    for i in range(VOXELS):
        held, old = np.int32(weight[i]), tsdf[i]
        value = min(max(distance[i] * to_share, np.float32(-32767.0)), np.float32(32767.0))
        total = np.float32(np.int32(held >> bits)) + gain[i]
        step = (value - np.float32(old)) * (gain[i] / max(total, np.float32(1.0)))
        new = np.int16(np.int32(math.floor(np.float32(old) + step + np.float32(0.5))))
        kept = np.int32(np.int32(np.int32(min(total, cap)) << bits) | np.int32(held & most))
        crossed = (held < min_weight) != (kept < min_weight)
        changed = np.int32(changed | np.int32(new != old) | np.int32(crossed))
        tsdf[i], weight[i] = new, np.uint16(kept)
    return changed != 0
