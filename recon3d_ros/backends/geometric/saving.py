# SPDX-License-Identifier: Apache-2.0
"""A map as arrays, and back. What a camera needs to find its place again and go on: keyframes with their observations,
points, and the latest images with their lenses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.core.packing import pack, pack_camera, part_of, unpack, unpack_camera, within
from recon3d_ros.core.types import Arrays


def save_map(world: Map, lens: Lens) -> Arrays:
    """Keyframes, points, and the lenses of their images; that of the latest image first."""
    keyframes = world.keyframes
    views = [k.view for k in keyframes if k.view is not None]
    lenses = list(dict.fromkeys([lens, *(v.lens for v in views)]))
    return {
        "points": world.points(np.arange(world.tracks)),
        "index": np.array([k.index for k in keyframes], np.int64),
        "T_cam_map": np.array([k.T_cam_map for k in keyframes]),
        "baseline": np.array([k.baseline for k in keyframes], np.bool_),
        **within("ids", pack([k.ids for k in keyframes], np.empty(0, np.int64))),
        **within("px", pack([k.px for k in keyframes], np.empty((0, 2), np.float32))),
        **within("uv", pack([k.uv for k in keyframes], np.empty((0, 2)))),
        "view_index": np.array([v.index for v in views], np.int64),
        "view_stamp_ns": np.array([v.stamp_ns for v in views], np.int64),
        "view_lens": np.array([lenses.index(v.lens) for v in views], np.int64),
        **within("view_grey", pack([v.grey.ravel() for v in views], np.empty(0, np.uint8))),
        "lenses": np.array(len(lenses)),
        **{k: a for i, each in enumerate(lenses) for k, a in within(f"lens{i}", _save_lens(each)).items()},
    }


def resume_lenses(arrays: Arrays) -> list[Lens]:
    """The lenses of a saved map, that of its latest image first."""
    return [_resume_lens(part_of(f"lens{i}", arrays)) for i in range(int(arrays["lenses"]))]


def resume_map(world: Map, lenses: Sequence[Lens], arrays: Arrays) -> None:
    """Fill a new map with a saved one. lenses: of that."""
    world.focal, world.focal_settled = lenses[0].focal, True
    world.place(world.allocate(len(arrays["points"])), arrays["points"])
    views = {view.index: view for view in _views(lenses, arrays)}
    observed = (unpack(part_of(name, arrays)) for name in ("ids", "px", "uv"))
    for index, T, baseline, ids, px, uv in zip(
        arrays["index"].tolist(), arrays["T_cam_map"], arrays["baseline"], *observed, strict=True
    ):
        world.add(Keyframe(index, views.get(index), T.copy(), ids, px, uv, bool(baseline)))


def _views(lenses: Sequence[Lens], arrays: Arrays) -> Iterator[View]:
    columns = (arrays[f"view_{name}"].tolist() for name in ("index", "stamp_ns", "lens"))
    greys = unpack(part_of("view_grey", arrays))
    for index, stamp_ns, number, grey in zip(*columns, greys, strict=True):
        lens = lenses[number]
        shape = lens.camera.height, lens.camera.width
        yield View(index, stamp_ns, None, grey.reshape(shape), lens)


def _save_lens(lens: Lens) -> Arrays:
    about = {"guess": np.array(lens.guess), "focal": np.array(lens.focal), "refined": np.array(lens.refined)}
    return {**within("camera", pack_camera(lens.given)), **about}


def _resume_lens(arrays: Arrays) -> Lens:
    lens = Lens(unpack_camera(part_of("camera", arrays)), float(arrays["guess"]))
    if arrays["focal"] != arrays["guess"]:
        lens.stretch(float(arrays["focal"] / arrays["guess"]))
    lens.refined = bool(arrays["refined"])
    return lens
