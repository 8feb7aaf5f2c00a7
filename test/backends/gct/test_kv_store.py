# SPDX-License-Identifier: Apache-2.0
"""The store against section 6.1 of the specification: the same tokens, the same attention, no trace of what was undone."""

from __future__ import annotations

import copy
import itertools
import random
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct import kv_store  # noqa: E402
from recon3d_ros.backends.gct.kv_store import KeyValueStore, Mode, Shape  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.predictor import Predictor  # noqa: E402
from recon3d_ros.backends.learned.attention import sdpa  # noqa: E402

SMALL = Shape(layers=2, heads=2, dim=4, special=2, patches=3, scale_frames=2, window=3)
SIZE = (28, 42)


@dataclass(frozen=True)
class Entry:
    """Keys and values [2,heads,N,dim] of an appended frame; without patches once they are evicted."""

    special: torch.Tensor
    patches: torch.Tensor | None


class NaiveStore:
    """Section 6.1 word by word: for each layer a list of all frames, and what is visible put together anew each time."""

    def __init__(self, shape):
        self.shape = shape
        self.clear()

    def clear(self):
        self.frames = 0
        self.entries = [[] for _ in range(self.shape.layers)]

    def call(self, frames, mode):
        return NaiveCall(self, frames, mode)

    def evicted(self, entries):
        """The oldest window entries lose their patches until no more than the window holds have any."""
        window = [i for i, e in enumerate(entries) if i >= self.shape.scale_frames and e.patches is not None]
        gone = window[: max(len(window) - self.shape.window, 0)]
        return [replace(e, patches=None) if i in gone else e for i, e in enumerate(entries)]

    def shrink(self, window):
        self.shape = replace(self.shape, window=window)
        self.entries = [self.evicted(entries) for entries in self.entries]

    def held(self, layer):
        return visible_to_all(self.entries[layer])


class NaiveCall:
    def __init__(self, store, frames, mode):
        self.store, self.frames, self.mode, self.first = store, frames, mode, store.frames
        self.after = list(store.entries)

    def layer(self, index):
        return SimpleNamespace(attend=lambda q, k, v: self.attend(index, q, k, v))

    def attend(self, layer, q, k, v):
        special = self.store.shape.special
        pairs = torch.stack((k[0], v[0])).unflatten(2, (self.frames, -1)).unbind(2)
        entries = self.store.entries[layer] + [Entry(p[:, :, :special], p[:, :, special:]) for p in pairs]
        if self.mode is Mode.APPEND:
            entries = self.store.evicted(entries)
        self.after[layer] = self.store.evicted(entries)
        keys, values = (t.double() for t in visible_to_all(entries))
        weights = torch.softmax(q[0].double() @ keys.mT / q.shape[-1] ** 0.5, -1)
        return (weights @ values).to(v.dtype)[None]

    def keep(self):
        self.store.entries = self.after
        self.store.frames += self.frames

    def rollback(self):
        pass


def visible_to_all(entries):
    parts = [e.special for e in entries] + [e.patches for e in entries if e.patches is not None]
    return torch.cat(parts, 2)


def in_order(held):
    """Keys beside values [heads,M,2*dim], sorted: a set of tokens."""
    both = torch.cat(tuple(held), -1)
    return both[:, both[0, :, 0].argsort()]


def random_tokens(shape, frames, generator):
    count = frames * (shape.special + shape.patches)
    return torch.randn((3, 1, shape.heads, count, shape.dim), generator=generator).unbind()


def random_step(rng):
    """A mode, and whether its frame is kept."""
    return rng.choice(
        [(mode, keep) for mode in Mode for keep in (True, False) if not (keep and mode is Mode.PEEK)]
    )


def step(store, frames, mode, keep, qkv):
    """One call through all layers: the outputs of attention."""
    call = store.call(frames, mode)
    out = [call.layer(i).attend(*(t + i for t in qkv)) for i in range(store.shape.layers)]
    call.keep() if keep else call.rollback()
    return out


