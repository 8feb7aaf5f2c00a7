# SPDX-License-Identifier: Apache-2.0
"""Tokens to dense maps (Ranftl et al., "Vision transformers for dense prediction", 2021). Specification, section 9."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d_ros.backends.gct.architecture import SPECIAL_TOKENS, Architecture

#: Channels before the last layer, and the strength of the position field.
LAST, _FIELD = 32, 0.1


class ResidualUnit(nn.Module):
    """Two convolutions beside a rectified path: the residual is relu(x), as the weights were trained with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,c,a,b] -> the same."""
        x = x.relu()
        return self.conv2(self.conv1(x).relu()) + x


class Fusion(nn.Module):
    """Joins a coarse map with the next finer level."""

    def __init__(self, channels: int, has_skip: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        if has_skip:
            self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(self, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """[B,c,a,b], with the level [B,c,a,b] that joins, resized to `size`."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # The 1x1 convolution and the interpolation commute; this way round it has fewer pixels to do.
        x = self.out_conv(self.resConfUnit2(x))
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


class Scratch(nn.Module):
    """The convolutions after the levels have their sizes."""

    def __init__(self, arch: Architecture, outputs: int) -> None:
        super().__init__()
        features = arch.dpt_features
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(c, features, 3, padding=1, bias=False) for c in arch.dpt_channels
        )
        self.refinenet1 = Fusion(features)
        self.refinenet2 = Fusion(features)
        self.refinenet3 = Fusion(features)
        self.refinenet4 = Fusion(features, has_skip=False)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, LAST, 3, padding=1), nn.ReLU(), nn.Conv2d(LAST, outputs, 1)
        )


class DptHead(nn.Module):
    """Four levels of tokens to a map; the last of its `outputs` channels is the confidence."""

    def __init__(self, arch: Architecture, outputs: int) -> None:
        super().__init__()
        c0, c1, _, c3 = arch.dpt_channels
        self.patch = arch.patch
        self.norm = nn.LayerNorm(2 * arch.width)
        self.projects = nn.ModuleList(nn.Conv2d(2 * arch.width, c, 1) for c in arch.dpt_channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(c0, c0, 4, stride=4),
                nn.ConvTranspose2d(c1, c1, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c3, c3, 3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(arch, outputs)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Raw maps [S,outputs,H,W] of the levels [S,P,2C] of images of `size` (H, W)."""
        # A frame at a time: maps at full size are the largest tensors of the whole network.
        return torch.cat(
            [self._frame([level[i : i + 1] for level in levels], size) for i in range(len(levels[0]))]
        )

    def _frame(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        l1, l2, l3, l4 = (self._level(i, level, size) for i, level in enumerate(levels))
        s = self.scratch
        x = s.refinenet4(l4, None, l3.shape[2:])
        x = s.refinenet3(x, l3, l2.shape[2:])
        x = s.refinenet2(x, l2, l1.shape[2:])
        x = s.refinenet1(x, l1, [2 * n for n in l1.shape[2:]])
        x = F.interpolate(s.output_conv1(x), size=size, mode="bilinear", align_corners=True)
        return s.output_conv2(with_position_field(x, size))

    def _level(self, index: int, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        grid = (size[0] // self.patch, size[1] // self.patch)
        x = self.norm(tokens[:, SPECIAL_TOKENS:]).transpose(1, 2).unflatten(2, grid)
        x = self.resize_layers[index](with_position_field(self.projects[index](x), size))
        return getattr(self.scratch, f"layer{index + 1}_rn")(x)


def with_position_field(x: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Adds to x [B,c,a,b] what tells each pixel where it lies in the image of size (H, W)."""
    out = torch.empty_like(x)
    parts = zip(
        x.chunk(2, 1),
        position_field(x.shape[1], x.shape[2:], image_size, x.device),
        out.chunk(2, 1),
        strict=True,
    )
    for part, field, target in parts:
        torch.add(part, field, out=target)
    return out


@lru_cache(maxsize=64)
def position_field(
    channels: int, grid: tuple[int, int], image_size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """float32 [c/2,1,b] and [c/2,a,1]: sines and cosines of the column, and of the row, both in units of the image's
    diagonal. The first is for the first half of the channels, the second for the others."""
    aspect = image_size[1] / image_size[0]
    diagonal = (aspect * aspect + 1) ** 0.5
    across = _waves(grid[1], aspect / diagonal, channels // 2)[:, None, :]
    down = _waves(grid[0], 1 / diagonal, channels // 2)[:, :, None]
    return (_FIELD * across.float()).to(device), (_FIELD * down.float()).to(device)


def _waves(count: int, span: float, channels: int) -> Tensor:
    """float64 [channels,count] along an axis from -span to span, at the centres of its cells."""
    edge = span * (count - 1) / count
    at = torch.linspace(-edge, edge, count, dtype=torch.float64)
    frequency = 100.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
    turn = frequency[:, None] * at
    return torch.cat((turn.sin(), turn.cos()))
