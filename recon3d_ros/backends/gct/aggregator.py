# SPDX-License-Identifier: Apache-2.0
"""Alternating attention: within each frame, then across the frames of the call and all that is remembered. Specification,
sections 4 and 5."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recon3d_ros.backends.gct.architecture import REGISTERS, SPECIAL_TOKENS, Architecture
from recon3d_ros.backends.gct.kv_store import Call
from recon3d_ros.backends.gct.positions import Positions
from recon3d_ros.backends.gct.vit import VisionTransformer
from recon3d_ros.backends.learned.layers import Block


class Aggregator(nn.Module):
    """Images to the tokens that the heads read."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, arch.width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, REGISTERS, arch.width))
        self.scale_token = nn.Parameter(torch.zeros(1, 2, 1, arch.width))
        self.patch_embed = VisionTransformer(arch)
        self.frame_blocks = _blocks(arch)
        self.global_blocks = _blocks(arch)
        self._positions: Positions | None = None

    def forward(self, images: Tensor, call: Call) -> list[Tensor]:
        """The outputs of the selected layers, each [S,P,2C]: the frame block's beside the global block's.

        images: [S,3,H,W] in 0..1. call: to the store of the global blocks, for S frames.
        """
        x = self._with_special_tokens(self.patch_embed(images), call)
        positions = self._positions_for(images)
        rotation = positions.sequence(call.first, call.frames)
        levels = []
        for i, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            local = frame_block(x, positions.frame)
            x = global_block(local.reshape(1, -1, local.shape[-1]), rotation, call.layer(i)).view_as(local)
            if i in self.arch.selected:
                levels.append(torch.cat((local, x), -1))
        return levels

    def _with_special_tokens(self, patches: Tensor, call: Call) -> Tensor:
        """[S,h*w,C] -> [S,P,C]. The first variant of the camera and register tokens is for the first frame of a sequence
        alone, that of the scale token for all frames of the first call."""
        first = [call.first + i == 0 for i in range(call.frames)]
        scale = [call.first == 0] * call.frames
        tokens = [
            _variants(self.camera_token, first),
            _variants(self.register_token, first),
            _variants(self.scale_token, scale),
        ]
        return torch.cat((*(t.to(patches.dtype) for t in tokens), patches), 1)

    def _positions_for(self, images: Tensor) -> Positions:
        grid = (images.shape[-2] // self.arch.patch, images.shape[-1] // self.arch.patch)
        known = self._positions
        if known is None or known.grid != grid or known.frame.cos.device != images.device:
            self._positions = known = Positions(self.arch, grid, images.device)
        return known


def tokens_per_frame(arch: Architecture, height: int, width: int) -> int:
    """Tokens of an image of that size in pixels."""
    return SPECIAL_TOKENS + (height // arch.patch) * (width // arch.patch)


def _blocks(arch: Architecture) -> nn.ModuleList:
    return nn.ModuleList(
        Block(arch.width, arch.heads, arch.mlp_ratio, qk_norm=True) for _ in range(arch.depth)
    )


def _variants(token: Tensor, first: list[bool]) -> Tensor:
    """token [1,2,n,C] -> [S,n,C]: variant 0 where `first`, else variant 1."""
    return torch.stack([token[0, 0 if is_first else 1] for is_first in first])