def assert_same(store, naive):
    assert store.frames == naive.frames
    window = naive.entries[0][naive.shape.scale_frames :]
    if naive.shape.patches:
        assert store.window_frames == sum(e.patches is not None for e in window)
    for layer in range(store.shape.layers if naive.frames else 0):
        assert torch.equal(in_order(store.held(layer)), in_order(naive.held(layer)))


def run_both(seed, shape, shrink=False):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    if shape.patches:
        shape = replace(shape, scale_frames=rng.randint(1, 4), window=rng.randint(2 if shrink else 1, 5))
    store, naive = KeyValueStore(shape, reserve=rng.randint(1, 4)), NaiveStore(shape)
    for i in range(40):
        if shrink and i in (9, 22):
            window = rng.randint(1, store.shape.window)
            store.shrink(window)
            naive.shrink(window)
            assert_same(store, naive)
        first = rng.randint(1, max(shape.scale_frames, 1)) if not store.frames else 1
        mode, keep = random_step(rng)
        qkv = random_tokens(shape, first, generator)
        outputs = zip(step(store, first, mode, keep, qkv), step(naive, first, mode, keep, qkv), strict=True)
        for out, expected in outputs:
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
        assert_same(store, naive)
    assert store.frames > shape.scale_frames + shape.window


@pytest.mark.parametrize("seed", range(30))
def test_the_ring_equals_naive_recomputation(seed):
    run_both(seed, SMALL)


@pytest.mark.parametrize("seed", range(4))
def test_a_store_of_one_token_a_frame_keeps_them_all(seed):
    run_both(seed, Shape(layers=3, heads=1, dim=4, special=1))


