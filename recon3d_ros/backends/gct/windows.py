# SPDX-License-Identifier: Apache-2.0
"""The stream as a chain of windows. The network was trained on 320 views: beyond, it begins anew with frames of the window
before, and the shared frames tell how the new window lies in the map. Windows open and close while frames arrive.
Specification, section 11.3 and D8."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from recon3d_ros.backends.gct.alignment import RULES, Similarity, View, anchored
from recon3d_ros.backends.gct.predictor import Predictor
from recon3d_ros.backends.gct.sequence import FrameResult, Sequence, stacked
from recon3d_ros.core.backend_params import GctParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.keyframing.gate import KeyframeGate

log = logging.getLogger(__name__)

#: Views that the network saw together in its training.
TRAINED = 320


@dataclass(frozen=True)
class WindowRule:
    """When a window ends and how much it shares with the next. frames: its length with a fixed interval, else None.
    keyframes: those after the scale frames that end it, else None. Both None: it never ends."""

    overlap: int
    frames: int | None = None
    keyframes: int | None = None

    @classmethod
    def of(cls, params: GctParams) -> WindowRule:
        """Raises InputError for windows too short to go on from."""
        scale, interval, size = params.scale_frames, params.keyframe_interval, params.window_size
        overlap = params.overlap_size or scale
        if params.overlap_keyframes and interval:
            overlap = max(scale, params.overlap_keyframes * interval)
        if not size:
            return cls(overlap)
        if size <= scale:
            raise InputError(f"gct.window_size must exceed gct.scale_frames ({scale}) or be 0; got {size}")
        frames = scale + (size - scale) * interval if interval else size
        if overlap >= frames:
            raise InputError(
                f"windows of {frames} frames cannot share {overlap}: lower gct.overlap_size or overlap_keyframes"
            )
        return cls(overlap, frames, None) if interval else cls(overlap, None, size - scale)

    def closes(self, window: Sequence) -> bool:
        """The window has all its frames."""
        return window.frames == self.frames or (
            self.keyframes is not None and window.keyframes >= self.keyframes
        )

    def shared(self, frames: int, scale_frames: int) -> int:
        """How many of the last frames of a window of `frames` frames the next one begins with."""
        return self.overlap if self.frames else min(self.overlap, frames - scale_frames)


class Windows:
    """Frames one at a time in, results in the map out. Each frame is answered once; where a new window overlaps the one
    before, its first frames are answered a second time, with the new window's word.

    every_depth: give depth for all frames, not only where it is needed.
    """

    def __init__(
        self, predictor: Predictor, params: GctParams, gate: KeyframeGate, every_depth: bool = False
    ) -> None:
        self.rule = WindowRule.of(params)
        self._predictor, self._params, self._gate = predictor, params, gate
        self._every_depth = every_depth
        self._warned = False
        self._images: deque[tuple[int, Tensor]] = deque(maxlen=self.rule.overlap)
        self._tail: deque[FrameResult] = deque(maxlen=self.rule.overlap)
        self.similarities: list[Similarity] = []
        self._open([])

    @property
    def count(self) -> int:
        """Windows begun."""
        return len(self.similarities)

    def step(self, index: int, image: Tensor) -> list[FrameResult]:
        """The next frame [3,H,W]; indices rise by one. Returns what became known, oldest first."""
        out = []
        if self._window.has_begun and self.rule.closes(self._window):
            shared = self.rule.shared(self._window.frames, self._params.scale_frames)
            again = list(self._images)[-shared:]
            self._open([i for i, _ in again])
            for i, im in again:
                out += self._feed(i, im)
        out += self._feed(index, image)
        if not self._warned and self._predictor.memory.frames > TRAINED:
            self._warned = True
            log.warning(
                "more than %d keyframes in one window: poses may degrade; see gct.window_size", TRAINED
            )
        return self._placed(out)

    def finish(self) -> list[FrameResult]:
        """No frame follows: what waits for more scale frames is seen as it is."""
        return self._placed(self._begin()) if self._pending else []

    def _open(self, shared: list[int]) -> None:
        """Begin a window with frames that the one before has seen too."""
        dense_from = 0.0 if self._every_depth else np.inf
        if self.rule.frames and not self._every_depth:
            dense_from = self.rule.frames - self.rule.overlap
        self._window = Sequence(self._predictor, self._params, self._gate, dense_from)
        self._shared = shared
        self._images.clear()
        self._pending: list[tuple[int, Tensor]] = []
        self._unplaced: list[FrameResult] = []
        self._similarity: Similarity | None = None

    def _feed(self, index: int, image: Tensor) -> list[FrameResult]:
        if not self._window.has_begun:
            self._pending.append((index, image))
            return self._begin() if len(self._pending) == self._params.scale_frames else []
        result = self._window.step(index, image)
        if result.T is not None:
            self._images.append((index, image))
        return [result]

    def _begin(self) -> list[FrameResult]:
        pending, self._pending = self._pending, []
        indices, images = zip(*pending, strict=True)
        results = self._window.begin(indices, stacked(images))
        if self._window.has_begun:
            self._images.extend(pending)
        else:
            log.warning("the network gave no finite numbers for frames %d to %d", indices[0], indices[-1])
        return results

    def _placed(self, results: list[FrameResult]) -> list[FrameResult]:
        """Results of the window, in the map, as soon as it is known how it lies there."""
        self._unplaced += results
        if self._similarity is None:
            if len(self._unplaced) < max(len(self._shared), 1):
                return []
            self._similarity = self._aligned()
        # A frame that the window before has placed and this one lost keeps the place it has.
        out = [
            placed(r, self._similarity)
            for r in self._unplaced
            if r.T is not None or r.index not in self._shared
        ]
        self._unplaced, self._shared = [], []
        self._tail.extend(r for r in out if r.T is not None)
        return out

    def _aligned(self) -> Similarity | None:
        """How the window lies in the map; None while it has no pose."""
        seen = [r for r in self._unplaced if r.T is not None]
        if not seen:
            return None
        before = {r.index: r for r in self._tail}
        # With a fixed interval, frames between keyframes have no depth at the beginning of a window.
        pairs = [(before[r.index], r) for r in seen if r.index in before and r.depth is not None]
        if pairs:
            prev, cur = ([_view(r) for r in side] for side in zip(*pairs, strict=True))
            similarity = RULES[self._params.alignment](prev, cur, len(pairs))
        elif before:
            log.warning(
                "window %d shares no frame with the one before: it goes on from the last pose", self.count
            )
            similarity = anchored(self._tail[-1].T, seen[0].T, self.similarities[-1].scale)  # type: ignore[arg-type]
        else:
            similarity = Similarity.identity()
        self.similarities.append(similarity)
        return similarity


def placed(result: FrameResult, similarity: Similarity | None) -> FrameResult:
    """A window's result in the map."""
    if result.T is None or similarity is None:
        return result
    depth = None if result.depth is None else similarity.apply_depth(result.depth)
    return replace(result, T=similarity.apply_pose(result.T), depth=depth)


def _view(result: FrameResult) -> View:
    assert result.T is not None and result.depth is not None
    return View(result.T, result.depth, result.confidence, result.is_keyframe)
