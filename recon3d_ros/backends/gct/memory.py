# SPDX-License-Identifier: Apache-2.0
"""What the network remembers of a sequence: the store of the global blocks, and that of the camera head, which follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType

import torch

from recon3d_ros.backends.gct.aggregator import tokens_per_frame
from recon3d_ros.backends.gct.architecture import SPECIAL_TOKENS, Architecture
from recon3d_ros.backends.gct.kv_store import Call, KeyValueStore, Mode, Shape
from recon3d_ros.backends.learned.attention import Attend, sdpa


@dataclass(frozen=True)
class MemoryShape:
    """size: height and width of the images. scale_frames: frames that are never forgotten, also the first call's.
    window: newest keyframes after them whose patches are held. iterations: of the camera head. reserve: keyframes for
    which there is room from the start. dtype: of the keys and values of the global blocks."""

    arch: Architecture
    size: tuple[int, int]
    scale_frames: int = 8
    window: int = 64
    iterations: int = 4
    reserve: int = 320
    dtype: torch.dtype = torch.float32

    @property
    def tokens(self) -> Shape:
        """Of the store of the global blocks."""
        arch, patches = self.arch, tokens_per_frame(self.arch, *self.size) - SPECIAL_TOKENS
        return Shape(
            arch.depth, arch.heads, arch.head_dim, SPECIAL_TOKENS, patches, self.scale_frames, self.window
        )

    @property
    def cameras(self) -> Shape:
        """Of the store of the camera head: one token a frame, all of them kept."""
        arch = self.arch
        return Shape(
            self.iterations * arch.camera_depth, arch.camera_heads, arch.camera_width // arch.camera_heads, 1
        )

    @property
    def bytes(self) -> int:
        """Memory of both stores."""
        return (
            self.tokens.elements(self.reserve) * self.dtype.itemsize + self.cameras.elements(self.reserve) * 4
        )


class Memory:
    """Both stores. attend: kernel of attention to the global blocks' store."""

    def __init__(self, shape: MemoryShape, device: torch.device | str = "cpu", attend: Attend = sdpa) -> None:
        self.shape = shape
        self.tokens = KeyValueStore(shape.tokens, device, shape.dtype, attend, shape.reserve)
        self.cameras = KeyValueStore(shape.cameras, device, torch.float32, sdpa, shape.reserve)

    @property
    def bytes(self) -> int:
        """Memory of both stores as they are now."""
        return self.tokens.bytes + self.cameras.bytes

    @property
    def frames(self) -> int:
        """Frames kept since the sequence began: scale frames and keyframes."""
        return self.tokens.frames

    def clear(self) -> None:
        """The next frame is the first."""
        self.tokens.clear()
        self.cameras.clear()

    def shrink(self, window: int) -> None:
        """Go on with a smaller window; its newest frames stay."""
        self.tokens.shrink(window)
        self.shape = replace(self.shape, window=window)

    def call(self, frames: int, mode: Mode) -> MemoryCall:
        """Begin a call of the network for `frames` frames."""
        tokens = self.tokens.call(frames, mode)
        try:
            return MemoryCall(tokens, self.cameras.call(frames, mode))
        except BaseException:
            tokens.rollback()
            raise


@dataclass(frozen=True)
class MemoryCall:
    """A call to both stores; see `kv_store.Call`."""

    tokens: Call
    cameras: Call

    def keep(self) -> None:
        """The frames stay."""
        self.tokens.keep()
        self.cameras.keep()

    def rollback(self) -> None:
        """The memory is as it was before the call."""
        self.tokens.rollback()
        self.cameras.rollback()

    def __enter__(self) -> MemoryCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tokens.__exit__(kind, error, trace)
        self.cameras.__exit__(kind, error, trace)
