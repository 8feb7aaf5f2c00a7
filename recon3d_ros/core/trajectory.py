# SPDX-License-Identifier: Apache-2.0
"""A stamped list of poses, and its text form of the TUM RGB-D benchmark: `seconds tx ty tz qx qy qz qw` per line."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import (
    Array,
    interpolated,
    pose,
    quaternion_from_rotation,
    rotation_from_quaternion,
)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """stamps_ns int64 [N], rising; poses float64 [N,4,4], camera (optical axes) to map."""

    stamps_ns: NDArray[np.int64]
    poses: Array

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def positions(self) -> Array:
        """Camera centres [N,3]."""
        return self.poses[:, :3, 3]

    @property
    def length(self) -> float:
        """Length of the path through the camera centres, map units."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())

    def at(self, stamp_ns: int, tolerance_ns: int) -> Array | None:
        """The pose whose stamp is nearest to `stamp_ns`, None if none lies within the tolerance."""
        i = self.nearest(np.array([stamp_ns]), tolerance_ns)[0]
        return None if i < 0 else self.poses[i]

    def nearest(self, stamps_ns: NDArray[np.int64], tolerance_ns: int) -> NDArray[np.int64]:
        """Index [M] of the pose nearest in time to each stamp, -1 where none lies within the tolerance."""
        if not len(self):
            return np.full(len(stamps_ns), -1, dtype=np.int64)
        right = np.clip(np.searchsorted(self.stamps_ns, stamps_ns), 0, len(self) - 1)
        left = np.clip(right - 1, 0, None)
        closer_left = np.abs(self.stamps_ns[left] - stamps_ns) < np.abs(self.stamps_ns[right] - stamps_ns)
        index = np.where(closer_left, left, right)
        return np.where(np.abs(self.stamps_ns[index] - stamps_ns) <= tolerance_ns, index, -1)


def recorded(stamps_ns: NDArray[np.int64], poses: Array) -> Trajectory:
    """The trajectory of stamps [N], in the order in which they came, and their poses [N,4,4]. Where time went back, it is
    as on a tape: what was recorded later replaces what lay between its first and its last stamp."""
    passes = [0, *(np.flatnonzero(np.diff(stamps_ns) <= 0) + 1), len(stamps_ns)]
    kept = np.ones(len(stamps_ns), dtype=bool)
    for first, end in pairwise(passes[1:]):
        before = stamps_ns[:first]
        kept[:first] &= (before < stamps_ns[first]) | (before > stamps_ns[end - 1])
    order = np.flatnonzero(kept)[np.argsort(stamps_ns[kept])]
    return Trajectory(stamps_ns[order], poses[order])


def pose_between(
    before: tuple[int, Array] | None,
    after: tuple[int, Array] | None,
    stamp_ns: int,
    tolerance_ns: int,
    gap_ns: int,
) -> Array | None:
    """Pose at a stamp from its stamped neighbours: interpolated when they are no more than `gap_ns` apart, else the nearest
    one within the tolerance, else None."""
    if after is not None and after[0] == stamp_ns:
        return after[1]
    if before is not None and after is not None and after[0] - before[0] <= gap_ns:
        return interpolated(before[1], after[1], (stamp_ns - before[0]) / (after[0] - before[0]))
    known = [item for item in (after, before) if item is not None]
    nearest = min(known, key=lambda item: abs(item[0] - stamp_ns), default=None)
    return None if nearest is None or abs(nearest[0] - stamp_ns) > tolerance_ns else nearest[1]


def to_ns(seconds: str) -> int:
    """Nanoseconds of a decimal number of seconds, without the rounding a float would bring."""
    whole, _, fraction = seconds.partition(".")
    if not fraction.isdigit() or not whole.lstrip("+-").isdigit():
        return round(float(seconds) * 1e9)
    sign = -1 if whole.startswith("-") else 1
    return int(whole) * 10**9 + sign * int(fraction[:9].ljust(9, "0"))


def read_tum(path: str | Path) -> Trajectory:
    """Read a TUM trajectory; comment lines and lines with NaN are passed over. Raises InputError naming a bad line."""
    path = Path(path)
    stamps: list[int] = []
    poses: list[Array] = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read trajectory {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            values = np.array([float(v) for v in fields[1:8]])
            if np.isnan(values).any():
                continue
            poses.append(pose(rotation_from_quaternion(values[3:7]), values[:3]))
            stamps.append(to_ns(fields[0]))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}:{number}: not a line of 'seconds tx ty tz qx qy qz qw' ({error})"
            ) from error
    order = np.argsort(np.array(stamps, dtype=np.int64), kind="stable")
    return Trajectory(np.array(stamps, dtype=np.int64)[order], np.array(poses).reshape(-1, 4, 4)[order])


def format_tum(trajectory: Trajectory) -> str:
    """The TUM text of a trajectory, one line a pose, stamps to the nanosecond, poses to full precision."""
    lines = ["# seconds tx ty tz qx qy qz qw (camera to map, optical axes)"]
    for stamp, T in zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True):
        values = (*T[:3, 3], *quaternion_from_rotation(T[:3, :3]))
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} " + " ".join(f"{v:.12g}" for v in values))
    return "\n".join(lines) + "\n"
