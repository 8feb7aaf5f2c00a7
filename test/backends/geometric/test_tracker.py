# SPDX-License-Identifier: Apache-2.0
"""Tracks of a keyframe: those that are followed from frame to frame, and those that rest until the next keyframe."""

import cv2
import numpy as np
import pytest

from recon3d_ros.backends.geometric.tracker import Tracker

SHIFT = np.array([3.4, -1.6], np.float32)


def scene(moved: float = 0.0) -> np.ndarray:
    """A textured image, moved so many times by SHIFT."""
    grey = np.random.default_rng(3).uniform(0, 255, (240, 320)).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 2.5)
    grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)
    T = np.float32([[1, 0, moved * SHIFT[0]], [0, 1, moved * SHIFT[1]]])
    return cv2.warpAffine(grey, T, (320, 240), flags=cv2.INTER_CUBIC).astype(np.uint8)


def anchored(target: int = 100, rest: bool = True) -> tuple[Tracker, np.ndarray]:
    tracker = Tracker(target, 0.5)
    corners = tracker.corners(scene(), np.empty((0, 2), np.float32))
    inside = corners[((corners > 30) & (corners < (290, 210))).all(axis=1)]
    tracker.anchor(scene(), np.arange(len(inside)), inside, rest=rest)
    return tracker, inside


def test_half_of_the_tracks_aimed_for_are_followed():
    tracker, corners = anchored()
    assert len(tracker.ids) == tracker.followed == tracker.anchored == 50
    assert sorted([*tracker.ids, *tracker.resting_ids]) == list(range(len(corners)))
    assert len(anchored(rest=False)[0].ids) == len(corners)


def test_all_are_followed_where_there_are_few():
    tracker = Tracker(100, 0.5)
    tracker.anchor(scene(), np.arange(30), np.full((30, 2), 100, np.float32), rest=True)
    assert len(tracker.ids) == 30 and not len(tracker.resting_ids)


def test_tracks_that_rested_are_found_where_the_camera_has_gone():
    tracker, corners = anchored()
    for frame in (1, 2, 3):
        assert tracker.follow(scene(frame)) > 0.95
    assert tracker.since_anchor(320) == (
        pytest.approx(3 * np.linalg.norm(SHIFT) / 320, rel=0.01),
        pytest.approx(1, abs=0.1),
    )
    tracker.wake()
    assert len(tracker.ids) > 0.95 * len(corners) and not len(tracker.resting_ids)
    assert np.abs(tracker.px - corners[tracker.ids] - 3 * SHIFT).max() < 0.1
    assert np.array_equal(tracker.anchor_px, corners[tracker.ids])


def test_nothing_is_seen_of_a_keyframe_without_tracks():
    assert Tracker(100, 1.0).since_anchor(320) == (float("inf"), 0.0)
