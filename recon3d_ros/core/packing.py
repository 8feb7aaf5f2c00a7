# SPDX-License-Identifier: Apache-2.0
"""What a saved map is made of, as arrays by name: parts in parts, lists of arrays, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.types import Arrays


def within(name: str, arrays: Arrays) -> Arrays:
    """Arrays as a part of others; `part_of` gives them back."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def part_of(name: str, arrays: Arrays) -> Arrays:
    """The arrays that are within `name`."""
    start = f"{name}."
    return {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}


def pack(rows: Sequence[NDArray[Any]], like: NDArray[Any]) -> Arrays:
    """Arrays of different lengths [Ni,...] as one. like: an empty one, for when there is none."""
    return {"rows": np.concatenate([like, *rows]), "counts": np.array([len(r) for r in rows], np.int64)}


def unpack(arrays: Arrays) -> list[NDArray[Any]]:
    """The arrays that were packed; they own their memory."""
    ends = np.cumsum(arrays["counts"])
    starts = ends - arrays["counts"]
    return [arrays["rows"][a:b].copy() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def pack_camera(camera: Camera) -> Arrays:
    """A camera as arrays."""
    c = camera
    values = np.array([c.width, c.height, c.fx, c.fy, c.cx, c.cy, *c.distortion])
    return {"values": values, "model": np.array(c.model), "estimated": np.array(c.estimated)}


def unpack_camera(arrays: Arrays) -> Camera:
    """The camera of `pack_camera`."""
    width, height, fx, fy, cx, cy, *distortion = arrays["values"].tolist()
    about = str(arrays["model"]), tuple(distortion), bool(arrays["estimated"])
    return Camera(int(width), int(height), fx, fy, cx, cy, *about)
