# SPDX-License-Identifier: Apache-2.0
"""Camera tokens to poses: a small transformer over the frames that refines a running estimate. Specification, section 7."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d_ros.backends.gct.architecture import Architecture
from recon3d_ros.backends.gct.kv_store import Call
from recon3d_ros.backends.learned.layers import Block, Mlp
from recon3d_ros.backends.learned.rope import Rotation, rotation_nd

#: Translation, quaternion (scalar last), vertical and horizontal field of view.
POSE_SIZE = 9


class CameraHead(nn.Module):
    """One token a frame; it remembers all keyframes since the start, for each iteration and block apart."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        width = arch.camera_width
        self.arch = arch
        self.trunk = nn.ModuleList(Block(width, arch.camera_heads, 4.0) for _ in range(arch.camera_depth))
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = nn.Linear(POSE_SIZE, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = Mlp(width, width // 2, POSE_SIZE)

    def forward(self, tokens: Tensor, call: Call, iterations: int) -> list[Tensor]:
        """The pose encodings [S,9] after each iteration.

        tokens: float32 [S,2C], the camera tokens of the last level. call: to the store of this head, whose layers are
        iteration x trunk depth + block.
        """
        normed = self.token_norm(tokens)[None]
        rotation = self._rotation(call, tokens.device)
        estimate: Tensor | None = None
        out = []
        for i in range(iterations):
            z = self._modulated(normed, estimate)
            for j, block in enumerate(self.trunk):
                z = block(z, rotation, call.layer(i * len(self.trunk) + j))
            change = self.pose_branch(self.trunk_norm(z))
            estimate = change if estimate is None else estimate + change
            out.append(activated_pose(estimate[0]))
        return out

    def _modulated(self, normed: Tensor, estimate: Tensor | None) -> Tensor:
        """The tokens [1,S,2C] with the running estimate worked in (adaptive LayerNorm)."""
        pose = self.embed_pose(self.empty_pose_tokens if estimate is None else estimate)
        shift, scale, gate = self.poseLN_modulation(pose).chunk(3, -1)
        plain = F.layer_norm(normed, normed.shape[-1:], eps=1e-6)
        return gate * (plain * (1 + scale) + shift) + normed

    def _rotation(self, call: Call, device: torch.device) -> Rotation | None:
        if not self.arch.camera_rope3d:
            return None
        frames = torch.arange(call.first, call.first + call.frames, device=device)
        return camera_rotation(self.arch, frames)


def camera_rotation(arch: Architecture, frames: Tensor) -> Rotation:
    """Positions (f, 0, 0) of frames with the indices [S]."""
    none = torch.zeros_like(frames)
    return rotation_nd((frames, none, none), arch.camera_rope3d_split, arch.rope3d_base)


def activated_pose(raw: Tensor) -> Tensor:
    """[...,9] with a field of view that is not negative."""
    return torch.cat((raw[..., :7], raw[..., 7:].relu()), -1)
