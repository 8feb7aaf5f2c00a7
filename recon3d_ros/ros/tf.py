# SPDX-License-Identifier: Apache-2.0
"""The frames map -> odom -> body -> camera of REP-105: which transform moves when, and transforms by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import inverse, orthonormalised
from recon3d_ros.core.history import History
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.trajectory import pose_between
from recon3d_ros.core.types import Pose, Update
from recon3d_ros.ros.messages import TFMessage

#: Frames that may move, and what is kept of each: 10 s at 50 Hz. Longest gap over which a link is interpolated.
_FRAMES, _KEPT, _GAP_NS = 1000, 500, 1_000_000_000


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


@dataclass(frozen=True, eq=False)
class _Link:
    child: str
    parent: str
    stamp_ns: int
    T: Pose


def unlinked(target: str, source: str) -> str:
    """What to tell the user when two frames are not connected."""
    return (
        f"no transform links '{target}' and '{source}'; publish it on /tf_static (ros2 run tf2_ros "
        "static_transform_publisher), or on /tf where it changes"
    )


class Transforms:
    """What /tf_static and lately /tf said, and transforms between any two frames of it. A static link stands for all time.

    named: a frame that is asked for -> its name on TF. ignored: links below these frames are not taken from /tf, since this
    node places others by them. is_old: whether what has a name and a stamp (ns) was sent before time jumped. counts: links
    that could not be used, by reason.
    """

    def __init__(
        self,
        named: Callable[[str], str] = lambda frame: frame.lstrip("/"),
        ignored: Collection[str] = (),
        is_old: Callable[[str, int], bool] = lambda name, stamp_ns: False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._named = named
        self._ignored = frozenset(ignored)
        self._is_old = is_old
        self._static: dict[str, tuple[str, Pose]] = {}
        self._moving: dict[str, tuple[str, History[Pose]]] = {}

    def add(self, message: TFMessage) -> None:
        """Take the transforms of /tf_static; broken ones are counted."""
        for link in self._links(message):
            self._static[link.child] = (link.parent, link.T)

    def add_moving(self, message: TFMessage) -> None:
        """Take the transforms of /tf; broken ones, and those of more frames than are kept, are counted."""
        for link in self._links(message):
            if link.parent in self._ignored:
                continue
            if self._is_old(f"tf {link.child}", link.stamp_ns):
                self.counts["tf from before time jumped"] += 1
                continue
            known = self._moving.get(link.child)
            if known is None and len(self._moving) >= _FRAMES:
                self.counts["too many frames on /tf"] += 1
                continue
            if known is None or known[0] != link.parent:
                known = self._moving[link.child] = (link.parent, History(_KEPT))
            known[1].add(link.stamp_ns, link.T)

    def forget_moving(self) -> None:
        """Time has jumped: what moved is not known any more."""
        self._moving = {}

    def lookup(
        self, target: str, source: str, stamp_ns: int | None = None, tolerance_ns: int = 0
    ) -> Pose | None:
        """`T_target_source` at a stamp (None: the newest), or None while the two are not connected then. Every frame is
        connected to itself.

        Links of /tf are interpolated; for one that is not there yet it is waited as long as the tolerance, within which the
        nearest is taken.
        """
        when = None if stamp_ns is None else (stamp_ns, tolerance_ns)
        target, source = self._named(target), self._named(source)
        above = self._ancestors(target)
        common = next((frame for frame in self._ancestors(source) if frame in above), None)
        if common is None:
            return None
        T_common_target, T_common_source = self._up(target, common, when), self._up(source, common, when)
        if T_common_target is None or T_common_source is None:
            return None
        return inverse(T_common_target) @ T_common_source

    def _links(self, message: TFMessage) -> Iterator[_Link]:
        for link in message.transforms:
            child, parent = link.child_frame_id.lstrip("/"), link.header.frame_id.lstrip("/")
            try:
                T = pose_from_message(link.transform)
            except FrameError:
                child = ""
            if child and parent and child != parent:
                yield _Link(child, parent, stamp_ns(link), T)
            else:
                self.counts["transform invalid"] += 1

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, and so on."""
        found = [frame]
        while True:
            link = self._static.get(found[-1]) or self._moving.get(found[-1])
            if link is None or link[0] in found:  # a loop: nobody's tree, and no reason to hang
                return found
            found.append(link[0])

    def _up(self, frame: str, ancestor: str, when: tuple[int, int] | None) -> Pose | None:
        """`T_ancestor_frame`, None while it is not known at that stamp."""
        T = np.eye(4)
        while frame != ancestor:
            link = self._static.get(frame) or self._at(frame, when)
            if link is None:
                return None
            frame, T_parent_frame = link
            T = T_parent_frame @ T
        return T

    def _at(self, frame: str, when: tuple[int, int] | None) -> tuple[str, Pose] | None:
        """Parent of a moving frame, and the transform to it at a stamp, with its tolerance."""
        known = self._moving.get(frame)
        if known is None:
            return None
        parent, history = known
        if when is None:
            newest = history.newest()
            return None if newest is None else (parent, newest[1])
        history.wait(when[0], when[1] * 1e-9)
        T = pose_between(*history.around(when[0]), *when, _GAP_NS)
        return None if T is None else (parent, T)