@pytest.mark.parametrize("seed", range(10))
def test_a_smaller_window_holds_the_newest_frames_and_all_special_tokens(seed):
    run_both(seed, SMALL, shrink=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_network_on_the_ring_equals_the_network_on_naive_recomputation(own_tiny, own_frames, seed):
    rng = random.Random(seed)
    shape = MemoryShape(own_tiny.arch, SIZE, rng.randint(1, 3), rng.randint(1, 3), 2, reserve=2)
    ring, naive = Memory(shape), Memory(shape)
    naive.tokens, naive.cameras = NaiveStore(shape.tokens), NaiveStore(shape.cameras)
    first = rng.randint(1, shape.scale_frames)
    steps = [(own_frames[:first], Mode.APPEND, True)]
    steps += [(own_frames[i : i + 1], *random_step(rng)) for i in range(first, 24)]
    for images, mode, keep in steps:
        results = []
        for memory in (ring, naive):
            call, prediction = Predictor(own_tiny, memory, iterations=2).predict(images, mode)
            call.keep() if keep else call.rollback()
            results.append(prediction)
        for field in ("pose_enc", "depth", "confidence"):
            torch.testing.assert_close(*(getattr(r, field) for r in results), atol=2e-5, rtol=0)
        assert ring.frames == naive.frames == ring.cameras.frames
    assert ring.frames > shape.scale_frames + shape.window


def full_memory(model, frames, reserve=320):
    """A memory whose window has been full for three keyframes, and a predictor on it."""
    predictor = Predictor(model, Memory(MemoryShape(model.arch, SIZE, 2, 3, 2, reserve)), iterations=2)
    for images in (frames[:2], *frames[2:8].split(1)):
        predictor.predict(images, Mode.APPEND)[0].keep()
    return predictor


def assert_identical(memory, before):
    for store, old in ((memory.tokens, before.tokens), (memory.cameras, before.cameras)):
        assert (store.frames, store.window_frames, store.shape) == (old.frames, old.window_frames, old.shape)
        for layer in range(store.shape.layers):
            assert all(map(torch.equal, store.held(layer), old.held(layer)))


def assert_goes_on_alike(predictor, before, frames):
    """The memory gives what its copy `before` gives, bit for bit, now and for the keyframes that follow."""
    assert_identical(predictor.memory, before)
    other = Predictor(predictor.model, before, predictor.iterations)
    for image in frames.split(1):
        (call, prediction), (call_before, expected) = (
            p.predict(image, Mode.APPEND) for p in (predictor, other)
        )
        call.keep()
        call_before.keep()
        assert torch.equal(prediction.pose_enc, expected.pose_enc)
        assert torch.equal(prediction.depth, expected.depth)


def test_d4_ten_frames_rolled_back_leave_a_full_window_as_it_was(own_tiny, own_frames):
    predictor = full_memory(own_tiny, own_frames)
    before = copy.deepcopy(predictor.memory)
    for image in own_frames[10:20].split(1):
        call, _ = predictor.predict(image, Mode.TENTATIVE)
        call.rollback()
        assert_identical(predictor.memory, before)
    assert_goes_on_alike(predictor, before, own_frames[20:25])


@pytest.mark.parametrize("mode", Mode)
def test_a_call_that_is_rolled_back_leaves_a_full_window_as_it_was(own_tiny, own_frames, mode):
    predictor = full_memory(own_tiny, own_frames)
    before = copy.deepcopy(predictor.memory)
    call, _ = predictor.predict(own_frames[10:11], mode)
    call.rollback()
    assert_goes_on_alike(predictor, before, own_frames[11:14])


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("where, layer", [("tokens", 0), ("tokens", 2), ("tokens", 3), ("cameras", 1)])
def test_an_exception_in_a_layer_leaves_the_memory_as_it_was(own_tiny, own_frames, mode, where, layer):
    predictor = full_memory(own_tiny, own_frames)
    before = copy.deepcopy(predictor.memory)
    calls = itertools.count()

    def attend(q, k, v):
        if next(calls) == layer:
            raise RuntimeError("broken kernel")
        return sdpa(q, k, v)

    store = getattr(predictor.memory, where)
    store.attend = attend
    with pytest.raises(RuntimeError, match="broken kernel"):
        predictor.predict(own_frames[10:11], mode)
    store.attend = sdpa
    assert_goes_on_alike(predictor, before, own_frames[11:13])


@pytest.mark.parametrize("mode", [Mode.PEEK, Mode.TENTATIVE])
def test_a_call_left_without_a_decision_leaves_no_trace(mode):
    store = KeyValueStore(SMALL)
    generator = torch.Generator().manual_seed(0)
    step(store, 2, Mode.APPEND, True, random_tokens(SMALL, 2, generator))
    before = copy.deepcopy(store)
    with store.call(1, mode) as call:
        call.layer(0).attend(*random_tokens(SMALL, 1, generator))
    assert not call.is_open and store.frames == 2
    assert all(map(torch.equal, store.held(0), before.held(0)))
    with store.call(1, Mode.APPEND):
        pass
    assert store.frames == 3


def test_attention_reads_the_buffers_in_place():
    seen = []

    def attend(q, k, v):
        seen.append({t.untyped_storage().data_ptr() for t in (k, v)})
        return sdpa(q, k, v)

    store = KeyValueStore(SMALL, attend=attend, reserve=200)
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    buffers = [{t.untyped_storage().data_ptr() for t in store.held(i)} for i in range(SMALL.layers)]
    size = store.bytes
    step(store, 2, Mode.APPEND, True, random_tokens(SMALL, 2, generator))
    while store.frames < 200:
        step(store, 1, *random_step(rng), random_tokens(SMALL, 1, generator))
        assert store.bytes == size
    assert len(buffers[0]) == len(buffers[1]) == 1 and buffers[0] != buffers[1]
    assert seen == buffers * (len(seen) // 2)


def storages(store):
    return sum(store.held(i)[0].untyped_storage().nbytes() for i in range(store.shape.layers))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_d15_bytes_are_those_of_all_buffers(own_tiny, own_frames, dtype):
    shape = MemoryShape(own_tiny.arch, SIZE, 2, 3, iterations=1, reserve=4, dtype=dtype)
    memory = Memory(shape)
    assert memory.bytes == shape.bytes == storages(memory.tokens) + storages(memory.cameras)
    assert memory.cameras.bytes == 4 * 2 * own_tiny.arch.camera_width * own_tiny.arch.camera_depth * 4
    patches, special = 6, 6
    tokens = 2 * own_tiny.arch.width * own_tiny.arch.depth * (special * 4 + patches * (2 + 3 + 1))
    assert memory.tokens.bytes == tokens * dtype.itemsize
    predictor = Predictor(own_tiny, memory, iterations=1)
    for image in own_frames[:6].split(1):
        predictor.predict(image, Mode.APPEND, dense=False)[0].keep()
    assert (
        memory.bytes == replace(shape, reserve=8).bytes == storages(memory.tokens) + storages(memory.cameras)
    )
    memory.shrink(1)
    assert memory.bytes == replace(shape, reserve=8, window=1).bytes
    assert memory.bytes == storages(memory.tokens) + storages(memory.cameras)


def test_misuse_is_refused():
    store = KeyValueStore(SMALL)
    with pytest.raises(ValueError, match="6 frames in one call"):
        store.call(6, Mode.APPEND)
    with pytest.raises(ValueError, match="0 frames"):
        store.call(0, Mode.APPEND)
    call = store.call(2, Mode.APPEND)
    with pytest.raises(RuntimeError, match="still open"):
        store.call(1, Mode.APPEND)
    with pytest.raises(ValueError, match="window"):
        store.shrink(1)
    call.keep()
    for end in (call.keep, call.rollback):
        with pytest.raises(RuntimeError, match="ended already"):
            end()
    with pytest.raises(ValueError, match="2 frames in one call to a store with 2 frames"):
        store.call(2, Mode.APPEND)
    peek = store.call(1, Mode.PEEK)
    with pytest.raises(RuntimeError, match="peek"):
        peek.keep()
    peek.rollback()
    for window in (0, 4):
        with pytest.raises(ValueError, match="window of 3 frames cannot become"):
            store.shrink(window)
    assert store.frames == 2


def test_a_call_is_void_once_the_store_is_cleared():
    store = KeyValueStore(SMALL)
    with store.call(2, Mode.APPEND) as call:
        store.clear()
    assert store.frames == 0
    with pytest.raises(RuntimeError, match="ended already"):
        call.keep()
    with store.call(1, Mode.APPEND) as call:
        assert call.first == 0


class Allocator:
    """Stands for the device's memory: `fails` says of a number of tokens whether a buffer of so many more is refused."""

    def __init__(self, monkeypatch, fails):
        self.calls, self._resized, self._fails = 0, kv_store._resized, fails
        monkeypatch.setattr(kv_store, "_resized", self)

    def __call__(self, buffer, tokens):
        self.calls += 1
        if self._fails(self.calls, tokens):
            raise torch.OutOfMemoryError("no memory left")
        return self._resized(buffer, tokens)


@pytest.mark.parametrize("call", range(1, 7))
def test_memory_that_ends_while_the_store_grows_costs_half_of_the_window(
    own_tiny, own_frames, monkeypatch, call
):
    # The eight frames fill the room: four layers of tokens and two of cameras grow for the ninth.
    predictor, expected = (full_memory(own_tiny, own_frames, reserve=8) for _ in range(2))
    expected.memory.shrink(1)
    Allocator(monkeypatch, lambda n, tokens: n == call)
    kept, prediction = predictor.predict(own_frames[8:9], Mode.APPEND)
    kept.keep()
    monkeypatch.undo()
    again, wanted = expected.predict(own_frames[8:9], Mode.APPEND)
    again.keep()
    assert predictor.memory.shape.window == 1
    assert torch.equal(prediction.pose_enc, wanted.pose_enc)
    assert_identical(predictor.memory, expected.memory)


def test_a_window_is_made_smaller_until_its_first_layer_fits(own_tiny, own_frames, monkeypatch):
    shape = MemoryShape(own_tiny.arch, SIZE, 2, 8, iterations=1)
    predictor = Predictor(own_tiny, Memory(shape), iterations=1)
    predictor.predict(own_frames[:2], Mode.APPEND)[0].keep()
    failures = itertools.count()
    patches = 6

    def attend(q, k, v):
        if next(failures) == 0:
            raise torch.OutOfMemoryError("no memory left")
        return sdpa(q, k, v)

    predictor.memory.tokens.attend = attend
    Allocator(monkeypatch, lambda n, tokens: tokens > -6 * patches)
    predictor.predict(own_frames[2:3], Mode.APPEND)[0].keep()
    assert (predictor.memory.shape.window, predictor.shrinks, predictor.memory.frames) == (2, 1, 3)
