# SPDX-License-Identifier: Apache-2.0
"""The whole network: aggregator, camera head, depth head and, where asked for, point head. Specification, section 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recon3d_ros.backends.gct.aggregator import Aggregator
from recon3d_ros.backends.gct.architecture import Architecture
from recon3d_ros.backends.gct.camera_head import CameraHead
from recon3d_ros.backends.gct.dpt_head import DptHead
from recon3d_ros.backends.gct.memory import MemoryCall
from recon3d_ros.backends.learned.activations import CONFIDENCE, GEOMETRY


@dataclass(frozen=True)
class Prediction:
    """What the network says of S frames, float32 on its device.

    pose_enc: [S,9], camera to the world of the sequence (section 8). refinements: it after each iteration; the last is
    pose_enc. depth: [S,H,W] along z, > 0, in the unit of the poses; confidence: [S,H,W], >= 1; None where not asked for.
    points: [S,H,W,3] in the world and their confidence, None without the point head.
    """

    pose_enc: Tensor
    refinements: list[Tensor]
    depth: Tensor | None = None
    confidence: Tensor | None = None
    points: Tensor | None = None
    points_confidence: Tensor | None = None


class Gct(nn.Module):
    """Images, one call after the other, to predictions; what it remembers between calls is the caller's `Memory`."""

    def __init__(self, arch: Architecture, point_head: bool = False) -> None:
        super().__init__()
        self.arch = arch
        self.aggregator = Aggregator(arch)
        self.camera_head = CameraHead(arch)
        self.depth_head = DptHead(arch, outputs=2)
        self.point_head = DptHead(arch, outputs=4) if point_head else None

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the aggregator in `dtype`; the heads stay float32 (section 12)."""
        self.aggregator.to(dtype)

    def compile_blocks(self) -> None:
        """Compile the blocks that do not touch the memory; the first calls then take a minute or more."""
        for block in (*self.aggregator.patch_embed.blocks, *self.aggregator.frame_blocks):
            block.compile()

    @property
    def precision(self) -> torch.dtype:
        """Of the aggregator."""
        return self.aggregator.camera_token.dtype

    @torch.inference_mode()
    def forward(
        self, images: Tensor, call: MemoryCall, iterations: int = 4, dense: bool = True
    ) -> Prediction:
        """Predictions for the frames of one call.

        images: float32 [S,3,H,W] in 0..1, H and W multiples of the patch size. call: to the memory, for S frames.
        dense: with depth and points; poses do not depend on them. Raises ValueError for images of another shape.
        """
        self._check(images, call)
        mixed = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision, enabled=mixed):
            levels = self.aggregator(images, call.tokens)
        levels = [level.float() for level in levels]
        refinements = self.camera_head(levels[-1][:, 0], call.cameras, iterations)
        if not dense:
            return Prediction(refinements[-1], refinements)
        size = (images.shape[-2], images.shape[-1])
        depth, confidence = activated_depth(self.depth_head(levels, size))
        points, points_confidence = None, None
        if self.point_head is not None:
            points, points_confidence = activated_points(self.point_head(levels, size))
        return Prediction(refinements[-1], refinements, depth, confidence, points, points_confidence)

    def _check(self, images: Tensor, call: MemoryCall) -> None:
        shape, patch = tuple(images.shape), self.arch.patch
        if images.ndim == 5:
            raise ValueError(
                f"images {shape}: one sequence at a time, as [S,3,H,W]; a batch is not supported"
            )
        if images.ndim != 4 or shape[1] != 3 or shape[2] % patch or shape[3] % patch:
            raise ValueError(f"images {shape}: expected [S,3,H,W] with sides that are multiples of {patch}")
        if len(images) != call.tokens.frames:
            raise ValueError(f"{len(images)} images in a call for {call.tokens.frames} frames")


def activated_depth(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps [S,2,H,W] -> depth and confidence [S,H,W]."""
    return GEOMETRY["exp"](raw[:, 0]), CONFIDENCE["expp1"](raw[:, 1])


def activated_points(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps [S,4,H,W] -> points [S,H,W,3] and confidence [S,H,W]."""
    return GEOMETRY["inv_log"](raw[:, :3].movedim(1, -1)), CONFIDENCE["expp1"](raw[:, 3])
