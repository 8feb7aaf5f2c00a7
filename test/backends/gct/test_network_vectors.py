# SPDX-License-Identifier: Apache-2.0
"""Every part of the network gives the numbers of the reference."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct.architecture import Architecture  # noqa: E402
from recon3d_ros.backends.gct.camera_head import activated_pose, camera_rotation  # noqa: E402
from recon3d_ros.backends.gct.dpt_head import with_position_field  # noqa: E402
from recon3d_ros.backends.gct.kv_store import KeyValueStore, Mode, Shape  # noqa: E402
from recon3d_ros.backends.gct.memory import Memory, MemoryShape  # noqa: E402
from recon3d_ros.backends.gct.model import Gct, activated_depth, activated_points  # noqa: E402
from recon3d_ros.backends.gct.positions import Positions  # noqa: E402
from recon3d_ros.backends.gct.vit import interpolated, normalised  # noqa: E402
from recon3d_ros.backends.learned.activations import CONFIDENCE, GEOMETRY  # noqa: E402
from recon3d_ros.backends.learned.attention import choose  # noqa: E402
from recon3d_ros.backends.learned.rope import rotation_2d  # noqa: E402

CPU = torch.device("cpu")
GRID = (4, 6)
MODES = {
    "kf": (Mode.APPEND, None),
    "skip": (Mode.PEEK, None),
    "defer_keep": (Mode.TENTATIVE, "keep"),
    "defer_rollback": (Mode.TENTATIVE, "rollback"),
}


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.fixture(params=["sdpa", "flex"])
def attend(request):
    """Every path of attention that runs without a GPU."""
    return choose(request.param, CPU, torch.float32, 2, 64, 8).attend


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def test_patch_features(vectors, tiny, frames):
    v, vit = vectors.load("01_vit"), tiny.aggregator.patch_embed
    square = vectors.load("images")["square_u8"].float() / 255
    for name, images, grid in (("rect", frames[:2], (4, 6)), ("square", square, (5, 5))):
        tokens = vit.tokens(images)
        close(normalised(images[:1]), v[f"{name}.normalized"])
        close(vit.patch_embed(normalised(images)), v[f"{name}.conv_tokens"])
        close(interpolated(vit.pos_embed, grid), v[f"{name}.pos_embed"])
        close(tokens[:, 0], v[f"{name}.cls"])
        close(tokens[:, 1:5], v[f"{name}.reg"])
        close(vit(images), v[f"{name}.patch_tokens"])
    close(vit.blocks[0](v["block0.x"]), v["block0.y"])


def test_position_embedding_is_resized_by_output_size(vectors):
    v = vectors.load("01b_pos_embed_interp")
    for name, expected in v.items():
        if name.startswith("out_"):
            height, width = (int(n) for n in name.removeprefix("out_").split("x"))
            close(interpolated(v["pos_embed"], (height // 14, width // 14)), expected)


def test_rotations(vectors):
    v, arch = vectors.load("02_rope"), vectors.tiny
    for name in ("rope2d", "rope2d_b"):
        for x, at, y in zip(v[f"{name}.x"], v[f"{name}.pos_yx"], v[f"{name}.y"], strict=True):
            close(rotation_2d(at[:, 0], at[:, 1], 64, 100.0).apply(x), y)
    for name, first, count, grid in (("tiny", 0, 3, GRID), ("later", 37, 1, GRID), ("full", 5, 2, (27, 37))):
        rotation = Positions(arch, grid, CPU).sequence(first, count)
        close(rotation.cos, v[f"rope3d.{name}.cos"])
        close(rotation.sin, v[f"rope3d.{name}.sin"])
        if name != "full":
            close(rotation.apply(v[f"rope3d.{name}.x"]), v[f"rope3d.{name}.y"])
    rotation = camera_rotation(arch, torch.arange(9, 12))
    close(rotation.cos, v["camera3d.cos"])
    close(rotation.sin, v["camera3d.sin"])
    close(rotation.apply(v["camera3d.x"]), v["camera3d.y"])


def test_a_frame_block_rotates_by_the_given_positions(vectors, tiny):
    v, block = vectors.load("03_blocks"), tiny.aggregator.frame_blocks[1]
    for x, at, y in zip(v["frame.x"], v["frame.pos_yx"], v["frame.y"], strict=True):
        close(block(x[None], rotation_2d(at[:, 0], at[:, 1], 64, 100.0))[0], y)


def test_a_global_block_without_cache(vectors, tiny):
    v, block = vectors.load("03_blocks"), tiny.aggregator.global_blocks[2]
    x = v["global_nocache3d.x"]
    close(block(x, Positions(vectors.tiny, GRID, CPU).sequence(0, 3)), v["global_nocache3d.y"])
    at = v["frame.pos_yx"][0].repeat(3, 1)
    close(block(x, rotation_2d(at[:, 0], at[:, 1], 64, 100.0)), v["global_nocache2d.y"])


def test_a_global_block_with_the_store(vectors, tiny, attend):
    v, block = vectors.load("03_blocks"), tiny.aggregator.global_blocks[2]
    positions = Positions(vectors.tiny, GRID, CPU)
    store = KeyValueStore(Shape(1, 2, 64, 6, 24, scale_frames=3, window=4), attend=attend)
    for i, step in enumerate(vectors.meta("03_blocks")["cache_steps"]):
        frames, (mode, decision) = (3, MODES["kf"]) if step["op"] == "scale3" else (1, MODES[step["op"]])
        with store.call(frames, mode) as call:
            assert call.first == step["frame_position"]
            y = block(v[f"step{i:02}.x"], positions.sequence(call.first, frames), call.layer(0))
            if decision:
                getattr(call, decision)()
        close(y, v[f"step{i:02}.y"])
        assert store.frames == step["frames_appended_after"]
        assert store.window_frames == step["window_frames_held"]
        held = step["special_tokens_held"] + 24 * (step["scale_frames_held"] + step["window_frames_held"])
        assert store.held(0)[0].shape[1] == held


@pytest.mark.parametrize("name", ["04_aggregator", "04b_aggregator_2d_rope"])
def test_the_aggregator(vectors, tiny, frames, attend, name):
    v, arch = vectors.load(name), vectors.tiny
    model = tiny
    if name == "04b_aggregator_2d_rope":
        model = _with(tiny, rope3d=False)
    memory = Memory(MemoryShape(arch, (56, 84), scale_frames=3, window=4), attend=attend)
    with memory.call(3, Mode.APPEND) as call:
        levels = {"scale": model.aggregator(frames[:3], call.tokens)}
    for i in range(3, 9):
        with memory.call(1, Mode.APPEND) as call:
            levels[f"frame{i}"] = model.aggregator(frames[i : i + 1], call.tokens)
    compared = 0
    for key, expected in v.items():
        step, _, level = key.partition(".level")
        close(levels[step][int(level or -1)][None], expected, 1e-4)
        compared += 1
    assert compared == len(v) > 1


@pytest.mark.parametrize("variant", ["plain", "rope3d"])
def test_the_camera_head(vectors, tiny, variant):
    v, meta = vectors.load("05_camera_head"), vectors.meta("05_camera_head")
    head = tiny.camera_head if variant == "plain" else _with(tiny, camera_rope3d=True).camera_head
    store = Memory(MemoryShape(vectors.tiny, (56, 84), scale_frames=3, window=4)).cameras
    for i, (op, (begin, end)) in enumerate(zip(meta["steps"], meta["token_ranges"], strict=True)):
        with store.call(end - begin, Mode.PEEK if op == "skip" else Mode.APPEND) as call:
            # The reference counts skipped frames in its positions, which we do not (D10).
            counted = SimpleNamespace(first=begin, frames=end - begin, layer=call.layer)
            out = head(v["tokens"][0, begin:end, 0], counted, 4)
        for j, pose in enumerate(out):
            close(pose[None], v[f"{variant}.step{i}.iter{j}"])


def test_activations(vectors):
    v = vectors.load("05b_activations")
    close(activated_pose(v["pose_raw"]), v["pose_act"])
    raw = v["head_raw"]
    for name, activate in GEOMETRY.items():
        close(activate(raw[:, :3].movedim(1, -1)), v[f"head.{name}"])
    for name, activate in CONFIDENCE.items():
        close(activate(raw[:, 3]), v[f"conf.{name}"])
    assert len(GEOMETRY) + len(CONFIDENCE) + 3 == len(v)


def test_the_dense_heads(vectors, tiny):
    v, size = vectors.load("06_dpt_head"), (56, 84)
    levels = [v[f"tokens.level{i}"][0] for i in range(4)]
    depth, confidence = activated_depth(tiny.depth_head(levels, size))
    close(depth[None, ..., None], v["depth"])
    close(confidence[None], v["depth_conf"])
    points, confidence = activated_points(tiny.point_head(levels, size))
    close(points[None], v["points"])
    close(confidence[None], v["points_conf"])
    scratch = tiny.depth_head.scratch
    close(with_position_field(v["pos_embed.in"], size), v["pos_embed.out"])
    close(scratch.refinenet1.resConfUnit2(v["rcu.x"]), v["rcu.y"])
    close(scratch.refinenet3(v["fusion3.x"], v["fusion3.skip"], (8, 12)), v["fusion3.y"])
    close(scratch.refinenet4(v["fusion3.x"], None, (5, 7)), v["fusion4.y"])


def test_the_full_size_network_has_the_names_shapes_and_types_of_the_manifest(vectors):
    manifest = json.loads((vectors.folder / "checkpoint_manifest.json").read_text())
    for point_head in (False, True):
        with torch.device("meta"):
            state = Gct(Architecture(), point_head).state_dict()
        expected = dict(manifest["tensors"], **(manifest["optional_point_head"] if point_head else {}))
        assert set(state) == set(expected)
        for name, about in expected.items():
            assert list(state[name].shape) == about["shape"]
            assert str(state[name].dtype) == f"torch.{about['dtype']}"
    assert len(manifest["tensors"]) == 1342


def _with(model, **changes):
    """A copy of the network, weights shared, that differs in its architecture's switches."""
    with torch.device("meta"):
        other = Gct(replace(model.arch, **changes), point_head=True)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval().requires_grad_(False)
