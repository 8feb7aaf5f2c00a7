# SPDX-License-Identifier: Apache-2.0
"""A map as arrays, and back. What a camera needs to find its place again and go on: keyframes with their observations,
points, the latest images, and what looks alike. Its pixels count with the lens of the views."""

from __future__ import annotations

import numpy as np

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.core.packing import pack, pack_camera, part_of, unpack, unpack_camera, within
from recon3d_ros.core.types import Arrays


def save_lens(lens: Lens, focal: float) -> Arrays:
    """A lens. focal: pixels of the map, to which it brings its camera."""
    about = {"guess": np.array(lens.guess), "focal": np.array(focal), "refined": np.array(lens.refined)}
    return {**within("camera", pack_camera(lens.given)), **about}


def resume_lens(arrays: Arrays) -> Lens:
    """The lens of `save_lens`."""
    lens = Lens(unpack_camera(part_of("camera", arrays)), float(arrays["guess"]))
    if arrays["focal"] != arrays["guess"]:
        lens.stretch(float(arrays["focal"] / arrays["guess"]))
    lens.refined = bool(arrays["refined"])
    return lens


def save_map(world: Map, lens: Lens) -> Arrays:
    """Keyframes and points. Images of other cameras than that of the lens are left out."""
    keyframes = world.keyframes
    views = [k.view for k in keyframes if k.view is not None and k.view.lens is lens]
    tracks = world.allocate(0)
    height, width = lens.camera.height, lens.camera.width
    return {
        "points": world.points(np.arange(world.tracks)),
        "index": np.array([k.index for k in keyframes], np.int64),
        "T_cam_map": np.array([k.T_cam_map for k in keyframes]),
        "baseline": np.array([k.baseline for k in keyframes], np.bool_),
        **within("ids", pack([k.ids for k in keyframes], tracks)),
        **within("px", pack([k.px for k in keyframes], np.empty((0, 2), np.float32))),
        **within("uv", pack([k.uv for k in keyframes], np.empty((0, 2)))),
        "view_index": np.array([v.index for v in views], np.int64),
        "view_stamp_ns": np.array([v.stamp_ns for v in views], np.int64),
        "view_grey": np.array([v.grey for v in views], np.uint8).reshape(-1, height, width),
    }


def resume_map(world: Map, lens: Lens, arrays: Arrays) -> None:
    """Fill a new map."""
    views = {
        int(index): View(int(index), int(stamp), None, grey, lens)
        for index, stamp, grey in zip(
            arrays["view_index"], arrays["view_stamp_ns"], arrays["view_grey"], strict=True
        )
    }
    world.focal, world.focal_settled = lens.focal, True
    world.place(world.allocate(len(arrays["points"])), arrays["points"])
    observed = (unpack(part_of(name, arrays)) for name in ("ids", "px", "uv"))
    for index, T, baseline, ids, px, uv in zip(
        arrays["index"].tolist(), arrays["T_cam_map"], arrays["baseline"], *observed, strict=True
    ):
        world.add(Keyframe(index, views.get(index), T.copy(), ids, px, uv, bool(baseline)))
