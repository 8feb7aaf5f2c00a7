# SPDX-License-Identifier: Apache-2.0
"""Where every frame was: relative to its keyframe, so that it moves when the keyframe is corrected."""

from __future__ import annotations

from collections.abc import Callable

from recon3d_ros.backends.geometric.map import Keyframe
from recon3d_ros.core.geometry import Array, inverse, pose, scale_of
from recon3d_ros.core.types import Pose


class FramePoses:
    """Frame index -> keyframe and pose relative to it; a keyframe is its own."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[Keyframe, Pose]] = {}

    def add(self, index: int, keyframe: Keyframe, T_cam_map: Pose) -> None:
        """Record the pose (map to camera) of a frame beside that of a keyframe."""
        self._frames[index] = keyframe, T_cam_map @ keyframe.T_map_cam

    def grow(self, S: Array) -> None:
        """The map was carried through a similarity 4x4: what lies between a frame and its keyframe grows with it."""
        scale = scale_of(S)
        self._frames = {
            index: (keyframe, pose(T[:3, :3], scale * T[:3, 3]))
            for index, (keyframe, T) in self._frames.items()
        }

    def bend(self, scale: Callable[[int], float]) -> None:
        """The surroundings of each keyframe grew by scale(its index)."""
        self._frames = {
            index: (keyframe, pose(T[:3, :3], scale(keyframe.index) * T[:3, 3]))
            for index, (keyframe, T) in self._frames.items()
        }

    def absorb(self, other: FramePoses) -> None:
        """Take over the frames of another."""
        self._frames |= other._frames

    def all(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame recorded, by index."""
        ordered = sorted(self._frames.items())
        return {
            index: inverse(T_cam_keyframe @ keyframe.T_cam_map)
            for index, (keyframe, T_cam_keyframe) in ordered
        }
