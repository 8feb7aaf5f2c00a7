# SPDX-License-Identifier: Apache-2.0
"""The keyframes that frames are aligned with, and the search for a lost camera among them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.rgbd.features import NOISE, places, pose_from_tracks
from recon3d_ros.backends.rgbd.registration import Surface, Tracks
from recon3d_ros.backends.rgbd.view import View
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, inverse, transform
from recon3d_ros.core.packing import pack, part_of, unpack, within
from recon3d_ros.core.types import Arrays, Floats, Pose

#: Keyframes remembered (about 2 MB each); the oldest is forgotten first.
CAPACITY = 64
#: Keyframes a frame is aligned with.
NEIGHBOURS = 4
#: ORB features of a keyframe, and how many must agree before a lost camera is taken for found.
FEATURES, FOUND = 500, 25


@dataclass(frozen=True, eq=False)
class Entry:
    """A keyframe: its surface, and ORB descriptors uint8 [N,32] with their points float64 [N,3] in the map."""

    surface: Surface
    descriptors: NDArray[np.uint8]
    points: Array


class LocalMap:
    """Keyframes by age. The newest is `last`."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=CAPACITY)
        self._orb = cv2.ORB.create(FEATURES)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> Surface:
        """The newest keyframe."""
        return self._entries[-1].surface

    def clear(self) -> None:
        """Forget all keyframes."""
        self._entries.clear()

    def add(self, view: View, T_map_cam: Pose) -> Surface:
        """Make a keyframe of a view with depth."""
        assert view.small is not None
        surface = Surface.fitted(view.small, view.small_camera, T_map_cam)
        pixels, descriptors = self._describe(view.grey)
        _, points, known = places(pixels, view.camera, surface.depth, T_map_cam)
        self._entries.append(Entry(surface, descriptors[known], points))
        return surface

    def saved(self) -> Arrays:
        """All keyframes. Normals are rounded to half precision, far below their noise."""
        surfaces = [entry.surface for entry in self._entries]
        cameras = [(c.width, c.height, c.fx, c.fy, c.cx, c.cy) for c in (s.camera for s in surfaces)]
        return {
            "cameras": np.array(cameras, np.float64),
            "T_map_cam": np.array([s.T_map_cam for s in surfaces]),
            **within("depth", pack([s.depth.ravel() for s in surfaces], np.empty(0, np.float32))),
            **within(
                "normals",
                pack([s.normals.astype(np.float16).ravel() for s in surfaces], np.empty(0, np.float16)),
            ),
            **within(
                "descriptors", pack([e.descriptors for e in self._entries], np.empty((0, 32), np.uint8))
            ),
            **within("points", pack([e.points for e in self._entries], np.empty((0, 3)))),
        }

    @staticmethod
    def resumed(arrays: Arrays) -> LocalMap:
        """The keyframes that were saved."""
        world = LocalMap()
        columns = (unpack(part_of(name, arrays)) for name in ("depth", "normals", "descriptors", "points"))
        for intrinsics, T, depth, normals, descriptors, points in zip(
            arrays["cameras"].tolist(), arrays["T_map_cam"], *columns, strict=True
        ):
            width, height = round(intrinsics[0]), round(intrinsics[1])
            surface = Surface(
                Camera(width, height, *intrinsics[2:]),
                depth.reshape(height, width),
                normals.astype(np.float32).reshape(height, width, 3),
                T.copy(),
            )
            world._entries.append(Entry(surface, descriptors, points))
        return world

    def near(self, T_map_cam: Pose, points: Floats) -> list[Surface]:
        """The newest keyframe and those that see most of `points` [N,3] (of the camera at that pose)."""
        if len(self._entries) <= NEIGHBOURS:
            return [entry.surface for entry in self._entries]
        sample = transform(T_map_cam, points[:: max(1, len(points) // 200)].astype(np.float64))
        older = [entry.surface for entry in self._entries][:-1]
        seen = [_share_in_view(surface, sample) for surface in older]
        # Of two that see the same the older one has drifted less.
        order = np.argsort(-np.round(seen, 1), kind="stable")[: NEIGHBOURS - 1]
        return [self.last, *(older[i] for i in order)]

    def locate(self, view: View) -> Pose | None:
        """Pose map <- camera of a view by its ORB features, from the keyframe most like it; None if none is."""
        pixels, descriptors = self._describe(view.grey)
        best: Tracks | None = None
        for entry in self._entries:
            at, to = self._match(descriptors, entry.descriptors)
            if len(at) >= FOUND and (best is None or len(at) > len(best.points)):
                observed = view.camera.unproject(pixels[at].astype(np.float64))
                best = Tracks(entry.points[to], observed, NOISE / view.camera.fx)
        return None if best is None else pose_from_tracks(best, FOUND)

    def _describe(self, grey: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.uint8]]:
        keypoints, descriptors = self._orb.detectAndCompute(grey, None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
        return np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2), descriptors

    def _match(
        self, descriptors: NDArray[np.uint8], others: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of pairs whose second best is clearly worse (Lowe's ratio)."""
        if len(descriptors) < 2 or len(others) < 2:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        pairs = self._matcher.knnMatch(descriptors, others, k=2)
        good = [(a.queryIdx, a.trainIdx) for a, b in pairs if a.distance < 0.8 * b.distance]
        table = np.array(good, dtype=np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]


def _share_in_view(surface: Surface, points: Array) -> float:
    pixels = surface.camera.project(transform(inverse(surface.T_map_cam), points))
    inside = (pixels > -0.5) & (pixels < np.array(surface.camera.size) - 0.5)
    return float(inside.all(axis=1).mean()) if len(points) else 0.0
