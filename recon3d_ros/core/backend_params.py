# SPDX-License-Identifier: Apache-2.0
"""The parameters of the backends, each defined once; those of all else are in `core.config`."""

from __future__ import annotations

from dataclasses import dataclass

from recon3d_ros.core.params import param


@dataclass(frozen=True)
class GeometricParams:
    """Monocular reconstruction without a network."""

    tracks: int = param(
        700, "image points of a keyframe; half of them are followed from frame to frame", low=50, high=10_000
    )
    window: int = param(8, "keyframes optimised together", low=3, high=64)
    depth_width: int = param(320, "width at which dense depth is computed", unit="px", low=64, high=1920)
    depth_planes: int = param(64, "planes of the depth sweep", low=16, high=256)
    depth_queue: int = param(
        3, "keyframes that may wait for their depth before one is dropped and counted", low=1
    )
    loops: bool = param(
        True, "look out for places seen before, and correct the drift since then (needs the extra `loops`)"
    )
    mapping_only: bool = param(
        False, "trust the given poses (needs prior): no pose is estimated, images add depth, cloud and mesh"
    )


@dataclass(frozen=True)
class RgbdParams:
    """Reconstruction with a depth sensor."""

    min_depth: float = param(0.2, "nearer depth is ignored", unit="m", low=0.0)
    max_depth: float = param(6.0, "farther depth is ignored", unit="m", low=0.1)


@dataclass(frozen=True)
class GctParams:
    """The streaming transformer (backend gct)."""

    weights: str = param("", "checkpoint file; empty: the one that `recon3d weights fetch` brought")
    device: str = param(
        "auto", "where the network runs; auto: a GPU if there is one", choices=("auto", "cpu", "cuda")
    )
    precision: str = param(
        "auto",
        "of the transformer, the heads are always float32; auto: float32 on a CPU, bfloat16 or float16 on a GPU",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    attention: str = param(
        "auto",
        "kernel of attention to the cache; auto: the fastest present, measured at the start",
        choices=("auto", "sdpa", "flex", "flashinfer"),
    )
    compile: bool = param(
        False, "compile the blocks without cache (torch.compile): a slow start, faster frames"
    )
    image_width: int = param(
        518, "width to which images are resized, a multiple of 14", unit="px", low=56, high=1036
    )
    scale_frames: int = param(
        8,
        "first frames of a window, seen together; they fix its scale and are never forgotten",
        low=1,
        high=64,
    )
    sliding_window: int = param(
        64,
        "newest keyframes whose patches stay in the cache; memory_budget_mb may lower it",
        low=1,
        high=4096,
    )
    memory_budget_mb: int = param(
        0,
        "memory that weights, cache and work may take; it decides the sliding window; 0: no limit",
        unit="MB",
        low=0,
    )
    keyframe_interval: int = param(
        0, "every n-th frame is a keyframe; 0: chosen by flow (group keyframe)", low=0, high=1000
    )
    flow_cap: float = param(
        2.0, "largest flow that one pixel may contribute; 0: no limit", unit="image diagonals", low=0.0
    )
    window_size: int = param(
        320,
        "keyframes, scale frames included, after which a new window begins and is aligned with the one before; 0: never",
        low=0,
    )
    overlap_size: int = param(0, "frames that neighbouring windows share; 0: scale_frames", low=0)
    overlap_keyframes: int = param(
        0,
        "with keyframe_interval: the overlap in keyframes, at least scale_frames; 0: see overlap_size",
        low=0,
    )
    alignment: str = param(
        "keyframes",
        "how windows are aligned: at the last shared keyframe, at the first shared frame, or at all shared keyframes with "
        "trusted depth only",
        choices=("keyframes", "first", "robust"),
    )
    camera_iterations: int = param(
        4, "refinements of the pose; fewer are faster and less exact", low=1, high=16
    )
    min_confidence: float = param(1.5, "depth of less confidence (1 = none) is left out", low=1.0)
    sky_model: str = param("", "ONNX file of a sky segmentation network; empty: sky is not masked")
    sky_threshold: float = param(0.5, "score above which a pixel is sky", low=0.0, high=1.0)
