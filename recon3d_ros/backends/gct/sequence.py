# SPDX-License-Identifier: Apache-2.0
"""One window of the stream: scale frames seen together, then frame after frame, of which some are kept as keyframes.
Specification, sections 11.1 and 11.2."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon3d_ros.backends.gct.flow import flow_magnitude
from recon3d_ros.backends.gct.kv_store import Mode
from recon3d_ros.backends.gct.model import Prediction
from recon3d_ros.backends.gct.pose_encoding import decode
from recon3d_ros.backends.gct.predictor import Predictor
from recon3d_ros.core.backend_params import GctParams
from recon3d_ros.core.types import Floats, Pose
from recon3d_ros.keyframing.gate import KeyframeGate


class Kind(IntEnum):
    """What a frame is to its window."""

    SCALE = 0
    KEYFRAME = 1
    BETWEEN = 2


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What the network said of a frame.

    index: of the frame in the stream. T: float64 4x4, camera to the window's world (to the map once the window is aligned),
    None when the network gave no finite numbers. pose_enc: float64 [9] as the network gave it. depth: float32 [h,w] in the
    unit of T, and its confidence (>= 1), or None where not computed. flow: pixels against the last keyframe, NaN where not
    measured. reason: why it is a keyframe.
    """

    index: int
    kind: Kind
    T: Pose | None
    pose_enc: NDArray[np.float64]
    depth: Floats | None = None
    confidence: Floats | None = None
    flow: float = float("nan")
    reason: str = ""

    @property
    def is_keyframe(self) -> bool:
        """Scale frames are keyframes."""
        return self.kind is not Kind.BETWEEN


class Sequence:
    """The frames of one window, in its own world and scale. A frame for which the network gives no finite numbers is lost:
    it is as if it had not come.

    dense_from: position in the window from which every frame gets depth, keyframe or not; before, with a fixed interval,
    only keyframes do.
    """

    def __init__(
        self, predictor: Predictor, params: GctParams, gate: KeyframeGate, dense_from: float = np.inf
    ) -> None:
        self.frames = 0
        self.keyframes = 0
        self._predictor, self._params, self._gate = predictor, params, gate
        self._dense_from = dense_from
        self._scale_frames = 0
        self._last_keyframe: NDArray[np.float64] | None = None
        predictor.memory.clear()
        gate.reset()

    @property
    def has_begun(self) -> bool:
        """The scale frames were seen."""
        return self._scale_frames > 0

    def begin(self, indices: Many[int], images: Tensor) -> list[FrameResult]:
        """The scale frames [S,3,H,W], seen together. When the network fails on them the window has not begun."""
        call, prediction = self._predictor.predict(images, Mode.APPEND)
        with call:
            results = [self._result(prediction, i, index, Kind.SCALE) for i, index in enumerate(indices)]
            if any(result.T is None for result in results):
                call.rollback()
                return [_lost(index) for index in indices]
        self.frames = self._scale_frames = len(indices)
        self._last_keyframe = results[-1].pose_enc
        return results

    def step(self, index: int, image: Tensor) -> FrameResult:
        """The next frame [3,H,W]."""
        by_rule = self._by_interval if self._params.keyframe_interval else self._by_flow
        result = by_rule(index, image)
        if result.T is None:
            return result
        self.frames += 1
        if result.kind is Kind.KEYFRAME:
            self.keyframes += 1
            self._last_keyframe = result.pose_enc
        return result

    def _by_interval(self, index: int, image: Tensor) -> FrameResult:
        is_keyframe = (self.frames - self._scale_frames) % self._params.keyframe_interval == 0
        dense = is_keyframe or self.frames >= self._dense_from
        call, prediction = self._predictor.predict(
            image[None], Mode.APPEND if is_keyframe else Mode.PEEK, dense
        )
        with call:
            kind, reason = (Kind.KEYFRAME, "interval") if is_keyframe else (Kind.BETWEEN, "")
            result = self._result(prediction, 0, index, kind, reason=reason)
            if result.T is None:
                call.rollback()
        return result

    def _by_flow(self, index: int, image: Tensor) -> FrameResult:
        call, prediction = self._predictor.predict(image[None], Mode.TENTATIVE)
        with call:
            result = self._result(prediction, 0, index, Kind.BETWEEN)
            if result.T is None:
                return result
            assert result.depth is not None and self._last_keyframe is not None
            motion = flow_magnitude(
                result.depth, result.pose_enc, self._last_keyframe, cap=self._params.flow_cap
            )
            reason = self._gate.decide(motion.flow / result.depth.shape[1], motion.visible)
            if reason:
                call.keep()
            kind = Kind.KEYFRAME if reason else Kind.BETWEEN
            return FrameResult(
                index, kind, result.T, result.pose_enc, result.depth, result.confidence, motion.flow, reason
            )

    def _result(
        self, prediction: Prediction, i: int, index: int, kind: Kind, reason: str = ""
    ) -> FrameResult:
        pose_enc = prediction.pose_enc[i].cpu().numpy().astype(np.float64)
        depth, confidence = (
            None if t is None else t[i].cpu().numpy() for t in (prediction.depth, prediction.confidence)
        )
        T = decode(pose_enc, 1, 1)[0]
        if not np.isfinite(T).all() or (depth is not None and not np.isfinite(depth).any()):
            return _lost(index)
        return FrameResult(index, kind, T, pose_enc, depth, confidence, reason=reason)


def _lost(index: int) -> FrameResult:
    return FrameResult(index, Kind.BETWEEN, None, np.full(9, np.nan))


def stacked(images: Many[Tensor]) -> Tensor:
    """Images [3,H,W] as one call's [S,3,H,W]."""
    return torch.stack(list(images))
