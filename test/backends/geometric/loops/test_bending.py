# SPDX-License-Identifier: Apache-2.0
"""How a closed loop bends a map, its frames and what is still under way."""

import numpy as np
import pytest

from recon3d_ros.backends.geometric.frames import FramePoses
from recon3d_ros.backends.geometric.linear import reprojection_errors
from recon3d_ros.backends.geometric.loops.closing import Closing
from recon3d_ros.backends.geometric.map import Keyframe, Map
from recon3d_ros.core.geometry import apply_similarity, inverse, pose, similarity, so3_exp

FOCAL = 500.0


def small_map():
    """Six keyframes in a row above 300 points, each sees those that are near."""
    rng = np.random.default_rng(0)
    world = Map(FOCAL)
    X = np.column_stack([rng.uniform(-1, 7, 300), rng.uniform(-1, 1, 300), rng.uniform(4, 5, 300)])
    world.place(world.allocate(300), X)
    for i in range(6):
        T = inverse(pose(so3_exp(rng.normal(0, 0.02, 3)), np.array([1.0 * i, 0.0, 0.0])))
        p = X @ T[:3, :3].T + T[:3, 3]
        uv = FOCAL * p[:, :2] / p[:, 2:]
        ids = np.flatnonzero(np.abs(X[:, 0] - i) < 1.6)
        world.keyframes.append(Keyframe(10 * i, None, T, ids, uv[ids].astype(np.float32), uv[ids]))
    return world


def moves(share):
    return similarity(
        1 + 0.05 * share, so3_exp(np.array([0.0, 0.1 * share, 0.02])), np.array([share, 0.2, 0.1])
    )


def test_what_the_keyframes_see_of_their_own_points_stays():
    world = small_map()
    closing = Closing({10 * i: moves(i / 5) for i in range(6)})
    closing.bend(world)
    last = world.keyframes[-1]
    errors = reprojection_errors(last.T_cam_map, world.points(last.ids), last.uv, FOCAL)
    assert errors.max() < 1e-9
    for k in world.keyframes:
        assert np.linalg.det(k.T_cam_map[:3, :3]) == pytest.approx(1.0)


def test_a_similarity_for_all_moves_the_whole_map_by_it():
    world, S = small_map(), moves(1.0)
    before, X = [k.T_map_cam for k in world.keyframes], world.points(np.arange(300))
    Closing({0: S}).bend(world)
    for k, T in zip(world.keyframes, before, strict=True):
        assert k.T_map_cam == pytest.approx(apply_similarity(S, T))
    seen = np.unique(np.concatenate([k.ids for k in world.keyframes]))
    assert world.points(seen) == pytest.approx(X[seen] @ S[:3, :3].T + S[:3, 3])


def test_frames_stay_where_they_were_in_the_picture_of_their_keyframe():
    world, frames, S = small_map(), FramePoses(), moves(1.0)
    beside = (
        pose(so3_exp(np.array([0.0, 0.01, 0.0])), np.array([0.3, 0.0, 0.0])) @ world.keyframes[2].T_cam_map
    )
    frames.add(23, world.keyframes[2], beside)
    closing = Closing({0: S})
    closing.bend(world)
    frames.bend(closing.scale)
    assert frames.all()[23] == pytest.approx(apply_similarity(S, inverse(beside)))
