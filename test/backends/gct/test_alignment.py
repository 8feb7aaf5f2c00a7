# SPDX-License-Identifier: Apache-2.0
"""Windows put into the map, against the reference and against flights that were cut in two."""

import numpy as np
import pytest

from recon3d_ros.backends.gct.alignment import (
    RULES,
    Similarity,
    View,
    first_frame,
    paired_keyframes,
    robust,
)
from recon3d_ros.backends.gct.pose_encoding import decode, encode
from recon3d_ros.core.geometry import pose, rotation_angle, so3_exp

SHAPE = (6, 8)


def random_similarity(rng):
    return Similarity(float(rng.uniform(0.2, 5)), so3_exp(rng.normal(0, 1.2, 3)), rng.normal(0, 10, 3))


def inverse(S):
    return Similarity(1 / S.scale, S.R.T, -S.R.T @ S.t / S.scale)


def put(views, S):
    return [
        View(S.apply_pose(v.T_world_cam), S.apply_depth(v.depth), v.confidence, v.is_keyframe) for v in views
    ]


def flight(rng, frames, keyframe_every=1):
    """Views along a random path through a scene of random depth."""
    T, views = np.eye(4), []
    for i in range(frames):
        T = T @ pose(so3_exp(rng.normal(0, 0.2, 3)), rng.normal(0, 0.5, 3))
        depth = rng.uniform(1, 20, SHAPE).astype(np.float32)
        confidence = rng.uniform(1, 5, SHAPE).astype(np.float32)
        views.append(View(T, depth, confidence, i % keyframe_every == 0))
    return views


def cut(rng, frames=20, first=12, overlap=4, keyframe_every=1):
    """A flight as two windows, the second moved by a similarity, and that similarity, window to map."""
    whole = flight(rng, frames, keyframe_every)
    S = random_similarity(rng)
    return whole[:first], put(whole[first - overlap :], inverse(S)), S


def with_depth(view, depth):
    return View(view.T_world_cam, depth.astype(np.float32), view.confidence, view.is_keyframe)


def equal(a, b, atol=2e-5):
    return (
        np.allclose(a.scale, b.scale, rtol=atol)
        and np.allclose(a.R, b.R, atol=atol)
        and np.allclose(a.t, b.t, atol=atol)
    )


# Against the reference.


def views_of(v, window, batch, is_keyframe=None):
    T, _ = decode(v[f"{window}.pose_enc"][batch], *SHAPE)
    depth, confidence = v[f"{window}.depth"][batch, ..., 0], v[f"{window}.depth_conf"][batch]
    marks = np.ones(len(T), bool) if is_keyframe is None else is_keyframe
    return [View(T[i], depth[i], confidence[i], bool(marks[i])) for i in range(len(T))]


@pytest.fixture(scope="module")
def windows(vectors):
    return {name: tensor.numpy() for name, tensor in vectors.load("10_window_ops").items()}


def similarity_of(v, name, batch):
    return Similarity(float(v[f"{name}.s"][batch]), v[f"{name}.R"][batch], v[f"{name}.t"][batch])


def encodings(v, name, batch, views):
    """Encodings of `views` with the fields of view of a window of the vectors."""
    _, K = decode(v[f"{name}.pose_enc"][batch], *SHAPE)
    return encode(np.array([view.T_world_cam for view in views]), K, *SHAPE)


@pytest.mark.parametrize("batch", [0, 1])
def test_the_first_frame_rule_equals_the_reference(windows, vectors, batch):
    overlap = vectors.meta("10_window_ops")["first_frame_overlap"]
    found = first_frame(views_of(windows, "prev", batch), views_of(windows, "cur", batch), overlap)
    assert equal(found, similarity_of(windows, "first_frame", batch))


@pytest.mark.parametrize("batch", [0, 1])
def test_the_paired_keyframes_rule_equals_the_reference(windows, vectors, batch):
    overlap = vectors.meta("10_window_ops")["paired_overlap"]
    prev = views_of(windows, "prev", batch, windows["is_keyframe.prev"][0])
    cur = views_of(windows, "cur", batch, windows["is_keyframe.cur"][0])
    assert equal(paired_keyframes(prev, cur, overlap), similarity_of(windows, "paired", batch))


