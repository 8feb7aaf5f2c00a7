# SPDX-License-Identifier: Apache-2.0
"""Minutes of flight cost what seconds cost: what the geometric backend holds and looks at does not grow with the flight."""

from unittest.mock import patch

import cv2
import numpy as np
import pytest

from recon3d_ros.backends.geometric import map as world
from recon3d_ros.backends.geometric.intake import first_lens
from recon3d_ros.backends.geometric.map import RECENT, Keyframe, Map, View
from recon3d_ros.backends.geometric.session import Session
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.params import build
from recon3d_ros.core.types import Tracking


def held(keyframes):
    """Images and observations that keyframes hold."""
    return sum(k.view is not None for k in keyframes), sum(len(k.uv) for k in keyframes)


def test_keyframes_long_past_keep_their_pose_and_tracks_alone():
    map_ = Map(100.0)
    grey = np.zeros((8, 8), np.uint8)
    for i in range(2000):
        ids = map_.allocate(10)
        view = View(i, i, None, grey, None)
        map_.add(Keyframe(i, view, np.eye(4), ids, np.zeros((10, 2), np.float32), np.zeros((10, 2))))
    assert held(map_.keyframes) == (RECENT, 10 * RECENT)
    assert len(map_.keyframes) == 2000 and all(len(k.ids) == 10 for k in map_.keyframes)


def circling(frames, camera, rounds=4):
    """Images straight down on a textured plane, flown over in circles."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (420, 420), dtype=np.uint8), (0, 0), 1.6)
    ground = cv2.equalizeHist(ground)
    for a in np.linspace(0, 2 * np.pi * rounds, frames):
        M = np.array([[1, 0, -(140 + 100 * np.cos(a))], [0, 1, -(150 + 100 * np.sin(a))]], float)
        yield np.repeat(cv2.warpAffine(ground, M, camera.size)[..., None], 3, axis=2)


@pytest.mark.slow
def test_two_thousand_frames_hold_and_adjust_no_more_than_two_hundred():
    camera = Camera(128, 96, 110.0, 110.0, 63.5, 47.5)
    config = build(
        Config,
        {
            "geometric.tracks": 80,
            "geometric.depth_width": 64,
            "geometric.depth_planes": 16,
            "keyframe.min_flow": 0.05,
        },
    )
    session = Session(first_lens(camera), config, False, Stages())
    adjusted, states, sizes = [], [], []

    def count(poses, points, *rest):
        adjusted.append((len(poses), len(points)))
        return adjust(poses, points, *rest)

    adjust = world.adjust
    with patch.object(world, "adjust", count):
        for i, image in enumerate(circling(2000, camera)):
            updates = session.step(session.view(i, i, image, camera))
            states += [u.tracking for u in updates if not u.revises]
            sizes.append((len(adjusted), *held(session.map.keyframes), len(session.current.tracker.ids)))
    session.close()
    assert states.count(Tracking.LOST) == 0
    assert len(session.map.keyframes) > 2 * RECENT
    early, late = sizes[len(sizes) // 2], sizes[-1]
    assert late[1] == RECENT and late[2] <= 1.2 * early[2] and late[3] <= 80
    half = early[0]
    for column in range(2):
        first, second = (
            np.percentile([a[column] for a in part], 95) for part in (adjusted[20:half], adjusted[half:])
        )
        assert second <= 1.2 * first
