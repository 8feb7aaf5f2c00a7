# SPDX-License-Identifier: Apache-2.0
"""What the defects D2 to D17 of the specification would break, and what a long run may meet: a bad frame, a bad call, no
memory. Those of the store, the windows and the alignment are tested beside them."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import os
from dataclasses import fields, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct.kv_store import Mode  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.model import Gct  # noqa: E402
from recon3d_ros.backends.gct.positions import Positions  # noqa: E402
from recon3d_ros.backends.gct.predictor import Predictor  # noqa: E402
from recon3d_ros.backends.gct.sequence import Kind, Sequence  # noqa: E402
from recon3d_ros.backends.gct.session import planned  # noqa: E402
from recon3d_ros.backends.gct.windows import Windows  # noqa: E402
from recon3d_ros.backends.learned.attention import sdpa  # noqa: E402
from recon3d_ros.core.backend_params import GctParams  # noqa: E402
from recon3d_ros.core.config import Config, KeyframeParams  # noqa: E402
from recon3d_ros.keyframing.gate import KeyframeGate  # noqa: E402

SIZE = (28, 42)
PARAMS = GctParams(scale_frames=3, sliding_window=4, window_size=0)
#: About every second frame of `own_frames` moves that far.
KEYFRAMES = KeyframeParams(min_flow=0.2, max_gap=6, min_alive=0.0)
#: Only a frame that sees nothing of the last keyframe becomes one.
NEVER = KeyframeParams(min_flow=1e9, max_gap=10**9, min_alive=0.0)


def predictor(model, size=SIZE, window=4, reserve=16):
    return Predictor(model, Memory(MemoryShape(model.arch, size, 3, window, 2, reserve)), iterations=2)


def streamed(predictor, frames, params=PARAMS, keyframe=KEYFRAMES):
    """The newest result of each frame."""
    windows = Windows(predictor, params, KeyframeGate(keyframe), every_depth=True)
    lists = [windows.step(i, image) for i, image in enumerate(frames)] + [windows.finish()]
    results = {r.index: r for results in lists for r in results}
    return [results[i] for i in range(len(frames))]


def assert_equal(results, expected):
    """Bit for bit."""
    assert [r.kind for r in results] == [r.kind for r in expected]
    for result, wanted in zip(results, expected, strict=True):
        for field in ("T", "pose_enc", "depth", "confidence"):
            assert np.array_equal(getattr(result, field), getattr(wanted, field))


def assert_identical(memory, before):
    for store, old in ((memory.tokens, before.tokens), (memory.cameras, before.cameras)):
        assert (store.frames, store.window_frames) == (old.frames, old.window_frames)
        for layer in range(store.shape.layers):
            assert all(map(torch.equal, store.held(layer), old.held(layer)))


def test_d3_frames_between_keyframes_are_not_stored(own_tiny, own_frames):
    p = predictor(own_tiny)
    streamed(p, own_frames[:12], replace(PARAMS, keyframe_interval=3))
    assert p.memory.frames == p.memory.cameras.frames == 6
    assert p.memory.tokens.window_frames == 3


def test_d5_the_camera_head_forgets_what_the_aggregator_forgets(own_tiny, own_frames):
    # With room for all of them a keyframe sees the same whether it was kept at once or after its flow was known.
    p, only = predictor(own_tiny, window=16), predictor(own_tiny, window=16)
    results = streamed(p, own_frames[:16])
    kept = [r.index for r in results if r.is_keyframe]
    assert 3 < len(kept) < 16
    assert p.memory.tokens.frames == p.memory.cameras.frames == len(kept)
    expected = streamed(only, own_frames[kept], replace(PARAMS, keyframe_interval=1))
    assert_equal([results[i] for i in kept], expected)
    assert_identical(p.memory, only.memory)


def test_d6_a_batch_is_refused_in_one_line(own_tiny, own_frames):
    p = predictor(own_tiny)
    with pytest.raises(ValueError, match=r"^[^\n]*a batch is not supported$"):
        p.predict(own_frames[:2, None], Mode.APPEND)
    assert p.memory.frames == 0
    with pytest.raises(ValueError, match=r"^[^\n]*multiples of 14$"):
        p.predict(own_frames[:1, :, :27], Mode.APPEND)
    p.predict(own_frames[:2], Mode.APPEND)[0].keep()
    assert p.memory.frames == 2


def test_d7_thirty_keyframes_need_no_room_set_aside(own_tiny, own_frames):
    every = replace(PARAMS, keyframe_interval=1)
    results = streamed(predictor(own_tiny, reserve=1), own_frames[:33], every)
    assert_equal(results, streamed(predictor(own_tiny, reserve=64), own_frames[:33], every))


def fill(memory, keyframes):
    """Random keys and values in place of as many keyframes."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(keyframes):
        with memory.call(1, Mode.APPEND) as call:
            for part, tokens in ((call.tokens, 12), (call.cameras, 1)):
                shape = part.store.shape
                k, v = torch.randn((2, 1, shape.heads, tokens, shape.dim), generator=generator)
                for i in range(shape.layers):
                    part.write(i, k, v)


