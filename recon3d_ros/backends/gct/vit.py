# SPDX-License-Identifier: Apache-2.0
"""Patch features: a vision transformer with register tokens (DINOv2, Oquab et al. 2023; Darcet et al. 2023). Specification,
section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d_ros.backends.gct.architecture import REGISTERS, Architecture
from recon3d_ros.backends.learned.layers import Block

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class PatchEmbed(nn.Module):
    """Each patch of the image becomes a token."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, arch.width, arch.patch, stride=arch.patch)

    def forward(self, images: Tensor) -> Tensor:
        """[S,3,H,W] -> [S,h*w,C], rows of patches one after the other."""
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Images to patch features."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        side = arch.image_size // arch.patch
        self.arch = arch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, arch.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, arch.width))
        self.mask_token = nn.Parameter(torch.zeros(1, arch.width))  # of its training; part of the checkpoint
        self.patch_embed = PatchEmbed(arch)
        self.blocks = nn.ModuleList(
            Block(arch.width, arch.vit_heads, arch.mlp_ratio, eps=1e-6) for _ in range(arch.vit_depth)
        )
        self.norm = nn.LayerNorm(arch.width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """[S,3,H,W] in 0..1 -> [S,h*w,C]."""
        return self.tokens(images)[:, 1 + REGISTERS :]

    def tokens(self, images: Tensor) -> Tensor:
        """[S,3,H,W] in 0..1 -> cls, registers and patches [S,1+4+h*w,C]."""
        x = self.patch_embed(normalised(images).to(self.pos_embed.dtype))
        grid = (images.shape[-2] // self.arch.patch, images.shape[-1] // self.arch.patch)
        x = torch.cat((self.cls_token.to(x.dtype).expand(len(x), -1, -1), x), 1)
        x = x + interpolated(self.pos_embed, grid).to(x.dtype)
        registers = self.register_tokens.to(x.dtype).expand(len(x), -1, -1)
        x = torch.cat((x[:, :1], registers, x[:, 1:]), 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def normalised(images: Tensor) -> Tensor:
    """[S,3,H,W] in 0..1 -> with the mean and deviation of the training images taken out."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std


def interpolated(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """The position embedding [1,1+n*n,C] for a grid of patches: [1,1+h*w,C]; resized by output size in float32."""
    side = round((pos_embed.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return pos_embed
    square = pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat((pos_embed[:, :1].float(), resized.flatten(2).transpose(1, 2)), 1)
