# SPDX-License-Identifier: Apache-2.0
"""The frames map -> odom -> body -> camera of REP-105: which transform moves when, and static transforms by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import inverse, orthonormalised
from recon3d_ros.core.messages import pose_from_message
from recon3d_ros.core.types import Pose, Update
from recon3d_ros.ros.messages import TFMessage


class MapToOdom:
    """Splits camera poses in the map into `T_map_odom` and a pose in odom. Corrections of the map move `T_map_odom` alone,
    so that what flies by odom never sees a jump."""

    def __init__(self) -> None:
        self.T_map_odom: Pose = np.eye(4)
        self._newest: tuple[int, Pose] | None = None
        self._T_odom_last: Pose | None = None
        self._anew = False

    def follow(self, update: Update) -> None:
        """Take an update's corrections in: the newest keyframe stands for where the map has moved."""
        if self._newest is not None:
            identity, before = self._newest
            now = update.corrections.get(identity)
            if now is not None:
                self.T_map_odom = orthonormalised(now @ inverse(before) @ self.T_map_odom)
                self._newest = (identity, now)
        is_newer = self._newest is None or update.index >= self._newest[0]
        if update.is_keyframe and is_newer and update.T_map_cam is not None:
            self._newest = (update.index, update.T_map_cam)

    def in_odom(self, T_map_x: Pose) -> Pose:
        """A pose in the map as one in odom."""
        if self._anew and self._T_odom_last is not None:
            self.T_map_odom = orthonormalised(T_map_x @ inverse(self._T_odom_last))
        self._anew = False
        self._T_odom_last = inverse(self.T_map_odom) @ T_map_x
        return self._T_odom_last

    def elsewhere(self) -> MapToOdom:
        """For a map that has nothing in common with this one: its first pose is put where the last one was in odom."""
        other = MapToOdom()
        other._T_odom_last, other._anew = self._T_odom_last, True
        return other


class StaticTransforms:
    """What /tf_static said so far, and transforms between any two frames of it."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Pose]] = {}

    def add(self, message: TFMessage) -> None:
        """Take the transforms of a message; broken ones are passed over."""
        for transform in message.transforms:
            try:
                T = pose_from_message(transform.transform)
            except FrameError:
                continue
            self._parents[transform.child_frame_id.lstrip("/")] = (transform.header.frame_id.lstrip("/"), T)

    def lookup(self, target: str, source: str) -> Pose | None:
        """`T_target_source`, or None while the two are not connected. Every frame is connected to itself."""
        above_target, above_source = self._chain(target), self._chain(source)
        common = next((frame for frame in above_source if frame in above_target), None)
        if common is None:
            return None
        return inverse(above_target[common]) @ above_source[common]

    def _chain(self, frame: str) -> Mapping[str, Pose]:
        """Ancestor -> `T_ancestor_frame`, nearest first, the frame itself included."""
        T = np.eye(4)
        chain = {frame: T}
        while frame in self._parents:
            parent, T_parent_frame = self._parents[frame]
            if parent in chain:  # a loop: nobody's tree, and no reason to hang
                break
            T = T_parent_frame @ T
            chain[parent] = T
            frame = parent
        return chain
