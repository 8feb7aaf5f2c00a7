# SPDX-License-Identifier: Apache-2.0
"""Every frame of a stream in windows is answered, in its place and in time, whatever the settings."""

from __future__ import annotations

import contextlib
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct.alignment import RULES  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.predictor import Predictor  # noqa: E402
from recon3d_ros.backends.gct.sequence import Kind  # noqa: E402
from recon3d_ros.backends.gct.windows import WindowRule, Windows  # noqa: E402
from recon3d_ros.core.backend_params import GctParams  # noqa: E402
from recon3d_ros.core.config import KeyframeParams  # noqa: E402
from recon3d_ros.core.errors import InputError  # noqa: E402
from recon3d_ros.keyframing.gate import KeyframeGate  # noqa: E402

SIZE = (28, 42)
#: About every second frame of `own_frames` moves that far.
KEYFRAMES = KeyframeParams(min_flow=0.2, max_gap=6, min_alive=0.0)
PARAMS = GctParams(scale_frames=3, sliding_window=4, window_size=0)


def chain(model, params, keyframe=KEYFRAMES, every_depth=False):
    memory = Memory(MemoryShape(model.arch, SIZE, params.scale_frames, params.sliding_window, 2, 16))
    return Windows(Predictor(model, memory, iterations=2), params, KeyframeGate(keyframe), every_depth)


def answers(windows, frames):
    """What each frame's arrival made known, and what the end did."""
    return [windows.step(i, image) for i, image in enumerate(frames)] + [windows.finish()]


def by_window(results):
    """The results of each window: one begins where indices go back."""
    groups = []
    for r in results:
        if not groups or r.index <= groups[-1][-1].index:
            groups.append([])
        groups[-1].append(r)
    return groups


def flat(lists):
    return [r for results in lists for r in results]


def random_params(rng):
    return replace(
        PARAMS,
        scale_frames=rng.randint(1, 4),
        keyframe_interval=rng.randint(0, 4),
        window_size=rng.randint(0, 10),
        overlap_size=rng.randint(0, 8),
        overlap_keyframes=rng.choice((0, 0, 1, 2, 3)),
        alignment=rng.choice(sorted(RULES)),
    )


def expected_overlap(params):
    if params.overlap_keyframes and params.keyframe_interval:
        return max(params.scale_frames, params.overlap_keyframes * params.keyframe_interval)
    return params.overlap_size or params.scale_frames


def is_refused(params):
    """Windows that could not go on, by the specification (D8)."""
    scale, size = params.scale_frames, params.window_size
    frames = scale + (size - scale) * (params.keyframe_interval or 1)
    return bool(size) and (size <= scale or expected_overlap(params) >= frames)


def test_exactly_windows_that_could_not_go_on_are_refused():
    rng, refused = random.Random(0), 0
    for _ in range(2000):
        params = random_params(rng)
        if is_refused(params):
            refused += 1
            with pytest.raises(InputError, match=r"^[^\n]+$"):
                WindowRule.of(params)
        else:
            WindowRule.of(params)
    assert 200 < refused < 1800


def assert_in_time(steps, frames, scale):
    """After frame i, all frames up to i - (scale - 1) have an answer; the end brings the rest."""
    known = set()
    for i, results in enumerate(steps[:-1]):
        known |= {r.index for r in results}
        assert known >= set(range(i - scale + 2)) and max(known, default=0) <= i
    assert known | {r.index for r in steps[-1]} == set(range(frames))


def assert_in_order(windows, params):
    """Each window is a run of frames, begun by its scale frames; the next one starts where the rule says."""
    scale, size, overlap = params.scale_frames, params.window_size, expected_overlap(params)
    for group in windows:
        assert [r.index for r in group] == list(range(group[0].index, group[0].index + len(group)))
        assert [r.kind is Kind.SCALE for r in group] == [i < scale for i in range(len(group))]
    for group, after in itertools.pairwise(windows):
        start, end = group[0].index, group[-1].index + 1
        if params.keyframe_interval:
            assert len(group) == scale + (size - scale) * params.keyframe_interval
            assert after[0].index == end - overlap
        else:
            assert sum(r.kind is Kind.KEYFRAME for r in group) == size - scale
            assert group[-1].kind is Kind.KEYFRAME
            assert after[0].index == max(end - overlap, start + scale)