def test_d7_no_table_ends_at_1024_keyframes(own_tiny, own_frames):
    p = predictor(own_tiny)
    fill(p.memory, 1100)
    for image in own_frames[:5].split(1):
        call, prediction = p.predict(image, Mode.APPEND)
        call.keep()
        assert torch.isfinite(prediction.pose_enc).all() and torch.isfinite(prediction.depth).all()
    assert p.memory.frames == 1105 and p.memory.tokens.window_frames == 4


@pytest.mark.parametrize("frame", [3, 1023, 1024, 5000])
def test_d7_the_angle_of_time_grows_without_bound(own_tiny, frame):
    rotation = Positions(own_tiny.arch, (2, 3), torch.device("cpu")).sequence(frame, 1)
    angles = frame * 10000.0 ** (-np.arange(10) / 10)
    np.testing.assert_allclose(rotation.cos[7, :10], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(rotation.sin[7, :10], np.sin(angles), atol=1e-6)


@contextlib.contextmanager
def last_bias(model, values):
    """The network with other constants in its last layer of the pose, at the places given."""
    bias = model.camera_head.pose_branch.fc2.bias
    before = bias.clone()
    for i, value in values.items():
        bias[i] = value
    try:
        yield
    finally:
        bias.copy_(before)


@pytest.mark.parametrize(
    "pose", [{4: 50.0, 6: 0.0}, {7: -50.0, 8: -50.0}], ids=["turned around", "no field of view"]
)
def test_d9_a_frame_that_sees_nothing_of_the_keyframe_becomes_one(own_tiny, own_frames, pose):
    with last_bias(own_tiny, {6: 50.0}):
        sequence = Sequence(predictor(own_tiny), PARAMS, KeyframeGate(NEVER))
        sequence.begin(range(3), own_frames[:3])
        assert sequence.step(3, own_frames[3]).reason == "first"
        assert sequence.step(4, own_frames[4]).kind is Kind.BETWEEN
        with last_bias(own_tiny, pose):
            result = sequence.step(5, own_frames[5])
        assert (result.kind, result.reason) == (Kind.KEYFRAME, "nothing visible")
        assert sequence._predictor.memory.frames == 5


def with_camera_rope(model):
    """The same weights, the camera head with rotations by time."""
    with torch.device("meta"):
        other = Gct(replace(model.arch, camera_rope3d=True))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


@pytest.mark.parametrize("interval", [0, 3])
def test_d10_the_camera_s_time_counts_kept_frames_only(own_tiny, own_frames, interval):
    model = with_camera_rope(own_tiny)
    params = replace(PARAMS, keyframe_interval=interval)
    results = streamed(predictor(model, window=16), own_frames[:16], params)
    kept = [r.index for r in results if r.is_keyframe]
    assert 3 < len(kept) < 16
    every = replace(PARAMS, keyframe_interval=1)
    expected = streamed(predictor(model, window=16), own_frames[kept], every)
    assert_equal([results[i] for i in kept], expected)
    plain = streamed(predictor(own_tiny, window=16), own_frames[kept], every)
    assert np.abs(plain[-1].pose_enc - expected[-1].pose_enc).max() > 1e-3


def test_d11_d17_options_that_cannot_work_do_not_exist():
    names = {f.name for f in fields(GctParams)}
    assert not {n for n in names if "normali" in n or n.startswith("enable_")}


def raise_at(module, where):
    """The module fails at its call number `where`, once."""
    calls = itertools.count()

    def fail(*args):
        if next(calls) == where:
            raise RuntimeError("broken in mid-frame")

    return module.register_forward_pre_hook(fail)


def break_in_a_peek(p, frames, where):
    """A stream that ends with an exception in a frame between keyframes."""
    windows = Windows(p, replace(PARAMS, keyframe_interval=3), KeyframeGate(KEYFRAMES), every_depth=True)
    for i in range(10):
        windows.step(i, frames[i])
    hook = raise_at(where, 0)
    before = copy.deepcopy(p.memory)
    with pytest.raises(RuntimeError, match="broken in mid-frame"):
        windows.step(10, frames[10])
    hook.remove()
    assert_identical(p.memory, before)


PLACES = {
    "global block": lambda model: model.aggregator.global_blocks[2].mlp,
    "camera head": lambda model: model.camera_head.pose_branch,
    "depth head": lambda model: model.depth_head,
}


@pytest.mark.parametrize("place", PLACES)
def test_d12_a_fresh_sequence_after_an_exception_equals_one_without(own_tiny, own_frames, place):
    p, interval = predictor(own_tiny), replace(PARAMS, keyframe_interval=3)
    expected = streamed(predictor(own_tiny), own_frames[:14], interval)
    break_in_a_peek(p, own_frames, PLACES[place](own_tiny))
    assert_equal(streamed(p, own_frames[:14], interval), expected)


def test_d12_a_fresh_sequence_after_an_exception_equals_the_vectors(vectors, tiny, frames):
    p = Predictor(tiny, Memory(MemoryShape(tiny.arch, (56, 84), 3, 4)))
    break_in_a_peek(p, frames, tiny.aggregator.global_blocks[2].mlp)
    expected = vectors.load("07_stream_kf3")
    results = streamed(p, frames[:14], replace(PARAMS, keyframe_interval=3))
    poses, depth = (np.array([getattr(r, n) for r in results]) for n in ("pose_enc", "depth"))
    np.testing.assert_allclose(poses, expected["pose_enc"][0], atol=1e-4)
    np.testing.assert_allclose(depth, expected["depth"][0, ..., 0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_d13_one_setting_says_what_is_seen_together_and_what_is_never_forgotten(own_tiny, own_frames, count):
    assert [f.name for f in fields(GctParams) if "scale" in f.name] == ["scale_frames"]
    params = replace(PARAMS, scale_frames=count, keyframe_interval=1)
    memory = Memory(planned(own_tiny, Config(gct=params), SIZE).shape)
    p = Predictor(own_tiny, memory)
    results = streamed(p, own_frames[:count], params)
    scale = [set(memory.tokens.slot(0, i)[0].flatten().tolist()) for i in range(count)]
    results = streamed(p, own_frames[:14], params)
    assert [r.kind is Kind.SCALE for r in results] == [i < count for i in range(14)]
    held = set(memory.tokens.held(0)[0].flatten().tolist())
    assert len(scale) == memory.shape.scale_frames == count and all(s <= held for s in scale)
    assert memory.tokens.window_frames == 4 < 14 - count


def test_d14_a_memory_for_another_size_of_image_works_on_the_same_network(own_tiny, own_frames):
    larger = torch.nn.functional.interpolate(own_frames[:10], size=(42, 56))
    expected = streamed(predictor(copy.deepcopy(own_tiny), (42, 56)), larger)
    before = streamed(predictor(own_tiny), own_frames[:10])
    assert_equal(streamed(predictor(own_tiny, (42, 56)), larger), expected)
    assert_equal(streamed(predictor(own_tiny), own_frames[:10]), before)
    assert expected[9].depth.shape == (42, 56)


def test_a_sequence_repeated_on_one_network_and_memory_is_the_same(own_tiny, own_frames):
    p = predictor(own_tiny)
    for params in (PARAMS, replace(PARAMS, keyframe_interval=2, window_size=7)):
        first = streamed(p, own_frames[:14], params)
        assert_equal(streamed(p, own_frames[:14], params), first)


@pytest.mark.parametrize("interval", [0, 1, 3])
@pytest.mark.parametrize("cause", ["image", "weights"])
def test_a_frame_without_finite_numbers_leaves_no_trace(own_tiny, own_frames, interval, cause):
    p = predictor(own_tiny)
    sequence = Sequence(p, replace(PARAMS, keyframe_interval=interval), KeyframeGate(KEYFRAMES))
    sequence.begin(range(3), own_frames[:3])
    for i in range(3, 12):
        sequence.step(i, own_frames[i])
    before, counts = copy.deepcopy(p.memory), (sequence.frames, sequence.keyframes)
    assert before.tokens.window_frames > 2
    for i in range(12, 16):
        if cause == "image":
            result = sequence.step(i, torch.full_like(own_frames[0], torch.nan))
        else:
            with last_bias(own_tiny, {0: float("nan")}):
                result = sequence.step(i, own_frames[i])
        assert result.index == i and result.T is None and result.depth is None and not result.is_keyframe
        assert_identical(p.memory, before)
        assert (sequence.frames, sequence.keyframes) == counts


def test_scale_frames_without_finite_numbers_are_replaced_by_the_next(own_tiny, own_frames):
    frames = own_frames[:12].clone()
    frames[1] = torch.nan
    results = streamed(predictor(own_tiny), frames)
    assert [r.T is None for r in results] == [True] * 3 + [False] * 9
    assert_equal(results[3:], streamed(predictor(own_tiny), own_frames[3:12]))


def out_of_memory_at(memory, *calls):
    """The attention of these calls to a layer finds no memory."""
    count = itertools.count()

    def attend(q, k, v):
        if next(count) in calls:
            raise torch.OutOfMemoryError("no memory left")
        return sdpa(q, k, v)

    memory.tokens.attend = attend


@pytest.mark.parametrize("interval", [0, 1, 2])
def test_without_memory_the_window_is_halved_and_the_frame_answered(own_tiny, own_frames, interval, caplog):
    p = predictor(own_tiny)
    # Four layers: the third of the eighth call, when the window is full with every frame a keyframe.
    out_of_memory_at(p.memory, 4 * 7 + 2)
    params = replace(PARAMS, keyframe_interval=interval)
    results = streamed(p, own_frames[:16], params)
    assert all(np.isfinite(r.T).all() and np.isfinite(r.depth).all() for r in results)
    assert (p.shrinks, p.memory.shape.window, p.memory.tokens.window_frames) == (1, 2, 2)
    assert "from 4 to 2 keyframes" in caplog.text
    streamed(p, own_frames[:5], params)
    assert (p.shrinks, p.memory.shape.window) == (1, 2)


def test_the_smallest_window_without_memory_ends_the_run(own_tiny, own_frames):
    p = predictor(own_tiny, window=2)
    p.predict(own_frames[:3], Mode.APPEND)[0].keep()
    p.predict(own_frames[3:4], Mode.APPEND)[0].keep()
    before = copy.deepcopy(p.memory)
    before.shrink(1)
    out_of_memory_at(p.memory, 1, 2)
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        p.predict(own_frames[4:5], Mode.APPEND)
    assert p.memory.shape.window == 1
    assert_identical(p.memory, before)


def resident_mb():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("interval", [0, 4])
def test_memory_stays_flat_over_ten_thousand_frames(own_tiny, own_frames, interval):
    params = replace(PARAMS, keyframe_interval=interval, window_size=40)
    p = predictor(own_tiny, reserve=41)
    windows = Windows(p, params, KeyframeGate(KEYFRAMES))
    sizes, newest = [], -1
    for i in range(10_000):
        newest = max([newest, *(r.index for r in windows.step(i, own_frames[i % 48]))])
        if i % 500 == 499:
            gc.collect()
            sizes.append((resident_mb(), p.memory.bytes))
    assert newest >= 9_997 and windows.count > 50
    assert len({cache for _, cache in sizes}) == 1
    resident = [r for r, _ in sizes]
    assert max(resident[-5:]) <= 1.02 * max(resident[:3])
