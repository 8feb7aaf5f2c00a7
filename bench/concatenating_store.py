# SPDX-License-Identifier: Apache-2.0
"""The plain way to keep keys and values, which `bench/gct.py` measures the ring against: tensors that are put together anew
for every frame. The interface and the meaning are those of `recon3d_ros.backends.gct.kv_store`, so outputs are equal.

A layer holds keys and values [heads,frames,tokens,dim] of the frames in the window and [heads,evicted,special,dim] of those
that left it. A full window is copied three times a layer and frame: to append, to evict, and to attend."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from recon3d_ros.backends.gct.kv_store import Mode, Shape
from recon3d_ros.backends.learned.attention import Attend, sdpa


@dataclass
class Held:
    """Keys or values of one layer. frames: [heads,F,tokens,dim]; special: [heads,E,special,dim] of the evicted."""

    frames: Tensor
    special: Tensor

    def append(self, new: Tensor) -> None:
        """Frames [heads,S,tokens,dim] after those that are held."""
        self.frames = torch.cat((self.frames, new), 1)

    def evict(self, at: int) -> Tensor:
        """Frame `at` leaves, but for its special tokens; returned whole [heads,1,tokens,dim]."""
        count = self.special.shape[2]
        leaving = self.frames[:, at : at + 1].clone()
        self.special = torch.cat((self.special, leaving[:, :, :count]), 1)
        self.frames = torch.cat((self.frames[:, :at], self.frames[:, at + 1 :]), 1)
        return leaving

    def restore(self, at: int, frame: Tensor) -> None:
        """Undo `evict`."""
        self.frames = torch.cat((self.frames[:, :at], frame, self.frames[:, at:]), 1)
        self.special = self.special[:, :-1].clone()

    def tokens(self, *more: Tensor) -> Tensor:
        """All tokens [heads,M,dim], and those of the frames `more`."""
        return torch.cat([t.flatten(1, 2) for t in (self.special, self.frames, *more)], 1)


class ConcatenatingStore:
    """See `KeyValueStore`."""

    def __init__(
        self,
        shape: Shape,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attend: Attend = sdpa,
    ) -> None:
        self.shape, self.device, self.dtype, self.attend = shape, device, dtype, attend
        self.clear()

    def clear(self) -> None:
        """Forget all frames."""
        s = self.shape
        self.frames = 0
        self.layers = [
            [
                Held(
                    *(torch.empty(s.heads, 0, n, s.dim, device=self.device, dtype=self.dtype) for n in sizes)
                )
                for sizes in [(s.special + s.patches, s.special)] * 2
            ]
            for _ in range(s.layers)
        ]

    @property
    def bytes(self) -> int:
        """Memory of what is held; twice as much of a layer lives for a moment."""
        tensors = [t for layer in self.layers for held in layer for t in (held.frames, held.special)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def call(self, frames: int, mode: Mode) -> ConcatenatingCall:
        """Begin a call for `frames` frames, several only in the first."""
        return ConcatenatingCall(self, frames, mode)


class ConcatenatingCall:
    """See `kv_store.Call`."""

    def __init__(self, store: ConcatenatingStore, frames: int, mode: Mode) -> None:
        self.store, self.frames, self.mode = store, frames, mode
        self.first = store.frames
        self._is_open = True
        self._written: set[int] = set()
        self._evicted: dict[int, list[Tensor]] = {}

    @property
    def evicts(self) -> bool:
        """The window is full."""
        shape = self.store.shape
        return bool(shape.patches) and self.first >= shape.scale_frames + shape.window

    def layer(self, index: int) -> ConcatenatingLayer:
        """What layer `index` attends through."""
        return ConcatenatingLayer(self, index)

    def write(self, layer: int, k: Tensor, v: Tensor) -> list[Tensor]:
        """Take in the keys and values [1,heads,frames*P,dim], and return all that they may see."""
        pair = self.store.layers[layer]
        new = [t[0].unflatten(1, (self.frames, -1)).to(self.store.dtype) for t in (k, v)]
        if self.mode is Mode.PEEK:
            return [held.tokens(t) for held, t in zip(pair, new, strict=True)]
        for held, t in zip(pair, new, strict=True):
            held.append(t)
        self._written.add(layer)
        if self.evicts and self.mode is Mode.APPEND:
            self._evict(layer)
        return [held.tokens() for held in pair]

    def keep(self) -> None:
        """The frames stay."""
        if self.evicts and self.mode is Mode.TENTATIVE:
            for layer in self._written:
                self._evict(layer)
        self._end(self.first + self.frames)

    def rollback(self) -> None:
        """The store is as it was before the call."""
        at = self.store.shape.scale_frames
        for layer in self._written:
            for i, held in enumerate(self.store.layers[layer]):
                held.frames = held.frames[:, : -self.frames].clone()
                if layer in self._evicted:
                    held.restore(at, self._evicted[layer][i])
        self._end(self.first)

    def _evict(self, layer: int) -> None:
        at = self.store.shape.scale_frames
        self._evicted[layer] = [held.evict(at) for held in self.store.layers[layer]]

    def _end(self, frames: int) -> None:
        if not self._is_open:
            raise RuntimeError("the call has ended already")
        self._is_open = False
        self.store.frames = frames

    def __enter__(self) -> ConcatenatingCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        if kind is None and self.mode is Mode.APPEND:
            self.keep()
        else:
            self.rollback()


@dataclass(frozen=True)
class ConcatenatingLayer:
    """A layer's access to a call."""

    call: ConcatenatingCall
    index: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q [1,heads,N,dim] to all that is visible, its own k and v included."""
        keys, values = self.call.write(self.index, k, v)
        return self.call.store.attend(q.to(keys.dtype), keys[None], values[None]).to(v.dtype)
