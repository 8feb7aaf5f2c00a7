# SPDX-License-Identifier: Apache-2.0
"""Image points followed through a video: pyramidal Lucas-Kanade from image to image, then from the last keyframe, so that
the error of a track does not add up with its age (Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker";
Shi and Tomasi, "Good features to track")."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon3d_ros.core.types import Floats, Image

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: OpenCV takes eight columns of a window at a time and the rest singly: 17 columns cost 0.4 of what 21 do.
_WINDOW, _STOP = (17, 17), (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
#: Tracks that tell where another one went.
_BESIDE = 3
#: Share of the tracks below which the expected places are not believed.
_EXPECTATION_FAILED = 0.5
#: Between photos the view changes more, which a smaller window bears better.
_PHOTO_WINDOW = (16, 16)
_QUALITY, _BLOCK = 0.005, 5


class Tracker:
    """ids int64 [N]; px float32 [N,2] in the latest image; anchor_px float32 [N,2] in the last keyframe's image. Of other
    tracks of that keyframe, which rest until they are woken, resting_ids int64 [M] and resting_px float32 [M,2] there."""

    def __init__(self, target: int, scale: float) -> None:
        self.target, self.scale = target, scale
        #: Tracks that poses need. The others make the map denser, which needs them in keyframes only.
        self.followed = target // 2
        self.ids: Ints = np.empty(0, np.int64)
        self.px: Floats = np.empty((0, 2), np.float32)
        self.anchor_px: Floats = np.empty((0, 2), np.float32)
        self.resting_ids, self.resting_px = self.ids, self.px
        #: Tracks that were followed from the last keyframe.
        self.anchored = 0
        self._grey: Image | None = None
        self._anchor_grey: Image | None = None

    def follow(self, grey: Image, expected: Floats | None = None) -> float:
        """Track into the next image, starting from where the tracks are expected, float32 [N,2], if that is known; lost
        points are dropped. Returns the share that was kept (1 if there was none)."""
        before = len(self.ids)
        if before and self._grey is not None and self._anchor_grey is not None:
            px, kept = self._moved(self._grey, self._anchor_grey, grey, expected)
            if expected is not None and kept.mean() < _EXPECTATION_FAILED:
                px, kept = self._moved(self._grey, self._anchor_grey, grey, None)
            self.px = px
            self.keep(kept)
        self._grey = grey
        return len(self.ids) / before if before else 1.0

    def wake(self) -> None:
        """Find the tracks that rest since the last keyframe in the latest image too, near where those beside them went."""
        grey, anchor = self._grey, self._anchor_grey
        if len(self.resting_ids) and len(self.ids) >= _BESIDE and grey is not None and anchor is not None:
            _, beside = cKDTree(self.anchor_px).query(self.resting_px, k=_BESIDE)
            went = np.median((self.px - self.anchor_px)[beside], axis=1)
            guess = self.resting_px + went
            px, kept = _flow_and_back(anchor, grey, self.resting_px, guess, 4.0 * self.scale)
            self.ids = np.concatenate([self.ids, self.resting_ids[kept]])
            self.px = np.concatenate([self.px, px[kept]])
            self.anchor_px = np.concatenate([self.anchor_px, self.resting_px[kept]])
        self.resting_ids, self.resting_px = self.resting_ids[:0], self.resting_px[:0]

    def _moved(
        self, before: Image, anchor: Image, now: Image, expected: Floats | None
    ) -> tuple[Floats, Mask]:
        near = flow(before, now, self.px, expected)
        return _flow_and_back(anchor, now, self.anchor_px, near, self.scale)

    def keep(self, which: Mask) -> None:
        """Drop all other tracks."""
        self.ids, self.px, self.anchor_px = self.ids[which], self.px[which], self.anchor_px[which]

    def anchor(self, grey: Image, ids: Ints, px: Floats, rest: bool = False) -> None:
        """Make `grey` the image that all later ones are tracked from, with these tracks. rest: follow no more of them than
        poses need, chosen evenly."""
        count = min(len(ids), self.followed) if rest else len(ids)
        followed = np.zeros(len(ids), np.bool_)
        followed[np.linspace(0, len(ids), count, endpoint=False).astype(np.int64)] = True
        self.ids, self.px, self.anchor_px = ids[followed], px[followed], px[followed]
        self.resting_ids, self.resting_px = ids[~followed], px[~followed]
        self.anchored = len(self.ids)
        self._grey = self._anchor_grey = grey

    def since_anchor(self, size: float) -> tuple[float, float]:
        """Median displacement against the last keyframe as a share of the image size (inf without tracks), and the share of
        its tracks that is alive."""
        if not len(self.ids):
            return float("inf"), 0.0
        displacement = np.linalg.norm(self.px - self.anchor_px, axis=1)
        return float(np.median(displacement)) / size, len(self.ids) / max(self.anchored, 1)

    def corners(self, grey: Image, px: Floats) -> Floats:
        """New corners [M,2] float32 away from px, as many as are missing from the target."""
        missing = self.target - len(px)
        radius = max(round(10 * self.scale), 3)
        if missing <= 0:
            return np.empty((0, 2), np.float32)
        mask = np.full(grey.shape, 255, np.uint8)
        for x, y in np.rint(px).astype(int).tolist():
            cv2.circle(mask, (x, y), radius, 0, -1)
        found = cv2.goodFeaturesToTrack(grey, missing, _QUALITY, radius, mask=mask, blockSize=_BLOCK)
        return np.empty((0, 2), np.float32) if found is None else np.asarray(found.reshape(-1, 2), np.float32)


def flow(a: Image, b: Image, px: Floats, expected: Floats | None = None) -> Floats:
    """Pixels [N,2] in b of the points px [N,2] of a, by four pyramid levels; points that are not
    found stay unreliable. expected: where to start, [N,2]; the same places by default."""
    start = px.copy() if expected is None else expected.copy()
    moved, _, _ = cv2.calcOpticalFlowPyrLK(
        a,
        b,
        px,
        start,
        winSize=_WINDOW,
        maxLevel=3,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(moved)


def reacquire(a: Image, b: Image, px: Floats, guess: Floats, scale: float) -> tuple[Floats, Mask]:
    """Find points px [N,2] of image a in b near the guess [N,2]: their pixels, and which were found."""
    return _flow_and_back(a, b, px, guess, 4.0 * scale, _PHOTO_WINDOW)


def _flow_and_back(
    a: Image, b: Image, px: Floats, guess: Floats, scale: float, window: tuple[int, int] = _WINDOW
) -> tuple[Floats, Mask]:
    """Refine the guess in b, track back to a; kept where the way back closes, the guess was near, and it lies in b."""
    moved, there, _ = _refine(a, b, px, guess, window)
    back, here, _ = _refine(b, a, moved, px, window)
    closed = np.abs(back - px).max(axis=1) < 0.5
    near = np.linalg.norm(moved - guess, axis=1) < 3.0 * scale
    return moved, closed & near & (there[:, 0] == 1) & (here[:, 0] == 1) & _inside(moved, b)


def _refine(
    a: Image, b: Image, px: Floats, guess: Floats, window: tuple[int, int]
) -> tuple[Floats, NDArray[np.uint8], Floats]:
    moved, status, error = cv2.calcOpticalFlowPyrLK(
        a,
        b,
        px,
        guess.copy(),
        winSize=window,
        maxLevel=1,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(moved), np.asarray(status), np.asarray(error)


def _inside(px: Floats, grey: Image) -> Mask:
    height, width = grey.shape
    return np.asarray(((px >= 0) & (px <= (width - 1, height - 1))).all(axis=1))
