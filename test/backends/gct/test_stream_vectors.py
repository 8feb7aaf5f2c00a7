# SPDX-License-Identifier: Apache-2.0
"""Streams of frames through the whole network give the numbers, keyframes and windows of the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct.kv_store import Mode  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.pose_encoding import decode, encode  # noqa: E402
from recon3d_ros.backends.gct.predictor import Predictor  # noqa: E402
from recon3d_ros.backends.gct.windows import Windows  # noqa: E402
from recon3d_ros.backends.learned.attention import choose  # noqa: E402
from recon3d_ros.core.backend_params import GctParams  # noqa: E402
from recon3d_ros.core.config import KeyframeParams  # noqa: E402
from recon3d_ros.keyframing.gate import KeyframeGate  # noqa: E402

TOLERANCE = 1e-4
#: The keyframe rule of the reference: no rule for rest, none for lost view.
EXACT = KeyframeParams(min_alive=0.0, rest=0.0)
PARAMS = GctParams(scale_frames=3, sliding_window=4, window_size=0, flow_cap=0.0)


@pytest.fixture(params=["sdpa", "flex"])
def attend(request):
    """Every path of attention that runs without a GPU."""
    return choose(request.param, torch.device("cpu"), torch.float32, 2, 64, 8).attend


def stream(model, frames, params, keyframe=EXACT, attend=None, memory_frames=3):
    """All frames through a chain of windows: the newest result of each, and the chain."""
    shape = MemoryShape(model.arch, (56, 84), memory_frames, params.sliding_window, reserve=4)
    memory = Memory(shape, attend=attend) if attend else Memory(shape)
    windows = Windows(Predictor(model, memory), params, KeyframeGate(keyframe), every_depth=True)
    results = {}
    for i, image in enumerate(frames):
        results.update({r.index: r for r in windows.step(i, image)})
    results.update({r.index: r for r in windows.finish()})
    assert sorted(results) == list(range(len(frames)))
    return [results[i] for i in range(len(frames))], windows


def differences(results, expected):
    """Largest difference of pose encodings, depth and confidence."""
    pose = np.abs(np.array([r.pose_enc for r in results]) - expected["pose_enc"][0].numpy()).max()
    depth = np.abs(np.array([r.depth for r in results]) - expected["depth"][0, ..., 0].numpy()).max()
    confidence = np.abs(np.array([r.confidence for r in results]) - expected["depth_conf"][0].numpy()).max()
    return pose, depth, confidence


CASES = {
    "07_stream_kf1": (PARAMS, {"keyframe_interval": 1}),
    "07_stream_kf3": (PARAMS, {"keyframe_interval": 3}),
    "07_stream_wide_window": (PARAMS, {"keyframe_interval": 1, "sliding_window": 64}),
    "07_stream_scale1": (PARAMS, {"keyframe_interval": 1, "scale_frames": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_with_a_fixed_interval(vectors, tiny, frames, attend, name):
    expected, (params, changes) = vectors.load(name), CASES[name]
    count = expected["pose_enc"].shape[1]
    results, _ = stream(tiny, frames[:count], replace(params, **changes), attend=attend)
    assert max(differences(results, expected)) < TOLERANCE


def flow_case(vectors, name):
    meta = vectors.meta(name)
    keyframe = replace(EXACT, min_flow=meta["flow_threshold"] / 84, max_gap=meta["max_non_keyframe_gap"])
    return meta, keyframe


def test_a_stream_with_keyframes_by_flow(vectors, tiny, frames, attend):
    name = "07_stream_flow"
    (meta, keyframe), expected = flow_case(vectors, name), vectors.load(name)
    results, _ = stream(tiny, frames[: meta["frames"]], PARAMS, keyframe, attend)
    assert [r.is_keyframe for r in results[3:]] == meta["keyframe_mask_after_scale"]
    assert max(differences(results, expected)) < TOLERANCE
    np.testing.assert_allclose([r.flow for r in results[3:]], expected["flow_magnitude"], rtol=1e-3)


def test_d5_the_camera_head_forgets_what_the_aggregator_forgets(vectors, tiny, frames):
    name = "07_stream_flow"
    (meta, keyframe), defect = flow_case(vectors, name), vectors.load(f"{name}_DEFECT_no_camera_rollback")
    results, windows = stream(tiny, frames[: meta["frames"]], PARAMS, keyframe)
    assert differences(results, defect)[0] > 0.01
    kept = sum(r.is_keyframe for r in results)
    memory = windows._predictor.memory
    assert memory.cameras.frames == memory.tokens.frames == kept < len(results)


def test_d3_frames_between_keyframes_are_not_stored(vectors, tiny, frames):
    defect = vectors.load("07_stream_kf3_DEFECT_dict_backend")
    results, windows = stream(tiny, frames[:12], replace(PARAMS, keyframe_interval=3))
    assert windows._predictor.memory.frames == 6
    results, _ = stream(tiny, frames[:14], replace(PARAMS, keyframe_interval=3))
    pose, depth, _ = differences(results, defect)
    assert pose > 0.01 and depth > 0.01


def test_points_of_the_optional_head(vectors, tiny, frames):
    expected = vectors.load("07_stream_kf1")
    predictor = Predictor(tiny, Memory(MemoryShape(tiny.arch, (56, 84), 3, 4)))
    points, confidence = [], []
    for i in (0, *range(3, 14)):
        call, prediction = predictor.predict(frames[i : i + 3] if not i else frames[i : i + 1], Mode.APPEND)
        call.keep()
        points.append(prediction.points)
        confidence.append(prediction.points_confidence)
    torch.testing.assert_close(torch.cat(points)[None], expected["world_points"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        torch.cat(confidence)[None], expected["world_points_conf"], atol=TOLERANCE, rtol=0
    )


WINDOWED = {
    "10_windowed_kf1": "keyframes",
    "10_windowed_kf2_overlap_keyframes": "keyframes",
    "10_windowed_seed_first_frame_alignment": "first",
    "10_windowed_flow": "keyframes",
}


@pytest.mark.parametrize("name", WINDOWED)
def test_a_stream_in_windows(vectors, tiny, frames, attend, name):
    expected, args = vectors.load(name), vectors.meta(name)["args"]
    params = replace(
        PARAMS,
        window_size=args["window_size"],
        keyframe_interval=args.get("keyframe_interval", 0),
        overlap_size=args.get("overlap_size", 0),
        overlap_keyframes=args.get("overlap_keyframes", 0),
        alignment=WINDOWED[name],
    )
    keyframe = EXACT
    if "flow_threshold" in args:
        keyframe = replace(EXACT, min_flow=args["flow_threshold"] / 84, max_gap=args["max_non_keyframe_gap"])
    results, windows = stream(tiny, frames, params, keyframe, attend)
    assert [int(r.kind) for r in results] == expected["frame_type"][0].tolist()
    assert [r.is_keyframe for r in results] == expected["is_keyframe"][0].tolist()
    K = decode(np.array([r.pose_enc for r in results]), 56, 84)[1]
    results = [
        replace(r, pose_enc=p)
        for r, p in zip(results, encode(np.array([r.T for r in results]), K, 56, 84), strict=True)
    ]
    assert max(differences(results, expected)) < TOLERANCE
    similarities = windows.similarities
    np.testing.assert_allclose([s.scale for s in similarities], expected["chunk_scales"][0], atol=TOLERANCE)
    transforms = expected["chunk_transforms"][0].numpy()
    np.testing.assert_allclose([s.R for s in similarities], transforms[:, :3, :3], atol=TOLERANCE)
    np.testing.assert_allclose([s.t for s in similarities], transforms[:, :3, 3], atol=TOLERANCE)
