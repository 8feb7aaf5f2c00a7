# SPDX-License-Identifier: Apache-2.0
"""From what the network said to updates of the map: placed, and with depth that can be trusted."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.gct.alignment import Similarity, anchored
from recon3d_ros.backends.gct.pose_encoding import camera as camera_of
from recon3d_ros.backends.gct.sequence import FrameResult, Kind
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.geometry import body_from_optical, inverse
from recon3d_ros.core.types import Image, Pose, Scale, Tracking, Update
from recon3d_ros.keyframing.gate import KeyframeGate, induced_flow

log = logging.getLogger(__name__)

#: Keyframes over which the network's focal length is compared with the calibration, and the difference worth a warning.
_COMPARED, _FOCAL_OFF = 10, 0.1

#: True where an RGB image uint8 [h,w,3] shows sky.
Sky = Callable[[Image], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Input:
    """What is remembered of a frame until it is answered. colours: as the network saw it. camera: the given one for these,
    None where none is known."""

    stamp_ns: int
    colours: Image
    camera: Camera | None


class Answers:
    """The map's side of the stream. The first camera stands at the origin and looks along x, z up."""

    def __init__(self, config: Config, sky: Sky | None = None) -> None:
        self._config, self._sky = config, sky
        self._inputs: dict[int, Input] = {}
        self._world: dict[int, Pose] = {}
        #: map <- world of the network.
        self._anchor: Similarity | None = None
        self._keyframes: set[int] = set()
        self._moved: set[int] = set()
        self._thinning = KeyframeGate(config.keyframe)
        self._last: Update | None = None
        self._focals: deque[float] = deque(maxlen=100)
        self.lost = 0

    def ask(self, index: int, given: Input) -> None:
        """A frame went to the network."""
        self._inputs[index] = given

    def updates(self, results: list[FrameResult]) -> list[Update]:
        """The map's answers to the network's."""
        out = []
        for result in results:
            if result.T is not None:
                self._note(result, result.T)
            if result.index in self._inputs:
                out.append(self._answer(result, self._inputs.pop(result.index)))
        return self._with_corrections(out)

    def poses(self) -> dict[int, Pose]:
        """Camera to map, by index of the frame."""
        return {index: self._pose(index) for index in self._world}

    def statistics(self) -> dict[str, float]:
        """lost frames; focal_ratio: the network's focal length over the calibration's."""
        out = {"lost": float(self.lost)}
        if self._focals:
            out["focal_ratio"] = float(np.median(self._focals))
        return out

    def _note(self, result: FrameResult, T: Pose) -> None:
        """Take in where the network sees a frame, the first or a later time."""
        if self._anchor is None:
            self._anchor = anchored(body_from_optical(), T, 1.0)
        self._world[result.index] = T
        if result.index in self._keyframes:
            self._moved.add(result.index)

    def _answer(self, result: FrameResult, given: Input) -> Update:
        index = result.index
        if result.T is None:
            self.lost += 1
            why = "the network gave no finite numbers"
            return Update(index, given.stamp_ns, None, Tracking.LOST, Scale.LEARNED, reason=why)
        update = Update(index, given.stamp_ns, self._pose(index), Tracking.TRACKING, Scale.LEARNED)
        if not result.is_keyframe:
            return update
        keyframe = self._keyframe(result, given, update)
        if keyframe is None:
            return update
        self._keyframes.add(index)
        return keyframe

    def _keyframe(self, result: FrameResult, given: Input, update: Update) -> Update | None:
        """The update with depth; None for a scale frame that sees what the last keyframe saw."""
        assert result.depth is not None and result.confidence is not None
        height, width = result.depth.shape
        camera = camera_of(result.pose_enc, height, width)
        if camera is None:
            return replace(update, is_keyframe=True, reason=result.reason)
        self._compare(camera, given.camera)
        trusted = np.isfinite(result.depth) & (result.confidence >= self._config.gct.min_confidence)
        if self._sky is not None:
            trusted &= ~self._sky(given.colours)
        depth = np.where(trusted, result.depth, np.float32(np.nan))
        keyframe = replace(
            update,
            is_keyframe=True,
            camera=camera,
            depth=depth,
            colours=given.colours,
            confidence=(1 - 1 / result.confidence).astype(np.float32),
        )
        reason = self._thinned(keyframe) if result.kind is Kind.SCALE else result.reason
        if not reason:
            return None
        self._last = keyframe
        return replace(keyframe, reason=reason)

    def _thinned(self, keyframe: Update) -> str:
        """Scale frames follow each other closely: the reason why one is worth its points, or ""."""
        last = self._last
        if last is None:
            return self._thinning.decide(0.0)
        assert last.depth is not None and last.camera is not None
        assert last.T_map_cam is not None and keyframe.T_map_cam is not None
        return self._thinning.decide(
            *induced_flow(last.depth, last.camera, inverse(keyframe.T_map_cam) @ last.T_map_cam)
        )

    def _compare(self, found: Camera, given: Camera | None) -> None:
        if given is None:
            return
        self._focals.append(found.fx / given.fx)
        ratio = float(np.median(self._focals))
        if len(self._focals) == _COMPARED and abs(ratio - 1) > _FOCAL_OFF:
            log.warning(
                "the network finds %.0f %% of the calibrated focal length: is the calibration that of this camera?",
                100 * ratio,
            )

    def _pose(self, index: int) -> Pose:
        assert self._anchor is not None
        return self._anchor.apply_pose(self._world[index])

    def _with_corrections(self, out: list[Update]) -> list[Update]:
        """The first update also says how older keyframes moved."""
        answered = {u.index for u in out}
        moved = {index: self._pose(index) for index in self._moved - answered}
        if not out or not moved:
            return out
        self._moved.clear()
        return [replace(out[0], corrections=moved), *out[1:]]
