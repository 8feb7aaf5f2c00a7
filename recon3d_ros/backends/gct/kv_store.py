# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the frames so far. Specification, section 6.1.

One buffer a layer holds them so that all that a query may see is one slice, and attention reads it in place:

    [ free | special tokens, newest frame first | scale frames | window of frames, a ring | spare ]
                                                ^ base

Special tokens grow to the left of `base` and stay; patch tokens lie in slots of one frame each to the right, and the slot
of the oldest window frame is written anew when it is evicted. The spare slot takes a frame that may not stay (peek,
tentative), or the frame that a normal call evicts, so that every call can be undone. That costs one slot's copy a keyframe
once the window is full; the cache itself is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType

import torch
from torch import Tensor

from recon3d_ros.backends.learned.attention import Attend, sdpa


class Mode(Enum):
    """What becomes of the frame of a call: APPEND evicts the oldest frame of a full window, then attends, and the frame
    stays. PEEK leaves no trace. TENTATIVE attends before the eviction, and whether the frame stays is decided after."""

    APPEND = "append"
    PEEK = "peek"
    TENTATIVE = "tentative"


@dataclass(frozen=True)
class Shape:
    """layers x heads x dim, and the tokens of a frame: `special` ones that are kept for good, then `patches`, kept of the
    first `scale_frames` and of the `window` newest frames after them."""

    layers: int
    heads: int
    dim: int
    special: int
    patches: int = 0
    scale_frames: int = 0
    window: int = 0

    @property
    def slots(self) -> int:
        """Frames whose patches have room, the spare slot included."""
        return self.scale_frames + self.window + 1 if self.patches else 0

    def elements(self, reserve: int) -> int:
        """Numbers in all buffers with room for the special tokens of `reserve` frames."""
        return 2 * self.layers * self.heads * self.dim * (reserve * self.special + self.slots * self.patches)


class KeyValueStore:
    """Frames are counted as they are kept: `frames` is also the time index of the next one.

    reserve: frames whose special tokens have room from the start; the room doubles where more come, layer by layer.
    """

    def __init__(
        self,
        shape: Shape,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attend: Attend = sdpa,
        reserve: int = 320,
    ) -> None:
        self.shape = shape
        self.attend = attend
        self.frames = 0
        self._open: Call | None = None
        size = 2, shape.heads, reserve * shape.special + shape.slots * shape.patches, shape.dim
        self._buffers = [torch.empty(size, device=device, dtype=dtype) for _ in range(shape.layers)]

    @property
    def bytes(self) -> int:
        """Memory of the buffers."""
        return sum(b.numel() * b.element_size() for b in self._buffers)

    @property
    def window_frames(self) -> int:
        """Frames of the window whose patches are held."""
        return min(max(self.frames - self.shape.scale_frames, 0), self.shape.window)

    def clear(self) -> None:
        """Forget all frames; a call under way is void."""
        self.frames = 0
        self._open = None

    def call(self, frames: int, mode: Mode) -> Call:
        """Begin a call for `frames` frames, several only in the first. It ends as a context manager, or with `keep` or
        `rollback`; until then no other may begin."""
        if self._open is not None:
            raise RuntimeError("a call to the store is still open")
        room = self.shape.scale_frames + self.shape.window if self.shape.patches else frames
        if frames < 1 or (frames > 1 and self.frames) or frames > room:
            raise ValueError(f"{frames} frames in one call to a store with {self.frames} frames")
        self._grow(self.frames + frames)
        self._open = Call(self, frames, mode)
        return self._open

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values that the next frame will see, views [heads,M,dim]."""
        slots = min(self.frames, self.shape.scale_frames + self.shape.window)
        return self.view(layer, self.frames, slots)

    def view(self, layer: int, frames: int, slots: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the special tokens of `frames` frames and of the first `slots` slots."""
        base = self._base(layer)
        visible = self._buffers[layer][
            :, :, base - frames * self.shape.special : base + slots * self.shape.patches
        ]
        return visible[0], visible[1]

    def slot(self, layer: int, slot: int) -> Tensor:
        """The keys and values [2,heads,patches,dim] of one slot."""
        return self._buffers[layer][:, :, self._range(layer, slot)]

    def special(self, layer: int, frame: int) -> Tensor:
        """The keys and values [2,heads,special,dim] of a frame's special tokens."""
        begin = self._base(layer) - (frame + 1) * self.shape.special
        return self._buffers[layer][:, :, begin : begin + self.shape.special]

    def slot_of(self, frame: int) -> int:
        """Where the patches of a frame lie while it is held."""
        window = self.shape.window
        return (
            frame
            if frame < self.shape.scale_frames
            else self.shape.scale_frames + (frame - self.shape.scale_frames) % window
        )

    def shrink(self, window: int) -> None:
        """Go on with a smaller window: its newest frames stay. Layer by layer, so that no second store is needed; when
        there is no memory even for the first layer, the store is as it was."""
        old = self.shape
        if not 1 <= window <= old.window or self._open is not None:
            raise ValueError(f"window of {old.window} frames cannot become {window}")
        scale = old.scale_frames
        kept = range(max(scale, self.frames - window), self.frames)
        moves = [(self.slot_of(f), scale + (f - scale) % window) for f in kept]
        for layer, buffer in enumerate(self._buffers):
            smaller = _resized(buffer, (window - old.window) * old.patches)
            lasting = slice(self._range(layer, scale).start)
            smaller[:, :, lasting] = buffer[:, :, lasting]
            for source, target in moves:
                smaller[:, :, self._range(layer, target)] = buffer[:, :, self._range(layer, source)]
            self._buffers[layer] = smaller
        self.shape = replace(old, window=window)

    def closed(self, frames: int) -> None:
        """A call has ended; the store holds `frames` frames."""
        self.frames = frames
        self._open = None

    def _base(self, layer: int) -> int:
        """Where special tokens end and slots begin."""
        return self._buffers[layer].shape[2] - self.shape.slots * self.shape.patches

    def _range(self, layer: int, slot: int) -> slice:
        """The tokens of a slot in a buffer."""
        begin = self._base(layer) + slot * self.shape.patches
        return slice(begin, begin + self.shape.patches)

    def _grow(self, frames: int) -> None:
        """Double the room for special tokens until those of `frames` frames fit. Each layer has a base of its own, so the
        store stays whole when memory ends halfway."""
        special = self.shape.special
        for layer, buffer in enumerate(self._buffers):
            base = room = self._base(layer)
            while room < frames * special:
                room = max(2 * room, special)
            if room > base:
                larger = _resized(buffer, room - base)
                larger[:, :, room - base :] = buffer
                self._buffers[layer] = larger


