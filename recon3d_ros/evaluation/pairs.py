# SPDX-License-Identifier: Apache-2.0
"""Which poses are compared: of two trajectories by their stamps, within one by how far they are apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.trajectory import Trajectory

Indices = NDArray[np.int64]

#: Pairs of which the rotation is compared, at most.
_MAX_PAIRS = 50_000
#: A pair is as far apart as asked for when it is within this share of it.
_DELTA_TOLERANCE = 0.1
_UNITS = {"f": "frames", "m": "m", "s": "s"}


@dataclass(frozen=True)
class Delta:
    """How far apart the two poses of an RPE are. unit: `f` frames, `m` metres along the true path, `s` seconds."""

    value: float = 1.0
    unit: str = "f"

    @classmethod
    def parse(cls, text: str) -> Delta:
        """The delta that a text such as `1f`, `0.5m` or `2s` names. Raises InputError for another."""
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([fms])", text.strip())
        delta = cls(float(found[1]), found[2]) if found else cls(0.0)
        if delta.value <= 0 or (delta.unit == "f" and delta.value != int(delta.value)):
            raise InputError(
                f"'{text}' is no distance of poses: give frames, metres or seconds such as 1f, 0.5m, 2s"
            )
        return delta

    def __str__(self) -> str:
        return "1 frame" if self == Delta() else f"{self.value:g} {_UNITS[self.unit]}"

    def pairs(self, positions: Array, stamps_ns: NDArray[np.int64]) -> tuple[Indices, Indices]:
        """For each pose the later one nearest to this far from it, if there is one within a tenth: indices [P], [P].
        positions: [N,3] true; stamps_ns: [N]."""
        if self.unit == "f":
            progress = np.arange(len(stamps_ns), dtype=np.float64)
        elif self.unit == "m":
            steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
            progress = np.concatenate([[0.0], np.cumsum(steps)])
        else:
            progress = (stamps_ns - stamps_ns[0]) * 1e-9
        start = np.arange(len(progress))
        right = np.clip(np.searchsorted(progress, progress + self.value), 1, len(progress) - 1)
        wanted = progress + self.value
        end = np.where(wanted - progress[right - 1] <= progress[right] - wanted, right - 1, right)
        missed = np.abs(progress[end] - wanted)
        kept = (end > start) & (missed <= _DELTA_TOLERANCE * self.value)
        return start[kept], end[kept]


def associate(stamps_ns: NDArray[np.int64], truth: Trajectory, tolerance_ns: int) -> tuple[Indices, Indices]:
    """Indices [P] of stamps and [P] of the true poses nearest to them in time, within a tolerance; of several stamps
    with the same true pose the nearest one."""
    index = truth.nearest(stamps_ns, tolerance_ns)
    mine = np.flatnonzero(index >= 0)
    theirs = index[mine]
    gaps = np.abs(truth.stamps_ns[theirs] - stamps_ns[mine])
    order = np.lexsort((gaps, theirs))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = np.diff(theirs[order]) > 0
    kept = np.sort(order[first])
    return mine[kept], theirs[kept]


def all_pairs(count: int, limit: int = _MAX_PAIRS) -> tuple[Indices, Indices]:
    """Indices of all pairs of `count` poses, the earlier first; of more than `limit` pairs as many at random, always the
    same ones."""
    if count * (count - 1) // 2 <= limit:
        first, second = np.triu_indices(count, 1)
        return first.astype(np.int64), second.astype(np.int64)
    drawn = np.random.default_rng(0).integers(0, count, (2, limit))
    drawn = np.sort(drawn[:, drawn[0] != drawn[1]], axis=0)
    return drawn[0], drawn[1]


def relative(A: Array, B: Array) -> Array:
    """inverse(A) @ B of rigid transforms [N,4,4]."""
    out = np.tile(np.eye(4), (len(A), 1, 1))
    R = A[:, :3, :3].transpose(0, 2, 1)
    out[:, :3, :3] = R @ B[:, :3, :3]
    out[:, :3, 3] = np.einsum("nij,nj->ni", R, B[:, :3, 3] - A[:, :3, 3])
    return out
