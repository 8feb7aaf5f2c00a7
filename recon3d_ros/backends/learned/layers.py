# SPDX-License-Identifier: Apache-2.0
"""Transformer layers. Attribute names are those of the published checkpoints."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d_ros.backends.learned.rope import Rotation


class Cache(Protocol):
    """What a layer remembers of earlier calls."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q [1,heads,N,dim] to what is remembered and to k, v, which it may take in."""
        ...


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        """[...,width] -> [...,out]."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """One learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[...,width] -> the same."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head attention: fused projection, optional LayerNorm of each head's query and key, optional rotation."""

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: Cache | None = None) -> Tensor:
        """[B,N,width] -> [B,N,width]; with a `cache`, B is 1 and the tokens attend to those of earlier calls too."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotation.apply(q), rotation.apply(k)
        if cache is not None:
            out = cache.attend(q, k, v)
        else:
            out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block with LayerScale on both branches."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, eps: float = 1e-5, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: Cache | None = None) -> Tensor:
        """[B,N,width] -> [B,N,width]."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation, cache))
        return x + self.ls2(self.mlp(self.norm2(x)))