def assert_joined(windows, alignment):
    """The frame at which a window is anchored has the pose that the window before gave it."""
    for group, after in itertools.pairwise(windows):
        before = {r.index: r for r in group}
        pairs = [(before[r.index], r) for r in after if r.index in before]
        keyframes = [(a, b) for a, b in pairs if a.is_keyframe and b.is_keyframe]
        a, b = keyframes[-1] if keyframes and alignment == "keyframes" else pairs[0]
        np.testing.assert_allclose(b.T, a.T, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_output_ids_are_those_of_the_frames_for_random_settings(own_tiny, own_frames, seed):
    rng = random.Random(seed)
    params = random_params(rng)
    while is_refused(params):
        params = random_params(rng)
    count = rng.randint(1, 30)
    steps = answers(chain(own_tiny, params), own_frames[:count])
    results, windows = flat(steps), by_window(flat(steps))
    newest = {r.index: r for r in results}
    assert sorted(newest) == list(range(count))
    assert all(r.T is not None and np.isfinite(r.T).all() for r in results)
    repeated = sum(a[-1].index - b[0].index + 1 for a, b in itertools.pairwise(windows))
    assert len(results) == count + repeated
    assert_in_time(steps, count, params.scale_frames)
    assert_in_order(windows, params)
    if params.alignment != "robust":
        assert_joined(windows, params.alignment)


def test_d2_two_windows_give_results(own_tiny, own_frames):
    windows = chain(own_tiny, replace(PARAMS, window_size=8, keyframe_interval=1))
    results = flat(answers(windows, own_frames[:12]))
    assert windows.count == 2
    assert [r.index for r in results] == [*range(8), *range(5, 12)]
    assert all(np.isfinite(r.T).all() and np.isfinite(r.depth).all() for r in results)


@pytest.mark.parametrize("window, overlap", [(8, 3), (8, 6), (4, 3)])
def test_d8_no_frame_is_lost_in_flow_mode(own_tiny, own_frames, window, overlap):
    windows = chain(own_tiny, replace(PARAMS, window_size=window, overlap_size=overlap))
    results = flat(answers(windows, own_frames[:24]))
    assert windows.count > 1
    assert sorted({r.index for r in results}) == list(range(24))


@pytest.mark.parametrize(
    "window, overlap, interval", [(5, 6, 0), (3, 3, 0), (4, 6, 1), (3, 3, 1), (2, 3, 1), (4, 5, 2)]
)
def test_d8_an_overlap_as_long_as_the_window_is_refused(own_tiny, window, overlap, interval):
    params = replace(PARAMS, window_size=window, overlap_size=overlap, keyframe_interval=interval)
    with pytest.raises(InputError, match=r"gct\.window_size must exceed|cannot share"):
        chain(own_tiny, params)


def test_a_window_without_end_has_one_world(own_tiny, own_frames):
    windows = chain(own_tiny, replace(PARAMS, keyframe_interval=2))
    results = flat(answers(windows, own_frames))
    assert [r.index for r in results] == list(range(48))
    assert windows.count == 1 and windows.similarities[0].scale == 1.0


def test_a_stream_shorter_than_the_scale_frames_is_answered_at_its_end(own_tiny, own_frames):
    steps = answers(chain(own_tiny, replace(PARAMS, scale_frames=4)), own_frames[:2])
    assert [len(s) for s in steps] == [0, 0, 2]
    assert all(r.kind is Kind.SCALE and np.isfinite(r.T).all() for r in steps[-1])


def test_a_last_window_of_one_new_frame_is_answered_at_the_end(own_tiny, own_frames):
    # The first frame after the scale frames is a keyframe and ends the window, of which the next one shares that frame.
    steps = answers(chain(own_tiny, replace(PARAMS, window_size=4)), own_frames[:5])
    assert [[r.index for r in s] for s in steps] == [[], [], [0, 1, 2], [3], [], [3, 4]]


def test_the_depth_of_shared_keyframes_agrees_after_alignment(own_tiny, own_frames):
    windows = chain(own_tiny, replace(PARAMS, window_size=8, keyframe_interval=1))
    a, b = by_window(flat(answers(windows, own_frames[:12])))
    ratios = np.concatenate([(x.depth / y.depth).ravel() for x, y in zip(a[5:], b[:3], strict=True)])
    assert windows.similarities[1].scale != 1.0
    assert np.sort(ratios)[(len(ratios) - 1) // 2] == pytest.approx(1.0, abs=1e-5)


def test_with_an_interval_depth_is_computed_where_it_is_needed(own_tiny, own_frames):
    # 12 frames a window of which 3 are shared: those have depth, so that the next window can be aligned.
    params = replace(PARAMS, window_size=6, keyframe_interval=3)
    results = flat(answers(chain(own_tiny, params), own_frames[:12]))
    assert [r.index for r in results if r.depth is not None] == [0, 1, 2, 3, 6, 9, 10, 11]
    results = flat(answers(chain(own_tiny, params, every_depth=True), own_frames[:12]))
    assert all(r.depth is not None for r in results)


@pytest.mark.parametrize("alignment", RULES)
def test_shared_frames_between_keyframes_need_no_depth(own_tiny, own_frames, alignment):
    # The new window shares five frames; the last of them is no keyframe of it, far from its end, and has no depth.
    params = replace(PARAMS, window_size=10, keyframe_interval=2, overlap_size=5, alignment=alignment)
    first, second = by_window(flat(answers(chain(own_tiny, params), own_frames[:18])))
    assert second[0].index == 12 and second[4].depth is None
    assert len(first) == 17 and all(r.T is not None for r in second)


def assert_equal(result, expected):
    assert np.array_equal(result.T, expected.T) and result.kind is expected.kind
    assert result.reason == expected.reason
    assert (result.depth is None) == (expected.depth is None)
    assert result.depth is None or np.array_equal(result.depth, expected.depth)


@pytest.mark.parametrize("interval", [0, 1, 3])
def test_the_stream_goes_on_as_if_lost_frames_had_never_come(own_tiny, own_frames, interval):
    params = replace(PARAMS, keyframe_interval=interval, window_size=7)
    expected = flat(answers(chain(own_tiny, params), own_frames[:20]))
    assert {r.kind for r in expected} == set(Kind) - ({Kind.BETWEEN} if interval == 1 else set())
    broken = [4, 9, 10, 15, 22]
    frames = list(own_frames[:20])
    for i in broken:
        frames.insert(i, torch.full_like(frames[0], torch.nan))
    results = flat(answers(chain(own_tiny, params), frames))
    lost = [r for r in results if r.T is None]
    assert [r.index for r in lost] == broken
    assert not any(r.is_keyframe or r.depth is not None for r in lost)
    good = [i for i in range(len(frames)) if i not in broken]
    results = [r for r in results if r.T is not None]
    assert len(by_window(results)) > 1
    assert [good.index(r.index) for r in results] == [r.index for r in expected]
    for result, wanted in zip(results, expected, strict=True):
        assert_equal(result, wanted)


@contextlib.contextmanager
def broken_weights(model):
    """The network gives no finite pose."""
    bias = model.camera_head.pose_branch.fc2.bias
    before = bias.clone()
    bias.fill_(torch.nan)
    try:
        yield
    finally:
        bias.copy_(before)


def test_a_window_that_cannot_begin_leaves_the_shared_frames_as_they_are(own_tiny, own_frames, caplog):
    windows = chain(own_tiny, replace(PARAMS, window_size=8, keyframe_interval=1))
    results = flat(windows.step(i, own_frames[i]) for i in range(8))
    with broken_weights(own_tiny):
        assert windows.step(8, own_frames[8]) == []
    assert "no finite numbers for frames 5 to 7" in caplog.text
    results += flat(windows.step(i, own_frames[i]) for i in range(9, 14))
    assert [r.index for r in results] == list(range(14))
    assert all(r.T is not None for r in results)
    # Without a shared frame the window goes on from the last pose.
    assert "goes on from the last pose" in caplog.text
    np.testing.assert_allclose(results[8].T, results[7].T, atol=1e-6)


def test_d7_more_keyframes_than_the_network_was_trained_on_are_said_once(
    own_tiny, own_frames, caplog, monkeypatch
):
    monkeypatch.setattr("recon3d_ros.backends.gct.windows.TRAINED", 5)
    windows = chain(own_tiny, replace(PARAMS, keyframe_interval=1))
    for i, image in enumerate(own_frames[:9]):
        windows.step(i, image)
        assert len(caplog.records) == (i >= 5)
    assert "more than 5 keyframes in one window" in caplog.text