@pytest.mark.parametrize("batch", [0, 1])
def test_a_window_put_into_the_map_equals_the_reference(windows, batch):
    S = similarity_of(windows, "first_frame", batch)
    moved = put(views_of(windows, "cur", batch), S)
    assert np.abs(encodings(windows, "cur", batch, moved) - windows["warped.pose_enc"][batch]).max() < 2e-5
    depth = np.array([view.depth for view in moved])
    assert np.abs(depth - windows["warped.depth"][batch, ..., 0]).max() < 2e-5
    points = S.apply_points(windows["cur.world_points"][batch])
    assert np.abs(points - windows["warped.world_points"][batch]).max() < 2e-5


def test_a_chain_of_windows_equals_the_reference(windows, vectors):
    overlap = vectors.meta("10_window_ops")["merge_overlap"]
    merged = {"pose_enc": [], "depth": [], "world_points": []}
    prev = None
    for i, name in enumerate(("win0", "win1", "win2")):
        cur = views_of(windows, name, 0)
        S = first_frame(prev, cur, overlap) if prev else Similarity.identity()
        assert S.scale == pytest.approx(windows["merged.chunk_scales"][0, i], rel=2e-5)
        assert np.abs(pose(S.R, S.t) - windows["merged.chunk_transforms"][0, i]).max() < 2e-5
        prev = put(cur, S)
        kept = len(cur) if name == "win2" else len(cur) - overlap
        merged["pose_enc"].extend(encodings(windows, name, 0, prev)[:kept])
        merged["depth"].extend(view.depth[..., None] for view in prev[:kept])
        merged["world_points"].extend(S.apply_points(windows[f"{name}.world_points"][0])[:kept])
    for key, values in merged.items():
        assert np.abs(np.array(values) - windows[f"merged.{key}"][0]).max() < 2e-5, key


# Against flights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("keyframe_every", [1, 3])
def test_two_windows_cut_from_one_flight_are_put_back_exactly(rule, keyframe_every):
    rng = np.random.default_rng(keyframe_every)
    for _ in range(10):
        prev, cur, S = cut(rng, keyframe_every=keyframe_every)
        assert equal(rule(prev, cur, 4), S)


def test_the_first_frame_rule_looks_at_the_first_shared_frame_alone():
    prev, cur, S = cut(np.random.default_rng(0))
    spoilt = [cur[0], *put(cur[1:], random_similarity(np.random.default_rng(1)))]
    assert equal(first_frame(prev, spoilt, 4), S)


def test_the_pose_comes_from_the_last_frame_that_is_a_keyframe_of_both_windows():
    prev, cur, S = cut(np.random.default_rng(2))
    rng = np.random.default_rng(3)
    wrong = [View(random_similarity(rng).apply_pose(v.T_world_cam), v.depth, v.confidence) for v in cur]
    for last in range(4):
        mixed = [cur[j] if j == last else wrong[j] for j in range(len(cur))]
        marked = [View(v.T_world_cam, v.depth, v.confidence, j <= last) for j, v in enumerate(mixed)]
        assert equal(paired_keyframes(prev, marked, 4), S)


def test_the_scale_comes_from_the_pixels_of_all_shared_keyframes():
    prev, cur, S = cut(np.random.default_rng(4), overlap=3)
    # Two of the three frames agree; the rule that looks at the first alone is misled.
    cur[0] = with_depth(cur[0], cur[0].depth * 7)
    assert paired_keyframes(prev, cur, 3).scale == pytest.approx(S.scale, rel=1e-5)
    assert first_frame(prev, cur, 3).scale == pytest.approx(S.scale / 7, rel=1e-5)


def test_without_a_shared_keyframe_the_first_shared_frame_counts():
    prev, cur, _ = cut(np.random.default_rng(5))
    rng = np.random.default_rng(6)
    odd = [
        View(random_similarity(rng).apply_pose(v.T_world_cam), v.depth, None, j % 2 == 1)
        for j, v in enumerate(cur)
    ]
    even = [View(v.T_world_cam, v.depth, None, j % 2 == 0) for j, v in enumerate(prev)]
    expected = first_frame(even, odd, 4)
    assert equal(paired_keyframes(even, odd, 4), expected, 1e-12)
    assert equal(robust(even, odd, 4), expected, 1e-9)


