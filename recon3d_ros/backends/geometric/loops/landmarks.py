# SPDX-License-Identifier: Apache-2.0
"""What a keyframe keeps to be recognised by: SIFT keypoints with their points, in its own coordinates, so that they stay
true however the map is bent later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.locating import depths_near
from recon3d_ros.backends.geometric.matching import Features
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.packing import pack, part_of, unpack, within
from recon3d_ros.core.types import Arrays


@dataclass(eq=False)
class Landmarks:
    """index: of the keyframe. features: its keypoints that have a point. points: float64 [N,3] of these in camera
    coordinates, in units of the map. lens: of its image. depth: median of all that it sees."""

    index: int
    features: Features
    points: Array
    lens: Lens
    depth: float

    def grow(self, scale: float) -> None:
        """The map grew by a factor."""
        self.points = scale * self.points
        self.depth *= scale


def save_landmarks(marks: Sequence[Landmarks]) -> Arrays:
    """As arrays; all of lenses with the same focal length."""
    features = [m.features for m in marks]
    return {
        "index": np.array([m.index for m in marks], np.int64),
        "depth": np.array([m.depth for m in marks], np.float64),
        **within("px", pack([f.px for f in features], np.empty((0, 2), np.float32))),
        **within("uv", pack([f.uv for f in features], np.empty((0, 2)))),
        **within("descriptors", pack([f.descriptors for f in features], np.empty((0, 128), np.uint8))),
        **within("points", pack([m.points for m in marks], np.empty((0, 3)))),
    }


def resume_landmarks(arrays: Arrays, lens: Lens) -> list[Landmarks]:
    """Those of `save_landmarks`."""
    columns = (unpack(part_of(name, arrays)) for name in ("px", "uv", "descriptors", "points"))
    every = zip(arrays["index"].tolist(), arrays["depth"].tolist(), *columns, strict=True)
    return [
        Landmarks(index, Features(px, uv, known, np.full(len(px), -1, np.int64)), points, lens, depth)
        for index, depth, px, uv, known, points in every
    ]


def landmarks(index: int, features: Features, lens: Lens, at: Array, z: Array) -> Landmarks:
    """Of a keyframe with these keypoints, whose map points lie at centred pixels `at` [M,2] in depths z [M]."""
    depth = depths_near(at, z, features.uv, lens.scale)
    known = np.isfinite(depth)
    uv, depth = features.uv[known], depth[known]
    kept = Features(features.px[known], uv, features.descriptors[known], np.full(len(uv), -1, np.int64))
    points = np.column_stack([uv / lens.focal, np.ones(len(uv))]) * depth[:, None]
    return Landmarks(index, kept, points, lens, float(np.median(z)) if len(z) else float("nan"))
