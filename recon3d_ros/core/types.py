# SPDX-License-Identifier: Apache-2.0
"""The nouns that flow through the package. Arrays inside them are shared by reference and never written again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera

Pose = NDArray[np.float64]
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
#: By name: what a saved map is made of. Numbers, flags and text, never objects.
Arrays = Mapping[str, NDArray[Any]]
#: Distance [N] of points [N,3] to the surface of a known scene.
Distance = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Tracking(str, Enum):
    """How a pose was found, or why there is none."""

    INITIALISING = "initialising"
    TRACKING = "tracking"
    ROTATION_ONLY = "rotation_only"
    LOST = "lost"


class Scale(str, Enum):
    """What the unit of the map rests on. A map of unknown scale is not in metres."""

    UNKNOWN = "unknown"
    PRIOR = "prior"
    SENSOR = "sensor"
    LEARNED = "learned"


class Gravity(str, Enum):
    """What says that the z axis of the map points up. Where it is unknown, z is the first camera's up."""

    UNKNOWN = "unknown"
    PRIOR = "prior"
    GPS = "gps"
    IMU = "imu"
    PLANE = "plane"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image as it came from a source.

    stamp_ns: acquisition time, nanoseconds. image: uint8 [H,W,3], RGB. camera: of the image, None if not known.
    depth: float32 [h,w], metres along the optical z axis, NaN = no measurement, or None. depth_camera: of the depth
    image; None means that depth is registered to the image (same camera, resized to the depth's size).
    prior: pose map <- camera float64 4x4 from outside (odometry, TF, survey), or None. frame_id: name of the optical frame.
    position: of the camera, float64 [3], metres east, north, up of the first fix (GPS), or None. up: unit vector [3]
    against gravity in optical axes (IMU), or None.
    """

    stamp_ns: int
    image: Image
    camera: Camera | None = None
    depth: Floats | None = None
    depth_camera: Camera | None = None
    prior: Pose | None = None
    frame_id: str = "camera"
    position: NDArray[np.float64] | None = None
    up: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Join:
    """Two maps were found to show the same place and are one from now on, under the smaller of their ids.

    kept, moved: ids of the two maps. S_kept_moved: float64 4x4 similarity, coordinates of the moved map to the kept one;
    its depths and distances grow by the scale of it.
    """

    kept: int
    moved: int
    S_kept_moved: Pose

    @property
    def id(self) -> int:
        """Of the map that both are from now on."""
        return min(self.kept, self.moved)


@dataclass(frozen=True, eq=False)
class Update:
    """A backend's answer to one frame.

    Every frame is answered once with a pose (or the state that says why there is none). A keyframe whose depth takes
    longer is answered a second time, `revises` set, with the same index, its refined pose and the depth; so is a frame
    that was lost and whose pose became known later.

    index: running number of the frame since reset; it is also the id of the keyframe. stamp_ns: of the frame.
    T_map_cam: float64 4x4, camera (optical axes) to map, or None while there is no pose.
    camera: ideal pinhole camera of `depth` and `colours`. depth: float32 [h,w] along z in map units, NaN = none.
    colours: uint8 [h,w,3] RGB, seen by the pixels of `depth`. confidence: float32 [h,w] in 0..1, or None for all 1.
    reason: why the frame became a keyframe, or why it has no pose. corrections: newer poses of older keyframes.
    map_id: the connected map that the pose is in; two maps have nothing in common, neither origin nor scale. join: set
    where another map became part of this one; `corrections` then holds the keyframes that moved.
    """

    index: int
    stamp_ns: int
    T_map_cam: Pose | None
    tracking: Tracking
    scale: Scale = Scale.UNKNOWN
    gravity: Gravity = Gravity.UNKNOWN
    is_keyframe: bool = False
    reason: str = ""
    camera: Camera | None = None
    depth: Floats | None = None
    colours: Image | None = None
    confidence: Floats | None = None
    revises: bool = False
    corrections: Mapping[int, Pose] = field(default_factory=dict)
    map_id: int = 0
    join: Join | None = None


@dataclass(frozen=True, eq=False)
class Keyframe:
    """The points of one keyframe. The arrays are views on the keyframe store and read-only.

    id: index of its frame. T_map_cam: pose map <- camera, float64 4x4. camera: ideal pinhole whose pixels the points came
    from. points: float32 [N,3] in the map frame. colours: uint8 [N,3] RGB. confidence: float32 [N] in 0..1, or None.
    bbox: float32 [6], smallest then largest x, y, z of the points, where known already.
    """

    id: int
    stamp_ns: int
    T_map_cam: Pose
    camera: Camera
    points: Floats
    colours: Image
    confidence: Floats | None = None
    scale: Scale = Scale.UNKNOWN
    bbox: Floats | None = None

    def bounds(self) -> tuple[Floats, Floats]:
        """Smallest and largest corner [3] of the points; zeros when there is none."""
        if not len(self.points):
            return np.zeros(3, np.float32), np.zeros(3, np.float32)
        if self.bbox is not None:
            return self.bbox[:3], self.bbox[3:]
        # Column by column: numpy takes thirty times as long along the first axis of so narrow an array.
        low, high = ([f(column) for column in self.points.T] for f in (np.min, np.max))
        return np.array(low, np.float32), np.array(high, np.float32)


@dataclass(frozen=True, eq=False)
class MeshBlock:
    """The triangles of one region of the map.

    id: integer coordinates of the region. vertices: float32 [V,3] in the map. triangles: int32 [T,3] into vertices,
    counter-clockwise seen from outside. colours: uint8 [V,3] RGB. normals: float32 [V,3], or None where not asked for.
    """

    id: tuple[int, int, int]
    vertices: Floats
    triangles: NDArray[np.int32]
    colours: Image
    normals: Floats | None = None