def test_the_median_of_an_even_count_is_the_lower_middle_value():
    view = View(np.eye(4), np.ones((1, 4), np.float32))
    shown = View(np.eye(4), np.array([[1.0, 9.0, 3.0, 2.0]], np.float32))
    assert first_frame([shown], [view], 1).scale == 2.0


@pytest.mark.parametrize(
    ("ratio", "scale"), [(1e9, 1e3), (1e-9, 1e-3), (-2.0, 1e-3), (np.nan, 1.0), (np.inf, 1.0)]
)
@pytest.mark.parametrize("rule", [first_frame, paired_keyframes])
def test_the_scale_stays_within_bounds_and_is_one_without_depth(rule, ratio, scale):
    view = View(np.eye(4), np.ones(SHAPE, np.float32))
    assert rule([with_depth(view, view.depth * ratio)], [view], 1).scale == scale


def test_pixels_without_depth_have_no_ratio():
    rng = np.random.default_rng(7)
    prev, cur, S = cut(rng)
    holes = [np.where(rng.uniform(size=SHAPE) < 0.4, rng.choice([0.0, np.nan, np.inf]), v.depth) for v in cur]
    cur = [with_depth(v, depth) for v, depth in zip(cur, holes, strict=True)]
    for rule in RULES.values():
        assert rule(prev, cur, 4).scale == pytest.approx(S.scale, rel=1e-5)


def test_d16_robust_alignment_ignores_depth_that_either_window_distrusts():
    rng = np.random.default_rng(8)
    prev, cur, S = cut(rng, overlap=6)
    # 45 % of the pixels of each window are distrusted and wrong, so that of all ratios most are.
    for window, factor in ((prev, 10), (cur, 0.1)):
        for j, view in enumerate(window):
            confidence = rng.uniform(1, 5, SHAPE)
            bad = confidence < np.quantile(confidence, 0.45)
            window[j] = View(view.T_world_cam, np.where(bad, factor, 1) * view.depth, confidence)
    assert paired_keyframes(prev, cur, 6).scale > 1.5 * S.scale
    assert equal(robust(prev, cur, 6), S)


def test_d16_robust_alignment_averages_the_poses_of_all_shared_keyframes():
    rng = np.random.default_rng(9)
    errors = {paired_keyframes: [], robust: []}
    for _ in range(30):
        prev, cur, S = cut(rng, overlap=8)
        jitter = [pose(so3_exp(rng.normal(0, 0.05, 3)), rng.normal(0, 0.05 / S.scale, 3)) for _ in cur]
        noisy = [View(v.T_world_cam @ E, v.depth, v.confidence) for v, E in zip(cur, jitter, strict=True)]
        for rule, found in errors.items():
            R = rule(prev, noisy, 8).R
            assert np.allclose(R @ R.T, np.eye(3), atol=1e-12) and np.linalg.det(R) > 0
            found.append(rotation_angle(R @ S.R.T))
    assert np.mean(errors[robust]) < 0.6 * np.mean(errors[paired_keyframes])


def test_robust_alignment_needs_no_confidence_and_trusts_equal_confidence():
    prev, cur, S = cut(np.random.default_rng(10))
    bare = [View(v.T_world_cam, v.depth) for v in cur]
    flat = [View(v.T_world_cam, v.depth, np.ones(SHAPE, np.float32)) for v in cur]
    assert equal(robust(prev, bare, 4), S) and equal(robust(prev, flat, 4), S)


@pytest.mark.parametrize("overlap", [0, -1, 13])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_windows_that_share_nothing_cannot_be_aligned(rule, overlap):
    prev, cur, _ = cut(np.random.default_rng(11))
    with pytest.raises(ValueError, match="share"):
        rule(prev, cur, overlap)


def test_a_moved_camera_sees_the_moved_points_where_it_saw_them():
    rng = np.random.default_rng(13)
    S, T = random_similarity(rng), pose(so3_exp(rng.normal(size=3)), rng.normal(size=3))
    local = rng.uniform(1, 5, (10, 3))
    points = S.apply_points(local @ T[:3, :3].T + T[:3, 3])
    moved = S.apply_pose(T)
    again = (points - moved[:3, 3]) @ moved[:3, :3]
    assert np.allclose(again, S.scale * local)
    assert S.apply_depth(local.astype(np.float32)).dtype == np.float32
