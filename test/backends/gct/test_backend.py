# SPDX-License-Identifier: Apache-2.0
"""The streaming transformer behind the contract of backends: what goes in, what is answered, and when."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends import registry  # noqa: E402
from recon3d_ros.backends.gct.answers import Answers, Input  # noqa: E402
from recon3d_ros.backends.gct.backend import GctReconstructor  # noqa: E402
from recon3d_ros.backends.gct.sequence import FrameResult, Kind  # noqa: E402
from recon3d_ros.backends.learned import weights  # noqa: E402
from recon3d_ros.backends.scaled import ScaledReconstructor  # noqa: E402
from recon3d_ros.cli.main import main  # noqa: E402
from recon3d_ros.core.camera import Camera  # noqa: E402
from recon3d_ros.core.config import Config  # noqa: E402
from recon3d_ros.core.errors import FrameError, InputError, MissingDependency  # noqa: E402
from recon3d_ros.core.geometry import apply_similarity, body_from_optical, pose, similarity, so3_exp  # noqa: E402
from recon3d_ros.core.params import build  # noqa: E402
from recon3d_ros.core.types import Frame, Scale, Tracking  # noqa: E402

SECOND = 1_000_000_000


def image_of(index, height=56, width=84):
    """A window that slides over a picture of blobs."""
    import cv2

    rng = np.random.default_rng(3)
    picture = cv2.resize(rng.integers(0, 255, (12, 60, 3), np.uint8), (60 * 24, 12 * 24))
    return np.ascontiguousarray(picture[index : index + height, 4 * index : 4 * index + width])


def frames_of(count, **fields):
    return [Frame((i + 1) * SECOND, image_of(i), **fields) for i in range(count)]


@pytest.fixture
def engine(own_weights):
    """Makes the backend with given parameters: two-patch images, three scale frames."""

    def make(**values):
        given = {"gct.weights": str(own_weights), "gct.image_width": 56, "gct.scale_frames": 3, **values}
        return GctReconstructor(build(Config, given))

    return make


def run(backend, frames):
    """All updates, and those of each step."""
    steps = [backend.step(frame) for frame in frames]
    steps.append(backend.finish())
    return [u for step in steps for u in step], steps


def test_every_frame_is_answered_once_and_the_first_ones_together(engine):
    backend = engine()
    updates, steps = run(backend, frames_of(20))
    assert [u.index for u in updates] == list(range(20))
    assert [u.stamp_ns for u in updates] == [(i + 1) * SECOND for i in range(20)]
    assert [len(step) for step in steps] == [0, 0, 3, *[1] * 17, 0]
    assert all(u.tracking is Tracking.TRACKING and u.scale is Scale.LEARNED for u in updates)
    assert sorted(backend.poses()) == list(range(20))
    for u in updates:
        np.testing.assert_allclose(u.T_map_cam, backend.poses()[u.index])


def test_a_stream_shorter_than_its_scale_frames_is_answered_at_the_end(engine):
    updates, steps = run(engine(), frames_of(2))
    assert [len(step) for step in steps] == [0, 0, 2]
    assert updates[0].is_keyframe


def test_the_map_begins_at_the_first_camera_which_looks_along_x(engine):
    updates, _ = run(engine(), frames_of(4))
    np.testing.assert_allclose(updates[0].T_map_cam, body_from_optical(), atol=1e-9)


def test_keyframes_bring_what_the_network_trusts(engine):
    backend = engine(**{"gct.min_confidence": 2.0, "gct.keyframe_interval": 2})
    updates, _ = run(backend, frames_of(12))
    keyframes = [u for u in updates if u.is_keyframe]
    assert [u.index for u in keyframes if u.index >= 3] == [3, 5, 7, 9, 11]
    for u in keyframes:
        assert u.reason and u.camera.size == (56, 42) and u.camera.estimated
        assert u.depth.shape == u.confidence.shape == u.colours.shape[:2] == (42, 56)
        known = np.isfinite(u.depth)
        assert (u.depth[known] > 0).all()
        # A confidence of 2 in the network's unit is one half in ours.
        assert ((u.confidence >= 0.5) == known).all()
    assert any(np.isnan(u.depth).any() for u in keyframes) and any(
        np.isfinite(u.depth).any() for u in keyframes
    )
    assert all(u.depth is None for u in updates if not u.is_keyframe)


def seen(index, kind, x=0.0):
    """What a network would say of a camera at (x, 0, 0) before a wall."""
    wall = np.full((42, 56), 5.0, np.float32)
    pose_enc = np.array([x, 0, 0, 0, 0, 0, 1, 1.0, 1.2])
    return FrameResult(index, kind, pose(np.eye(3), pose_enc[:3]), pose_enc, wall, wall)


def given(index, **fields):
    return Input(index * SECOND, np.zeros((42, 56, 3), np.uint8), **{"camera": None, **fields})


def test_a_scale_frame_that_sees_what_the_one_before_saw_is_no_keyframe():
    answers = Answers(Config())
    for i in range(4):
        answers.ask(i, given(i))
    updates = answers.updates([seen(i, Kind.SCALE, x) for i, x in enumerate((0.0, 0.01, 0.02, 3.0))])
    assert [(u.is_keyframe, u.reason) for u in updates] == [
        (True, "first"),
        (False, ""),
        (False, ""),
        (True, "flow"),
    ]


def test_a_new_window_corrects_the_keyframes_it_shares_with_the_one_before(engine):
    windows = {"gct.window_size": 6, "gct.keyframe_interval": 1, "gct.alignment": "robust"}
    backend = engine(**windows)
    answered, corrected = {}, {}
    for frame in frames_of(20):
        for u in backend.step(frame):
            answered[u.index] = u
            corrected.update({i: (answered[i].T_map_cam, T) for i, T in u.corrections.items()})
            for i, T in u.corrections.items():
                np.testing.assert_allclose(T, backend.poses()[i])
    assert sorted(answered) == list(range(20))
    assert backend.statistics()["windows"] == 6
    # The last three keyframes of each window are the scale frames of the next.
    assert sorted(corrected) == [i for i in range(3, 18)]
    assert any(np.abs(before - after).max() > 1e-6 for before, after in corrected.values())


def test_given_poses_tell_the_unit_and_the_place_of_the_map(engine):
    own, _ = run(engine(), frames_of(30))
    S = similarity(3.7, so3_exp(np.array([0.3, -0.5, 0.8])), np.array([5.0, 6.0, 7.0]))
    priors = [apply_similarity(S, u.T_map_cam) for u in own]
    backend = ScaledReconstructor(engine(), build(Config, {"prior": True}))
    frames = [replace(f, prior=T) for f, T in zip(frames_of(30), priors, strict=True)]
    updates, _ = run(backend, frames)
    poses, statistics = backend.poses(), backend.statistics()
    assert statistics["prior_scale"] == pytest.approx(3.7, rel=1e-6)
    for i, prior in enumerate(priors):
        np.testing.assert_allclose(poses[i], prior, atol=1e-5)
    assert updates[-1].scale is Scale.PRIOR
    # Keyframes are answered at once; those before the scale was known get their depth with it, in metres.
    reference = {u.index: u.depth for u in own if u.is_keyframe}
    delivered = {u.index: u for u in updates if u.depth is not None}
    assert sorted(delivered) == sorted(reference)
    assert any(u.revises for u in delivered.values())
    for i, u in delivered.items():
        np.testing.assert_allclose(u.depth, 3.7 * reference[i], rtol=1e-4)
        np.testing.assert_allclose(u.T_map_cam, priors[i], atol=1e-5)
        assert u.scale is Scale.PRIOR
    assert sorted(u.index for u in updates if not u.revises) == list(range(30))


def test_an_image_of_another_size_is_a_bad_frame_until_a_reset(engine):
    backend = engine()
    run(backend, frames_of(5))
    with pytest.raises(FrameError, match="28x56, those before were 84x56"):
        backend.step(Frame(99 * SECOND, image_of(0, 56, 28)))
    assert len(backend.poses()) == 5
    backend.reset()
    updates, _ = run(backend, [Frame(i * SECOND, image_of(i, 70, 56)) for i in range(4)])
    assert [u.index for u in updates] == [0, 1, 2, 3]
    assert updates[0].colours.shape == (56, 56, 3)  # the middle of it


def test_a_reset_begins_as_if_nothing_had_been(engine):
    backend = engine()
    first, _ = run(backend, frames_of(9))
    backend.reset()
    again, _ = run(backend, frames_of(9))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.T_map_cam, b.T_map_cam)


@pytest.mark.parametrize("image", [np.zeros((56, 84), np.uint8), np.zeros((56, 84, 3), np.float32)])
def test_an_image_of_another_type_is_a_bad_frame(engine, image):
    with pytest.raises(FrameError, match="8 bit RGB"):
        engine().step(Frame(1, image))


def test_a_frame_that_the_network_cannot_see_is_lost_and_the_next_is_not(engine):
    backend = engine()
    reference, _ = run(backend, frames_of(12))
    backend.reset()
    head = backend._network.camera_head.pose_branch.fc2
    out = []
    for i, frame in enumerate(frames_of(12)):
        hook = head.register_forward_hook(lambda *a: a[2] * float("nan")) if i == 6 else None
        out += backend.step(frame)
        if hook:
            hook.remove()
    assert [u.index for u in out if u.T_map_cam is None] == [6]
    assert out[6].tracking is Tracking.LOST and "finite" in out[6].reason
    assert backend.statistics()["lost"] == 1
    # What the lost frame would have left behind is not there.
    without = engine()
    kept, _ = run(without, [f for i, f in enumerate(frames_of(12)) if i != 6])
    for a, b in zip(out[7:], kept[6:], strict=True):
        assert np.array_equal(a.T_map_cam, b.T_map_cam)
    assert not np.array_equal(out[7].T_map_cam, reference[7].T_map_cam) or not reference[6].is_keyframe


def test_a_calibrated_camera_is_compared_with_what_the_network_finds(engine, caplog):
    backend = engine(**{"gct.keyframe_interval": 1})
    camera = Camera(84, 56, 20.0, 20.0, 41.5, 27.5, "plumb_bob", (-0.1, 0.0, 0.0, 0.0, 0.0))
    with caplog.at_level(logging.WARNING):
        updates, _ = run(backend, frames_of(20, camera=camera))
    found = np.median([u.camera.fx for u in updates if u.is_keyframe])
    expected = found / (camera.undistorted().fx * 56 / 84)
    assert backend.statistics()["focal_ratio"] == pytest.approx(expected, rel=0.1)
    assert "of the calibrated focal length" in caplog.text
    # Without its distortion the image is another one.
    plain, _ = run(engine(**{"gct.keyframe_interval": 1}), frames_of(3))
    assert not np.array_equal(plain[0].colours, updates[0].colours)


def test_a_guessed_camera_says_nothing(engine):
    backend = engine()
    run(backend, frames_of(5, camera=Camera.guess(84, 56)))
    assert "focal_ratio" not in backend.statistics()
    assert not backend.capabilities.needs_camera


def test_sky_has_no_depth():
    upper = np.zeros((42, 56), bool)
    upper[:20] = True
    answers = Answers(Config(), sky=lambda image: upper)
    answers.ask(0, given(0))
    [update] = answers.updates([seen(0, Kind.SCALE)])
    assert (np.isnan(update.depth) == upper).all()


def test_weights_that_are_not_there_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON3D_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="recon3d weights fetch"):
        registry.create("gct", Config())
    with pytest.raises(InputError, match="--weights PATH"):
        registry.create("gct", build(Config, {"gct.weights": str(tmp_path / "none.pt")}))


def test_auto_takes_the_network_where_weights_and_a_gpu_are(tmp_path, monkeypatch, own_weights):
    monkeypatch.setenv("RECON3D_WEIGHTS", str(tmp_path))
    given = build(Config, {"gct.weights": str(own_weights)})
    monkeypatch.setattr(registry, "has_cuda", lambda: False)
    assert registry.choose("auto", False, Config()) == (
        "geometric",
        "the source has no depth, and for gct there are no weights",
    )
    assert registry.choose("auto", False, given)[1].endswith("is no GPU")
    monkeypatch.setattr(registry, "has_cuda", lambda: True)
    assert registry.choose("auto", False, given)[0] == "gct"
    assert registry.choose("auto", True, given)[0] == "rgbd"
    assert registry.choose("auto", False, Config())[0] == "geometric"
    name = weights.CATALOGUE[0].name
    (tmp_path / f"{name}.safetensors").write_bytes(own_weights.read_bytes())
    assert registry.choose("auto", False, Config())[0] == "gct"
    with pytest.raises(InputError, match="no such file"):
        registry.choose("auto", False, build(Config, {"gct.weights": "typo.pt"}))


def test_without_torch_the_extra_is_named(monkeypatch, own_weights):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"recon3d_ros\[learned\]"):
        registry.create("gct", build(Config, {"gct.weights": str(own_weights)}))


def test_a_run_from_the_command_line(tmp_path, own_weights, caplog):
    source = "synthetic:room/forward?frames=12&size=84x56"
    flags = ["--backend", "gct", "--weights", str(own_weights), "--quiet", "--out", str(tmp_path / "out")]
    flags += ["--set", "gct.image_width=56", "--set", "gct.memory_budget_mb=64"]
    with caplog.at_level(logging.INFO):
        assert main(["run", source, *flags]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["frames"] == report["tracked"] == 12
    assert report["scale_state"] == "learned" and report["alignment"] == "sim3"
    statistics = report["backend_statistics"]
    assert statistics["memory_budget_mb"] == 64 and statistics["planned_mb"] <= 64
    assert statistics["cache_mb"] <= statistics["planned_mb"] and statistics["sliding_window"] >= 1
    assert "| sliding_window |" in (tmp_path / "out" / "report.md").read_text()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "sliding window of 64 keyframes (memory_budget_mb 64 allows" in log


def test_a_budget_that_is_too_small_is_refused_with_the_one_that_would_do(tmp_path, own_weights, capsys):
    def attempt(budget):
        flags = ["--backend", "gct", "--weights", str(own_weights), "--quiet", "--out", str(tmp_path / "out")]
        flags += ["--set", "gct.image_width=56", "--set", f"gct.memory_budget_mb={budget}"]
        return main(["run", "synthetic:room/forward?frames=3&size=84x56", *flags])

    assert attempt(1) == 2
    error = capsys.readouterr().err
    needed = int(error.partition("need at least ")[2].split()[0])
    assert attempt(needed) == 0
    assert attempt(needed - 1) == 2
