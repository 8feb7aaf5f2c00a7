# SPDX-License-Identifier: Apache-2.0
"""Positions of the tokens of a frame (specification, sections 5.1 and 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d_ros.backends.gct.architecture import SPECIAL_TOKENS, Architecture
from recon3d_ros.backends.learned.rope import Rotation, rotation_2d, rotation_nd


class Positions:
    """Rotations for images of one size. grid: patches, rows and columns."""

    def __init__(self, arch: Architecture, grid: tuple[int, int], device: torch.device) -> None:
        self.arch, self.grid = arch, grid
        rows, columns = (
            p.flatten().to(device) for p in torch.meshgrid(*map(torch.arange, grid), indexing="ij")
        )
        self._rows, self._columns = rows, columns
        self._special = torch.arange(SPECIAL_TOKENS, device=device)
        none = torch.zeros_like(self._special)
        # Special tokens stand at (0, 0), patches begin at (1, 1).
        self.frame = rotation_2d(
            torch.cat((none, rows + 1)), torch.cat((none, columns + 1)), arch.head_dim, arch.rope2d_base
        )

    def sequence(self, first: int, frames: int) -> Rotation:
        """For the tokens [frames*P] of `frames` frames, frame after frame; the first one has index `first`."""
        out = self._at(first)
        for i in range(1, frames):
            out = out.cat(self._at(first + i))
        return out

    def _at(self, frame: int) -> Rotation:
        if not self.arch.rope3d:
            return self.frame
        return rotation_nd(self._tokens(frame), self.arch.rope3d_split, self.arch.rope3d_base)

    def _tokens(self, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """Time, row and column: special token k at (t, k, k), patches from (t, 6, 6) on."""
        rows = torch.cat((self._special, self._rows + SPECIAL_TOKENS))
        columns = torch.cat((self._special, self._columns + SPECIAL_TOKENS))
        return torch.full_like(rows, frame), rows, columns
