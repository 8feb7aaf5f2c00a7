# SPDX-License-Identifier: Apache-2.0
"""The memory that is planned is never exceeded, and little of it is planned in vain."""

from __future__ import annotations

import weakref

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from recon3d_ros.backends.gct.architecture import Architecture  # noqa: E402
from recon3d_ros.backends.gct.budget import plan, work_bytes  # noqa: E402
from recon3d_ros.backends.gct.kv_store import Mode  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.model import Gct  # noqa: E402
from recon3d_ros.core.errors import InputError  # noqa: E402

#: Proportions of the full network (levels, heads and maps), an eighth as wide.
SLIM = Architecture(
    width=128,
    heads=2,
    depth=4,
    selected=(0, 1, 2, 3),
    vit_depth=2,
    vit_heads=2,
    camera_depth=1,
    camera_heads=2,
    dpt_features=32,
    dpt_channels=(32, 64, 128, 128),
)


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self, known):
        super().__init__()
        self.live, self.now, self.peak = {t.untyped_storage()._cdata: 0 for t in known}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage):
        if storage._cdata not in self.live:
            self.live[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, storage._cdata)

    def free(self, key):
        self.now -= self.live.pop(key, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "scale_frames"), [((84, 112), 8), ((168, 224), 1)])
def test_a_call_holds_no_more_than_planned(dtype, size, scale_frames):
    model = Gct(SLIM).eval().requires_grad_(False)
    model.set_precision(dtype)
    shape = MemoryShape(SLIM, size, scale_frames, window=2, reserve=16, dtype=dtype)
    memory = Memory(shape)
    stores = [*memory.tokens._buffers, *memory.cameras._buffers]
    assert sum(t.nbytes for t in stores) == shape.bytes == memory.bytes
    used = 0
    for frames in (scale_frames, 1, 1):
        images = torch.rand(frames, 3, *size)
        with Peak([*model.parameters(), *stores, images]) as peak, memory.call(frames, Mode.APPEND) as call:
            prediction = model(images, call)
        used = max(used, peak.peak)
        del prediction
    assert used <= work_bytes(shape) <= 3 * used


def test_the_budget_decides_the_window():
    wanted = MemoryShape(Architecture(), (378, 518), window=64, dtype=torch.bfloat16)
    weights = 2_820_000_000
    free = plan(wanted, weights, 0)
    assert free.shape.window == 64
    windows = []
    for budget in (8_000, 6_000, 5_000, 16_000):
        decided = plan(wanted, weights, budget)
        windows.append(decided.shape.window)
        assert decided.total <= budget * 2**20
        assert f"memory_budget_mb {budget}" in str(decided)
        larger = MemoryShape(wanted.arch, wanted.size, window=decided.shape.window + 1, dtype=wanted.dtype)
        more = decided.total - decided.shape.bytes + larger.bytes
        assert decided.shape.window == 64 or more > budget * 2**20
    assert windows == sorted(windows[:3], reverse=True) + [64] and windows[2] < windows[0] < 64


def test_the_smallest_budget_that_works_is_named_and_works():
    wanted = MemoryShape(Architecture(), (168, 224), window=64)
    with pytest.raises(InputError, match="224x168 need at least") as refused:
        plan(wanted, 4_631_774_160, 100)
    smallest = int(str(refused.value).partition("at least ")[2].split()[0])
    assert plan(wanted, 4_631_774_160, smallest).shape.window == 1
    with pytest.raises(InputError):
        plan(wanted, 4_631_774_160, smallest - 1)
