# SPDX-License-Identifier: Apache-2.0
"""The streaming transformer with random weights: what a frame costs, stage by stage, and what of it the cache costs.

Plain, it runs the tiny model, then the full one at 224x168: each stage against the number of held frames, and at a full
window the ring against a cache that is put together anew for every frame (`concatenating_store.py`), on the same frames in
turn. Bars for the full model: global blocks at least 1.8 times faster, outputs equal within 1e-4. One JSON line per
measurement. With `--threads 1` times are those of the calling thread on a processor, so that other work counts little.

`--precision float32 bfloat16`, `--compile`: each is measured, and how far its numbers are from float32 as it is.
`--stream 10000`: does a long sequence stay level? Tiny model. On a GPU, with its arithmetic peak from the data sheet:
`--model full --size 518x378 --device cuda --precision bfloat16 --compile --peak-tflops 990`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from concatenating_store import ConcatenatingStore
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recon3d_ros.backends.gct.aggregator import tokens_per_frame
from recon3d_ros.backends.gct.architecture import SPECIAL_TOKENS, Architecture
from recon3d_ros.backends.gct.kv_store import KeyValueStore, Mode
from recon3d_ros.backends.gct.memory import Memory, MemoryCall, MemoryShape
from recon3d_ros.backends.gct.model import Gct, Prediction
from recon3d_ros.backends.learned.layers import LayerScale
from recon3d_ros.runtime.metrics import peak_rss_mb

BAR_FASTER, BAR_EQUAL = 1.8, 1e-4
SCALE_FRAMES, ITERATIONS = 8, 4
#: Keyframes that have left a full window; then room for the frames that are measured.
EVICTED, ROOM = 8, 64
STAGES = ("patch_features", "frame_blocks", "global_blocks", "camera_head", "depth_head")
OUTPUTS = ("pose_enc", "depth", "confidence")
TINY = Architecture(
    image_size=70,
    width=128,
    heads=2,
    depth=5,
    selected=(0, 2, 3, 4),
    vit_depth=2,
    vit_heads=2,
    camera_depth=2,
    camera_heads=2,
    dpt_features=32,
    dpt_channels=(16, 32, 64, 64),
)
MODELS = {"tiny": (TINY, "84x56"), "full": (Architecture(), "224x168")}


@dataclass(frozen=True)
class Setup:
    """What is measured. size: H, W of the images. peak: TFLOP/s that count as all of the machine."""

    name: str
    size: tuple[int, int]
    device: torch.device
    window: int
    repeat: int
    peak: float | None

    @property
    def arch(self) -> Architecture:
        """Sizes of the network."""
        return MODELS[self.name][0]

    @property
    def capacity(self) -> int:
        """Frames whose patches are held at most."""
        return SCALE_FRAMES + self.window

    def memory(self, dtype: torch.dtype) -> MemoryShape:
        """Of a memory with room for what is measured, and no more."""
        reserve = self.capacity + EVICTED + ROOM
        return MemoryShape(self.arch, self.size, SCALE_FRAMES, self.window, ITERATIONS, reserve, dtype)


def now() -> float:
    """Seconds: of the wall clock, or of the calling thread where it does everything itself."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_initialized()
    return time.thread_time() if alone else time.perf_counter()


class Stopwatch:
    """Seconds of each stage of a frame, by hooks around its modules; on a GPU by events in its queue. Frame blocks take all
    that lies between two global ones: they may be compiled, and no hook may be within."""

    def __init__(self, model: Gct, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._begun: Any = None
        self._ended: Any = None
        net = model.aggregator
        modules = {
            "patch_features": [net.patch_embed],
            "global_blocks": net.global_blocks,
            "camera_head": [model.camera_head],
            "depth_head": [model.depth_head],
        }
        for stage, parts in modules.items():
            for module in parts:
                module.register_forward_pre_hook(partial(self._begin, stage))
                module.register_forward_hook(partial(self._end, stage))

    def read(self) -> dict[str, float]:
        """Seconds by stage since the last reading, of work that is done."""
        out = {stage: sum(self._seconds(*span) for span in self._spans[stage]) for stage in STAGES}
        self._spans.clear()
        return out

    def _begin(self, stage: str, *_: object) -> None:
        self._begun = self._mark()
        if stage == "global_blocks":
            self._spans["frame_blocks"].append((self._ended, self._begun))

    def _end(self, stage: str, *_: object) -> None:
        self._ended = self._mark()
        self._spans[stage].append((self._begun, self._ended))

    def _mark(self) -> Any:
        if not self._on_gpu:
            return now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, begin: Any, end: Any) -> float:
        return begin.elapsed_time(end) / 1e3 if self._on_gpu else end - begin


