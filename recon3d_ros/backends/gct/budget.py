# SPDX-License-Identifier: Apache-2.0
"""How large a sliding window a given memory allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from recon3d_ros.backends.gct.aggregator import tokens_per_frame
from recon3d_ros.backends.gct.dpt_head import LAST
from recon3d_ros.backends.gct.memory import MemoryShape
from recon3d_ros.core.errors import InputError

_MB = 2**20


@dataclass(frozen=True)
class Plan:
    """Memory in bytes: of the weights, of both stores, and at most of what lives while a call runs."""

    shape: MemoryShape
    weights: int
    work: int
    reason: str

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.work + self.shape.bytes

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("cache", self.shape.bytes), ("work", self.work))
        text = " + ".join(f"{name} {n / _MB:.0f}" for name, n in parts)
        return f"sliding window of {self.shape.window} keyframes ({self.reason}): {text} = {self.total / _MB:.0f} MB"


def plan(wanted: MemoryShape, weights: int, budget_mb: int) -> Plan:
    """The largest window up to the wanted one with which everything fits.

    weights: bytes of the network's parameters. budget_mb: 0 for no limit. Raises InputError when not even a window of one
    keyframe fits, with the smallest budget that would do.
    """
    work = work_bytes(wanted)
    if not budget_mb:
        return Plan(wanted, weights, work, "no memory_budget_mb is set")
    smallest = Plan(replace(wanted, window=1), weights, work, "")
    left = budget_mb * _MB - smallest.total
    if left < 0:
        height, width = wanted.size
        raise InputError(
            f"gct.memory_budget_mb is {budget_mb}: images of {width}x{height} need at least "
            f"{math.ceil(smallest.total / _MB)} (a lower gct.image_width or gct.scale_frames needs less)"
        )
    per_keyframe = replace(wanted, window=2).bytes - smallest.shape.bytes
    window = min(wanted.window, 1 + left // per_keyframe)
    why = (
        f"memory_budget_mb {budget_mb} allows {1 + left // per_keyframe}, gct.sliding_window {wanted.window}"
    )
    return Plan(replace(wanted, window=window), weights, work, why)


def work_bytes(shape: MemoryShape) -> int:
    """An upper bound of what a call of the network holds beside weights and stores: tokens of all scale frames in a block,
    or the levels of tokens and the maps of one frame at full size in a dense head."""
    arch, (height, width) = shape.arch, shape.size
    tokens = shape.scale_frames * tokens_per_frame(arch, height, width) * arch.width
    pixels = height * width
    block = tokens * (20 + 16 * shape.dtype.itemsize)
    levels = tokens * 9 * 4
    channels = 5 * (arch.dpt_features // 2) + 2 * LAST
    maps = pixels * channels * 4 + shape.scale_frames * pixels * 2 * 4 * 4
    return max(block, levels + maps)
