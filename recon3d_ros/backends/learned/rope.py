# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: pairs of channels of a query or key turn by an angle that grows with the token's position
(Su et al., "RoFormer", 2021), here with positions of two or three axes. Angles are computed when they are needed, so no
table limits the length of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rotation:
    """Turns of the channel pairs of all tokens. cos, sin: float32 [N,dim/2].

    halves: into how many equal parts the channels are split before they are paired, first half of a part with its second;
    0: neighbouring channels are pairs.
    """

    cos: Tensor
    sin: Tensor
    halves: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """Turn x [...,N,dim]."""
        if not self.halves:
            # Neighbours are the parts of a complex number: one pass over memory instead of seven.
            pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
            return torch.view_as_real(pairs * self._turn).flatten(-2)
        a, b = x.unflatten(-1, (self.halves, 2, -1)).unbind(-2)
        cos, sin = (t.unflatten(-1, (self.halves, -1)) for t in (self.cos, self.sin))
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -2).reshape(x.shape)

    @cached_property
    def _turn(self) -> Tensor:
        """complex64 [N,dim/2]."""
        return torch.complex(self.cos, self.sin)

    def cat(self, other: Rotation) -> Rotation:
        """These tokens, then those of `other`."""
        return Rotation(torch.cat((self.cos, other.cos)), torch.cat((self.sin, other.sin)), self.halves)


def angles(positions: Tensor, channels: int, base: float) -> Tensor:
    """float64 [N,channels/2]: position x base^(-2j/channels) of positions [N]."""
    exponent = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
    return positions.to(torch.float64)[:, None] * base**-exponent


def rotation_2d(rows: Tensor, columns: Tensor, dim: int, base: float) -> Rotation:
    """The first half of the channels turns with the row, the second with the column. rows, columns: [N]."""
    turn = torch.cat([angles(p, dim // 2, base) for p in (rows, columns)], -1)
    return Rotation(turn.cos().float(), turn.sin().float(), halves=2)


def rotation_nd(positions: Sequence[Tensor], split: Sequence[int], base: float) -> Rotation:
    """Neighbouring channels are pairs; `split` channels turn with each of the `positions` [N]."""
    turn = torch.cat([angles(p, n, base) for p, n in zip(positions, split, strict=True)], -1)
    return Rotation(turn.cos().float(), turn.sin().float())