def _resized(buffer: Tensor, tokens: int) -> Tensor:
    """An empty buffer for that many tokens more."""
    return buffer.new_empty((*buffer.shape[:2], buffer.shape[2] + tokens, buffer.shape[3]))


class Call:
    """One call of the network to a store. As a context manager it keeps the frames of a call that appends and drops those
    of any other, unless `keep` or `rollback` was said; an exception rolls back."""

    def __init__(self, store: KeyValueStore, frames: int, mode: Mode) -> None:
        self.store, self.frames, self.mode = store, frames, mode
        self.first = store.frames
        capacity = store.shape.scale_frames + store.shape.window
        #: The window is full: the oldest frame's slot is the one that this frame takes, at once or when it is kept.
        self.evicts = bool(store.shape.patches) and self.first >= capacity
        self._written: set[int] = set()
        self._slots = min(self.first + frames, capacity + 1)
        self._target = self.first
        if self.evicts and mode is Mode.APPEND:
            self._slots, self._target = capacity, store.slot_of(self.first)
        elif self.evicts:
            self._target = capacity

    def layer(self, index: int) -> LayerCache:
        """What layer `index` attends through."""
        return LayerCache(self, index)

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the keys and values [1,heads,frames*P,dim] of this call's frames, and return all that they may see."""
        store, special = self.store, self.store.shape.special
        if self.evicts and self.mode is Mode.APPEND:
            self._move(layer, self._target, self._spare)
        self._written.add(layer)
        for i, pair in enumerate(
            zip(*(t[0].unflatten(1, (self.frames, -1)).unbind(1) for t in (k, v)), strict=True)
        ):
            for kind, tokens in enumerate(pair):
                store.special(layer, self.first + i)[kind] = tokens[:, :special]
                if store.shape.patches:
                    store.slot(layer, self._target + i)[kind] = tokens[:, special:]
        return store.view(layer, self.first + self.frames, self._slots)

    def keep(self) -> None:
        """The frames stay; what they push out of the window is evicted."""
        if self.mode is Mode.PEEK:
            raise RuntimeError("the frame of a peek cannot be kept")
        self._demand_open()
        if self.evicts and self.mode is Mode.TENTATIVE:
            for layer in self._written:
                self._move(layer, self._spare, self.store.slot_of(self.first))
        self.store.closed(self.first + self.frames)

    def rollback(self) -> None:
        """The store is as it was before the call."""
        self._demand_open()
        if self.evicts and self.mode is Mode.APPEND:
            for layer in self._written:
                self._move(layer, self._spare, self._target)
        self.store.closed(self.first)

    @property
    def is_open(self) -> bool:
        """Neither kept nor rolled back yet."""
        return self.store._open is self

    @property
    def _spare(self) -> int:
        return self.store.shape.slots - 1

    def _demand_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("the call has ended already")

    def _move(self, layer: int, source: int, target: int) -> None:
        self.store.slot(layer, target).copy_(self.store.slot(layer, source))

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_open:
            return
        if kind is None and self.mode is Mode.APPEND:
            self.keep()
        else:
            self.rollback()


@dataclass(frozen=True)
class LayerCache:
    """A layer's access to a call."""

    call: Call
    index: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q [1,heads,N,dim] to all that is visible, its own k and v included."""
        keys, values = self.call.write(self.index, k, v)
        return self.call.store.attend(q.to(keys.dtype), keys[None], values[None]).to(v.dtype)
