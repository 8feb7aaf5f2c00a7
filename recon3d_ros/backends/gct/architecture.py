# SPDX-License-Identifier: Apache-2.0
"""The sizes of the network. They are part of a checkpoint, not of the user's configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from recon3d_ros.core.errors import InputError

#: camera, registers and scale: the tokens of a frame before its patches.
REGISTERS = 4
SPECIAL_TOKENS = REGISTERS + 2


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network; the defaults are those of the public checkpoints (specification, section 2).

    image_size: side of the square image for which the position embedding is stored, pixels. selected: aggregator layers
    whose outputs go to the heads, 0-based. rope3d_split: channels of a head that rotate with time, row and column.
    rope3d: rotate in the global blocks with time as well; without, they rotate as the frame blocks do.
    """

    image_size: int = 518
    patch: int = 14
    width: int = 1024
    heads: int = 16
    depth: int = 24
    mlp_ratio: float = 4.0
    selected: tuple[int, ...] = (4, 11, 17, 23)
    vit_depth: int = 24
    vit_heads: int = 16
    camera_depth: int = 4
    camera_heads: int = 16
    dpt_features: int = 256
    dpt_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    rope2d_base: float = 100.0
    rope3d_base: float = 10000.0
    rope3d_split: tuple[int, int, int] = (20, 22, 22)
    rope3d: bool = True
    camera_rope3d: bool = False
    camera_rope3d_split: tuple[int, int, int] = (40, 44, 44)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head of the aggregator."""
        return self.width // self.heads

    @property
    def camera_width(self) -> int:
        """Channels of the camera head: a frame block's output beside a global block's."""
        return 2 * self.width

    def to_json(self) -> str:
        """As text for the metadata of a safetensors file (key `architecture`)."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Architecture:
        """The inverse of `to_json`, from parsed JSON. Raises InputError for names that are not known."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"architecture of the weights: unknown entry '{unknown[0]}'")
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)  # type: ignore[arg-type]