class Bench:
    """A network with random weights, as float32 or, from then on, in another precision or compiled."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.compiled = False
        self.model = random_model(setup.arch, setup.device)
        self.watch = Stopwatch(self.model, setup.device)
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(SCALE_FRAMES + 4, 3, *setup.size, generator=generator)
        self.images = images.to(setup.device)

    def compile(self) -> None:
        """The blocks without cache."""
        self.model.compile_blocks()
        self.compiled = True

    def line(self, part: str, **values: Any) -> None:
        """Print a measurement."""
        setup, on_gpu = self.setup, self.setup.device.type == "cuda"
        about = {
            "bench": "gct",
            "part": part,
            "model": setup.name,
            "size": "{1}x{0}".format(*setup.size),
            "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
            "precision": str(self.model.precision).removeprefix("torch."),
            "compile": self.compiled,
        }
        memory: dict[str, Any] = {"rss_mb": round(rss_mb()), "peak_rss_mb": round(peak_rss_mb() * 1.024**2)}
        if on_gpu:
            memory["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
        load = {"load": round(os.getloadavg()[0], 1)}
        print(json.dumps(about | values | memory | load), flush=True)

    def frame(self, call: MemoryCall, images: Tensor) -> tuple[Prediction, dict[str, float]]:
        """A call for images [S,3,H,W] that stay; seconds in all and by stage."""
        self._wait()
        begin = now()
        with call:
            prediction = self.model(images, call, ITERATIONS)
        self._wait()
        return prediction, {"total": now() - begin} | self.watch.read()

    def filled_memory(self) -> Memory:
        """Random numbers in every place."""
        torch.manual_seed(2)
        memory = Memory(self.setup.memory(self.model.precision), self.setup.device)
        for store in (memory.tokens, memory.cameras):
            for layer in range(store.shape.layers):
                for slot in range(store.shape.slots):
                    store.slot(layer, slot).normal_()
                for frame in range(memory.shape.reserve):
                    store.special(layer, frame).normal_()
        return memory

    def stages(self, memory: Memory, held: int) -> None:
        """Print the median seconds of a frame that sees `held` frames, itself included."""
        full = held >= self.setup.capacity
        before = held + EVICTED if full else held - 1
        runs = []
        for i in range(1 + self.setup.repeat):
            rewind(memory, before)
            images = self.images[i % len(self.images)][None]
            runs.append(self.frame(memory.call(1, Mode.APPEND), images)[1])
        seconds = median(runs[1:])
        work = gflop(self.setup.arch, self.setup.size, held, EVICTED + 1 if full else 0)
        peak = self.setup.peak or self._reached_peak()
        share = sum(work.values()) / seconds["total"] / peak / 1e3
        self.line(
            "stages",
            held=held,
            s=rounded(seconds),
            fps=round(1 / seconds["total"], 2),
            gflop=rounded(work),
            peak_tflops=round(peak, 3),
            share_of_peak=round(share, 2),
            store_mb=round(memory.bytes / 1e6),
        )

    def stores(self, memory: Memory) -> bool:
        """Print ring against concatenation at a full window; False if a bar is missed."""
        rewind(memory, self.setup.capacity + EVICTED)
        plain = concatenating(memory.tokens, self.setup.device)
        seconds: dict[str, list[dict[str, float]]] = {"ring": [], "concatenating": []}
        difference = 0.0
        for i in range(1 + self.setup.repeat):
            images, outputs = self.images[i % len(self.images)][None], []
            for name, store in (("ring", memory.tokens), ("concatenating", plain))[:: (-1) ** i]:
                memory.cameras.closed(store.frames)
                call = MemoryCall(store.call(1, Mode.APPEND), memory.cameras.call(1, Mode.APPEND))
                prediction, times = self.frame(call, images)
                outputs.append(prediction)
                seconds[name].append(times)
            difference = max(difference, *differences(*outputs).values())
        ring, other = (median(runs[1:]) for runs in seconds.values())
        ratio = other["global_blocks"] / ring["global_blocks"]
        exact = self.model.precision == torch.float32
        self.line(
            "stores",
            held=self.setup.capacity,
            s=rounded(ring),
            concatenating_s=rounded(other),
            faster=round(ratio, 2),
            bar=BAR_FASTER if self.setup.name == "full" else None,
            difference=float(f"{difference:.2g}"),
            store_mb=round(memory.tokens.bytes / 1e6),
            concatenating_mb=round(plain.bytes / 1e6),
        )
        return (self.setup.name != "full" or ratio >= BAR_FASTER) and (not exact or difference <= BAR_EQUAL)

    def sequence(self) -> list[Prediction]:
        """A short one: two scale frames, then frame after frame, with evictions."""
        shape = MemoryShape(self.setup.arch, self.setup.size, 2, 2, ITERATIONS, 16, self.model.precision)
        memory = Memory(shape, self.setup.device)
        calls = (self.images[:2], *self.images[2:8].split(1))
        return [self.frame(memory.call(len(images), Mode.APPEND), images)[0] for images in calls]

    def against(self, exact: list[Prediction]) -> None:
        """Print how far the numbers of the short sequence are from those before, and the largest of those."""
        ours = self.sequence()
        far = [differences(*pair) for pair in zip(ours, exact, strict=True)]
        large = [{name: getattr(p, name).abs().max().item() for name in OUTPUTS} for p in exact]
        self.line("precision", difference=rounded(largest(far)), largest=rounded(largest(large)))

    def stream(self, frames: int) -> None:
        """Print how memory and time grow with the sequence: an early stretch of it, and its end."""
        setup = self.setup
        memory = Memory(MemoryShape(setup.arch, setup.size, SCALE_FRAMES, setup.window, ITERATIONS))
        self.frame(memory.call(SCALE_FRAMES, Mode.APPEND), self.images[:SCALE_FRAMES])
        stretches = [
            (min(500, frames // 4), min(1500, frames // 2)),
            (max(frames - 1000, frames // 2), frames),
        ]
        runs: list[dict[str, float]] = []
        said = []
        for begin, end in stretches:
            while len(runs) < end:
                images = self.images[len(runs) % len(self.images)][None]
                runs.append(self.frame(memory.call(1, Mode.APPEND), images)[1])
            size = {"store_mb": round(memory.bytes / 1e6), "rss_mb": round(rss_mb())}
            keys = memory.tokens.held(0)[0].shape[1]
            said.append(
                {"frames": [begin, end], "keys": keys, **size, "ms": rounded(mean(runs[begin:end]), 1e3)}
            )
        slower = said[1]["ms"]["total"] / said[0]["ms"]["total"]
        self.line("stream", early=said[0], last=said[1], slower=round(slower, 2))

    def _reached_peak(self) -> float:
        """TFLOP/s of the matrix product that the blocks do most of their work with: here and now, at its best."""
        arch, dtype = self.setup.arch, self.model.precision
        tokens, width = tokens_per_frame(arch, *self.setup.size), arch.width
        a, b = (
            torch.randn(n, width, device=self.setup.device, dtype=dtype)
            for n in (max(tokens, 1000), 4 * width)
        )
        best = float("inf")
        for _ in range(20):
            self._wait()
            begin = now()
            nn.functional.linear(a, b)
            self._wait()
            best = min(best, now() - begin)
        return 2 * a.numel() * len(b) / best / 1e12

    def _wait(self) -> None:
        if self.setup.device.type == "cuda":
            torch.cuda.synchronize()


def random_model(arch: Architecture, device: torch.device) -> Gct:
    """A network whose activations stay of the order of one."""
    with torch.device("meta"):
        model = Gct(arch)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, LayerScale):
                parameter.fill_(0.1)
            elif isinstance(module, nn.LayerNorm):
                parameter.fill_(name == "weight")
            else:
                inputs = parameter[0].numel() if parameter.ndim > 1 and name == "weight" else 2500
                parameter.normal_(0, inputs**-0.5, generator=generator)
    return model


def concatenating(ring: KeyValueStore, device: torch.device) -> ConcatenatingStore:
    """The other store with what the ring holds."""
    shape = ring.shape
    other = ConcatenatingStore(shape, device, ring.slot(0, 0).dtype)
    oldest = ring.frames - ring.window_frames
    held = [*range(min(shape.scale_frames, ring.frames)), *range(oldest, ring.frames)]
    for index, layer in enumerate(other.layers):
        whole = [torch.cat((ring.special(index, f), ring.slot(index, ring.slot_of(f))), 2) for f in held]
        evicted = [ring.special(index, f) for f in range(shape.scale_frames, oldest)]
        for kind, pair in enumerate(layer):
            pair.frames = torch.stack([frame[kind] for frame in whole], 1)
            pair.special = torch.stack([frame[kind] for frame in evicted], 1)
    other.frames = ring.frames
    return other


def rewind(memory: Memory, frames: int) -> None:
    """What comes next is frame `frames`."""
    for store in (memory.tokens, memory.cameras):
        store.closed(frames)


def gflop(arch: Architecture, size: tuple[int, int], held: int, evicted: int) -> dict[str, float]:
    """Arithmetic of a frame by stage: linear layers and attention of the blocks, convolutions of the depth head."""
    tokens, c = tokens_per_frame(arch, *size), arch.width
    patches = tokens - SPECIAL_TOKENS

    def blocks(depth: int, queries: int, keys: int, width: int = c) -> float:
        return depth * queries * ((8 + 4 * arch.mlp_ratio) * width * width + 4 * keys * width) / 1e9

    with torch.inference_mode(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        Gct(arch).depth_head([torch.empty(1, tokens, 2 * c)] * 4, size)
    camera = blocks(arch.camera_depth, 1, held + evicted, 2 * c) + 12 * (2 * c) ** 2 / 1e9
    return {
        "patch_features": blocks(arch.vit_depth, patches + 5, patches + 5),
        "frame_blocks": blocks(arch.depth, tokens, tokens),
        "global_blocks": blocks(arch.depth, tokens, tokens * held + SPECIAL_TOKENS * evicted),
        "camera_head": ITERATIONS * camera,
        "depth_head": counter.get_total_flops() / 1e9,
    }


def differences(ours: Prediction, theirs: Prediction) -> dict[str, float]:
    """The largest one of each output."""
    return {name: (getattr(ours, name) - getattr(theirs, name)).abs().max().item() for name in OUTPUTS}


def largest(runs: list[dict[str, float]]) -> dict[str, float]:
    """Over runs, by output."""
    return {name: max(run[name] for run in runs) for name in runs[0]}


def mean(runs: list[dict[str, float]]) -> dict[str, float]:
    """Over runs, by stage."""
    return {stage: sum(run[stage] for run in runs) / len(runs) for stage in runs[0]}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Over runs, by stage."""
    return {stage: sorted(run[stage] for run in runs)[len(runs) // 2] for stage in runs[0]}


def rounded(seconds: dict[str, float], unit: float = 1.0) -> dict[str, float]:
    """Four digits of each, times `unit`."""
    return {stage: float(f"{value * unit:.4g}") for stage, value in seconds.items()}


def rss_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(
    setup: Setup, held: list[int], precisions: list[torch.dtype], compiled: bool, stores: bool
) -> bool:
    """One model in all its variants; False if a bar is missed."""
    bench, met = Bench(setup), True
    variants = [(dtype, False) for dtype in precisions]
    variants += [(precisions[-1], True)] if compiled else []
    exact = bench.sequence() if variants != [(torch.float32, False)] else None
    for dtype, is_compiled in variants:
        if setup.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        bench.model.set_precision(dtype)
        if is_compiled:
            bench.compile()
        if exact is not None:
            bench.against(exact)
        memory = bench.filled_memory()
        for number in held:
            bench.stages(memory, min(number, setup.capacity))
        if stores and not is_compiled:
            met &= bench.stores(memory)
        del memory
    return met


def size_of(text: str) -> tuple[int, int]:
    """'WxH' -> H, W."""
    width, height = map(int, text.split("x"))
    return height, width


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--size", help="WxH, multiples of 14; default 84x56 for tiny, 224x168 for full")
    parser.add_argument("--held", nargs="+", type=int, default=[8, 24, 72], help="frames that a frame sees")
    parser.add_argument("--window", type=int, default=64, help="held frames beside 8 scale frames, at most")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32"]
    )
    parser.add_argument("--compile", action="store_true", help="also with the blocks without cache compiled")
    parser.add_argument("--repeat", type=int, default=3, help="measured frames, after one that warms up")
    parser.add_argument("--no-stores", action="store_true", help="leave out ring against concatenation")
    parser.add_argument("--threads", type=int, help="default: PyTorch's choice")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the device; default: what a matrix product reaches"
    )
    parser.add_argument("--stream", type=int, metavar="FRAMES", help="only this: a long sequence, tiny model")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    met = True
    for name in ["tiny"] if arguments.stream else arguments.model:
        size = size_of(arguments.size or MODELS[name][1])
        device = torch.device(arguments.device)
        setup = Setup(name, size, device, arguments.window, arguments.repeat, arguments.peak_tflops)
        if arguments.stream:
            Bench(setup).stream(arguments.stream)
        else:
            precisions = sorted((getattr(torch, p) for p in arguments.precision), key=lambda p: -p.itemsize)
            met &= measure(setup, arguments.held, precisions, arguments.compile, not arguments.no_stores)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
