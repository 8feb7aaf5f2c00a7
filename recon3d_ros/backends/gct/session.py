# SPDX-License-Identifier: Apache-2.0
"""A stream of images of one size: memory as large as it may be, windows, answers."""

from __future__ import annotations

import logging

import torch

from recon3d_ros.backends.gct.aggregator import tokens_per_frame
from recon3d_ros.backends.gct.answers import Answers, Input, Sky
from recon3d_ros.backends.gct.budget import Plan, plan
from recon3d_ros.backends.gct.memory import Memory, MemoryShape
from recon3d_ros.backends.gct.model import Gct
from recon3d_ros.backends.gct.predictor import Predictor
from recon3d_ros.backends.gct.preprocess import to_tensor
from recon3d_ros.backends.gct.windows import Windows
from recon3d_ros.backends.learned.attention import choose
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.config import Config
from recon3d_ros.core.types import Pose, Update
from recon3d_ros.keyframing.gate import KeyframeGate

log = logging.getLogger(__name__)

_MB = 2**20
#: Keyframes with room from the start where windows never end.
_RESERVE = 320


class Session:
    """size: height and width of the images that the network sees. Raises InputError when the memory budget is too small."""

    def __init__(
        self, network: Gct, config: Config, size: tuple[int, int], sky: Sky | None, stages: Stages
    ) -> None:
        params = config.gct
        self._device = next(network.parameters()).device
        self._stages = stages
        self._plan = planned(network, config, size)
        log.info("%s", self._plan)
        arch = network.arch
        tokens = tokens_per_frame(arch, *size)
        kernel = choose(params.attention, self._device, network.precision, arch.heads, arch.head_dim, tokens)
        log.info("attention: %s (%s)", kernel.name, kernel.reason)
        memory = Memory(self._plan.shape, self._device, kernel.attend)
        self._predictor = Predictor(network, memory, params.camera_iterations)
        self._windows = Windows(self._predictor, params, KeyframeGate(config.keyframe))
        self._answers = Answers(config, sky)

    def step(self, index: int, given: Input) -> list[Update]:
        """Take one frame; return what became known."""
        self._answers.ask(index, given)
        with self._stages("network"):
            results = self._windows.step(index, to_tensor(given.colours, self._device))
        with self._stages("answer"):
            return self._answers.updates(results)

    def finish(self) -> list[Update]:
        """No frame follows."""
        return self._answers.updates(self._windows.finish())

    def poses(self) -> dict[int, Pose]:
        """Camera to map, by index of the frame."""
        return self._answers.poses()

    def statistics(self) -> dict[str, float]:
        """What the memory was planned to take and takes, and what the answers count."""
        memory = self._predictor.memory
        return {
            "windows": float(self._windows.count),
            "sliding_window": float(memory.shape.window),
            "window_shrinks": float(self._predictor.shrinks),
            "planned_mb": self._plan.total / _MB,
            "cache_mb": memory.bytes / _MB,
            **self._answers.statistics(),
        }


def planned(network: Gct, config: Config, size: tuple[int, int]) -> Plan:
    """The memory for images of that size. Raises InputError when the budget is too small."""
    params = config.gct
    wanted = MemoryShape(
        network.arch,
        size,
        params.scale_frames,
        params.sliding_window,
        params.camera_iterations,
        # A tentative frame needs room beside those of the window.
        reserve=params.window_size + 1 if params.window_size else _RESERVE,
        dtype=network.precision,
    )
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    decided = plan(wanted, weights, params.memory_budget_mb)
    device = next(network.parameters()).device
    if params.memory_budget_mb and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, params.memory_budget_mb * _MB / total), device)
    return decided
