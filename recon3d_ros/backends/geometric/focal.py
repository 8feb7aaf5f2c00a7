# SPDX-License-Identifier: Apache-2.0
"""The focal length of a camera that came without calibration: one more unknown of the bundle adjustment until it settles or
proves not to be observable (geometric specification, section A11). A camera that moves without turning shows the same
images whatever its focal length, the scene only stretches along the line of sight; then the guess stays."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np

from recon3d_ros.backends.geometric.bundle import Ints
from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.linear import found
from recon3d_ros.backends.geometric.locating import LEAST, SHARE
from recon3d_ros.backends.geometric.map import Keyframe, Map, View
from recon3d_ros.backends.geometric.pose import locate
from recon3d_ros.core.geometry import Array, inverse

log = logging.getLogger(__name__)

#: Keyframes with baseline that the first attempt needs, and after which the last one is made.
_FIRST, _LAST = 6, 20
#: It has settled when it changed by less than this share over so many keyframes.
_SETTLED, _SPAN = 0.005, 5
#: Errors of a track are alike from image to image, so the true deviation is larger than the one that independent errors
#: would give, by about this factor; to it comes what the distortion of an uncalibrated lens does to the focal length.
_CORRELATION, _DISTORTION = 5.0, 0.02
#: Relative standard deviation up to which it counts as observable, and the factors on the guess that are believed.
_OBSERVABLE, _BELIEVED = 0.08, (0.4, 2.5)


class FocalSearch:
    """Refines the focal length of a map and of the lens of its views. Dense depth waits meanwhile: depth that was computed
    with another focal length would not fit the later poses."""

    def __init__(self, world: Map, lens: Lens, frames: FramePoses) -> None:
        self.map, self.lens, self.frames = world, lens, frames
        self.guess = lens.guess
        world.focal_settled = not lens.refinable
        #: Relative standard deviation by the last attempt; NaN before it and for a calibrated camera.
        self.deviation = float("nan")
        self._recent: deque[float] = deque(maxlen=_SPAN + 1)
        self._seen: list[tuple[int, Keyframe, Ints, Array]] = []

    @property
    def observable(self) -> bool:
        """Whether the motion determined it, in this map or in one before."""
        return bool(self._recent) or self.lens.refined

    def saw(self, view: View, ids: Ints, uv: Array) -> None:
        """The tracks of a frame that is no keyframe: its pose is solved again once the focal length has settled."""
        if not self.map.focal_settled:
            self._seen.append((view.index, self.map.keyframes[-1], ids, uv))

    def step(self, view: View) -> None:
        """After a keyframe was added and adjusted: try, and take the result if the motion determines it."""
        if self.map.focal_settled:
            return
        count = sum(k.baseline for k in self.map.keyframes)
        if view.lens is not self.lens:  # another camera took over
            self._end(count)
        elif count >= _FIRST:
            self._try()
            recent = self._recent
            steady = len(recent) > _SPAN and max(recent) < (1 + _SETTLED) * min(recent)
            if steady or count >= _LAST:
                self._end(count)

    def finish(self) -> None:
        """No keyframe follows: what is known now stays."""
        if not self.map.focal_settled and len(self.map.keyframes) >= _FIRST:
            self._end(sum(k.baseline for k in self.map.keyframes))

    def statistics(self) -> dict[str, float]:
        """focal and its deviation `focal_sigma` in pixels of the tracked image, focal_ratio: to the guess, and whether the
        motion shows it; nothing for a calibrated camera."""
        if not self.lens.refinable and not self.lens.refined:
            return {}
        return {
            "focal": self.map.focal,
            "focal_ratio": self.map.focal / self.guess,
            "focal_sigma": self.deviation * self.map.focal,
            "focal_observable": float(self.observable),
        }

    def _try(self) -> None:
        trial = self.map.calibrated(self.lens.scale)
        if trial is None:
            return
        self.deviation = float(np.hypot(_CORRELATION * trial.found.sigma, _DISTORTION))
        low, high = _BELIEVED
        if self.deviation > _OBSERVABLE or not low < trial.found.focal / self.guess < high:
            return
        self.lens.stretch(trial.found.focal / self.map.focal)
        self.map.take(trial, self.lens.scale)
        self._recent.append(self.map.focal)

    def _end(self, count: int) -> None:
        self.map.focal_settled = True
        spread = 100 * self.deviation
        if self.observable:
            self.lens.refined = True
            log.info(
                "focal length %.1f px (guessed %.1f), within %.1f %%, from %d keyframes",
                self.map.focal,
                self.guess,
                spread,
                count,
            )
        else:
            log.warning(
                "the motion does not determine the focal length (within %.0f %%): the guess of %.1f px stays; turn the "
                "camera while it moves, or give --camera FILE",
                spread,
                self.guess,
            )
        self._solve_frames()

    def _solve_frames(self) -> None:
        """The poses of the frames between the keyframes, with the focal length and points of now."""
        poses = self.frames.all() if self.observable else {}
        for index, keyframe, ids, uv in self._seen:
            known = found(self.map.points(ids))
            if index not in poses or known.sum() < LEAST:
                continue
            points = self.map.points(ids[known])
            here = locate(inverse(poses[index]), points, uv[known], self.map.focal, self.lens.scale)
            if here.accepted(LEAST, SHARE):
                self.frames.add(index, keyframe, here.T_cam_map)
        self._seen.clear()
