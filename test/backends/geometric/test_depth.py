# SPDX-License-Identifier: Apache-2.0
"""Dense depth of the geometric backend, on textured planes rendered here with exact depth."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from recon3d_ros.backends.geometric import dense
from recon3d_ros.backends.geometric.consistency import confirmed, without_seams
from recon3d_ros.backends.geometric.dense import DenseKeyframe, DenseResult, DenseWorker, prepare
from recon3d_ros.backends.geometric.depth_window import DepthWindow, RawDepth
from recon3d_ros.backends.geometric.sgm import aggregate, winner
from recon3d_ros.backends.geometric.sweep import UNKNOWN, plane_sweep
from recon3d_ros.core.backend_params import GeometricParams
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import inverse, pose, so3_exp

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
PARAMS = GeometricParams(depth_width=160)
RANGE = (1.5, 8.0)


@dataclass(frozen=True, eq=False)
class Patch:
    """A textured rectangle: centre, its two half axes, and the grey levels its texture spans around 128."""

    centre: tuple[float, float, float]
    right: tuple[float, float, float] = (9.0, 0.0, 0.0)
    down: tuple[float, float, float] = (0.0, 9.0, 0.0)
    contrast: float = 200.0


WALL = [Patch((0.0, 0.0, 4.0))]
SLANTED = [Patch((0.0, 0.0, 4.0), right=(9.0, 0.0, 6.0))]
BOX_BEFORE_WALL = [*WALL, Patch((0.0, 0.0, 2.5), (0.5, 0.0, 0.0), (0.0, 0.5, 0.0))]
#: Left of the middle there is nothing to see on the wall.
HALF_PLAIN = [*WALL, Patch((-4.5, 0.0, 3.99), (4.5, 0.0, 0.0), contrast=0.0)]


def texture(u: np.ndarray, v: np.ndarray, seed: float) -> np.ndarray:
    """Many waves of all directions, none finer than about four pixels at the depths used here; about -0.5 to 0.5."""
    rng = np.random.default_rng(5)
    total = np.zeros_like(u)
    for wavelength in np.geomspace(0.12, 1.5, 40):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        total += np.sin(
            2 * np.pi / wavelength * (u * np.cos(angle) + v * np.sin(angle)) + phase + seed * angle
        )
    return np.clip(total / 20, -0.5, 0.5)


def render(
    camera: Camera, T_map_cam: np.ndarray, patches: list[Patch], noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """RGB image and exact depth (NaN where there is no patch)."""
    xy = camera.rays().astype(np.float64)
    directions = np.concatenate([xy, np.ones_like(xy[..., :1])], -1) @ T_map_cam[:3, :3].T
    eye = T_map_cam[:3, 3]
    depth, grey = np.full(xy.shape[:2], np.inf), np.full(xy.shape[:2], 128.0)
    for number, p in enumerate(patches):
        right, down = np.array(p.right), np.array(p.down)
        normal = np.cross(right, down)
        z = (np.array(p.centre) - eye) @ normal / (directions @ normal)
        offset = eye + z[..., None] * directions - p.centre
        u, v = offset @ right / np.linalg.norm(right), offset @ down / np.linalg.norm(down)
        hit = (z > 0) & (z < depth) & (abs(u) <= np.linalg.norm(right)) & (abs(v) <= np.linalg.norm(down))
        depth = np.where(hit, z, depth)
        grey = np.where(hit, 128 + p.contrast * texture(u, v, number), grey)
    grey += np.random.default_rng(int(1e4 * abs(eye.sum())) + 1).normal(0, noise, grey.shape)
    image = np.repeat(np.clip(grey + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return image, np.where(np.isfinite(depth), depth, np.nan)


def flight(count: int = 5) -> list[np.ndarray]:
    """Poses along a line with small turns, 0.3 apart: a baseline of about 0.08 of the depth."""
    return [
        pose(
            so3_exp(np.array([0.0, 0.01 * i, 0.005])), np.array([0.3 * (i - count // 2), 0.05 * (i % 2), 0.0])
        )
        for i in range(count)
    ]


@dataclass(frozen=True, eq=False)
class View:
    keyframe: DenseKeyframe
    T_map_cam: np.ndarray
    truth: np.ndarray


def views(patches: list[Patch], count: int = 5) -> list[View]:
    out = []
    for i, T in enumerate(flight(count)):
        image, truth = render(CAMERA, T, patches)
        out.append(View(prepare(i, i * 10**8, image, CAMERA, PARAMS), T, truth))
    return out


def submit(
    worker: DenseWorker,
    seen: list[View],
    i: int,
    depth_range: tuple[float, float] = RANGE,
    patient: bool = False,
) -> None:
    near = sorted((j for j in range(len(seen)) if j != i), key=lambda j: abs(j - i))[:4]
    around = [(seen[j].keyframe, seen[j].T_map_cam) for j in near]
    worker.submit(seen[i].keyframe, seen[i].T_map_cam, around, depth_range, patient)


def depth_of(patches: list[Patch], count: int = 5) -> tuple[list[DenseResult], list[View]]:
    seen = views(patches, count)
    worker = DenseWorker(PARAMS, realtime=False)
    for i in range(count):
        submit(worker, seen, i)
    results = worker.results(wait=True)
    worker.close()
    assert worker.failed == 0
    return results, seen


@pytest.fixture
def worker() -> Iterator[Callable[..., DenseWorker]]:
    """Makes workers that are closed at the end."""
    made: list[DenseWorker] = []

    def make(realtime: bool = False, queue: int = 3) -> DenseWorker:
        made.append(DenseWorker(replace(PARAMS, depth_queue=queue), realtime))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds every worker at its next keyframe until opened."""
    g = Gate()
    monkeypatch.setattr(dense, "plane_sweep", g)
    yield g
    g.open.set()


class Gate:
    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, grey, camera, neighbours, inverse_depths):  # type: ignore[no-untyped-def]
        if len(grey) > 8:  # not the images the kernels are compiled with
            self.reached.set()
            self.open.wait()
        return plane_sweep(grey, camera, neighbours, inverse_depths)


def relative_error(result: DenseResult, truth: np.ndarray) -> np.ndarray:
    error = abs(result.depth - truth) / truth
    return error[np.isfinite(error)]


def test_a_slanted_wall_is_recovered_within_half_a_percent() -> None:
    results, seen = depth_of(SLANTED)
    for result, view in zip(results, seen, strict=True):
        error = relative_error(result, view.truth)
        assert np.median(error) < 0.005
        assert np.percentile(error, 99) < 0.03
        assert error.size > 0.7 * view.truth.size
    assert relative_error(results[2], seen[2].truth).size > 0.85 * seen[2].truth.size


def test_between_a_box_and_the_wall_behind_there_is_no_depth_between_the_two() -> None:
    results, seen = depth_of(BOX_BEFORE_WALL)
    depth, truth = results[2].depth, seen[2].truth
    box, wall = truth < 3, truth > 3
    assert np.isfinite(depth[box]).mean() > 0.8
    assert np.isfinite(depth[wall]).mean() > 0.8
    assert np.percentile(relative_error(results[2], truth), 95) < 0.02
    between = (depth > 2.65) & (depth < 3.8)
    assert between.mean() < 0.002
    assert (abs(depth - truth) > 1).mean() < 0.01


def test_a_wall_without_texture_gets_no_depth() -> None:
    results, _ = depth_of(HALF_PLAIN)
    for result in results[1:4]:
        assert np.isfinite(result.depth[:, :60]).mean() < 0.02
    assert np.isfinite(results[2].depth[:, 90:]).mean() > 0.8


def test_confidence_lies_between_0_and_1_and_is_0_without_depth() -> None:
    results, _ = depth_of(BOX_BEFORE_WALL)
    for r in results:
        known = np.isfinite(r.depth)
        assert r.depth.dtype == r.confidence.dtype == np.float32
        assert (r.confidence[known] > 0).all() and (r.confidence <= 1).all()
        assert (r.confidence[~known] == 0).all()
        assert np.median(r.confidence[known]) > 0.5


def test_results_carry_the_small_image_its_camera_and_stamp() -> None:
    results, seen = depth_of(WALL)
    assert [r.index for r in results] == [0, 1, 2, 3, 4]
    for result, view in zip(results, seen, strict=True):
        assert result.stamp_ns == view.keyframe.stamp_ns
        assert result.camera == view.keyframe.camera
        assert result.colours is view.keyframe.image


def test_results_depend_on_what_was_submitted_not_on_when_they_were_fetched(
    worker: Callable[..., DenseWorker],
) -> None:
    seen = views(BOX_BEFORE_WALL, 6)
    patient, hasty = worker(), worker(queue=1)
    for i in range(6):
        submit(patient, seen, i)
    at_once = patient.results(wait=True)
    one_by_one = []
    for i in range(6):
        submit(hasty, seen, i)
        one_by_one += hasty.results()
    one_by_one += hasty.results(wait=True)
    assert [r.index for r in at_once] == [r.index for r in one_by_one] == list(range(6))
    for a, b in zip(at_once, one_by_one, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_array_equal(a.confidence, b.confidence)


def test_a_keyframe_waits_for_the_two_after_it() -> None:
    window, got = DepthWindow(), []
    for view in views(WALL, 6):
        depth = view.truth.astype(np.float32)
        got.append(window.add(RawDepth(view.keyframe, view.T_map_cam, depth, np.ones_like(depth), 0.01)))
    assert [[r.index for r in results] for results in got] == [[], [], [], [], [0, 1, 2], [3]]
    assert [r.index for r in window.flush()] == [4, 5]
    assert window.flush() == []


def test_of_two_keyframes_one_confirms_the_other_and_a_single_one_stays_empty() -> None:
    results, seen = depth_of(WALL, 2)
    for result, view in zip(results, seen, strict=True):
        assert relative_error(result, view.truth).size > 0.7 * view.truth.size
    w = DenseWorker(PARAMS, realtime=False)
    submit(w, seen, 0)
    (alone,) = w.results(wait=True)
    w.close()
    assert np.isnan(alone.depth).all()


def test_in_real_time_a_full_queue_drops_the_new_keyframe_and_counts_it(
    worker: Callable[..., DenseWorker], gate: Gate
) -> None:
    seen, w = views(WALL), worker(realtime=True, queue=1)
    submit(w, seen, 0)
    gate.reached.wait()
    for i in (1, 2, 3):
        submit(w, seen, i)
    assert w.dropped == 2
    gate.open.set()
    assert [r.index for r in w.results(wait=True)] == [0, 1]
    submit(w, seen, 4)
    assert [r.index for r in w.results(wait=True)] == [4]
    assert w.failed == 0


def test_in_real_time_a_patient_keyframe_waits_for_room_and_is_not_dropped(
    worker: Callable[..., DenseWorker], gate: Gate
) -> None:
    seen, w = views(WALL), worker(realtime=True, queue=1)
    submit(w, seen, 0)
    gate.reached.wait()
    assert not w.full
    submit(w, seen, 1)
    assert w.full
    late = threading.Thread(target=submit, args=(w, seen, 2), kwargs={"patient": True})
    late.start()
    late.join(0.1)
    assert late.is_alive()
    gate.open.set()
    late.join(30)
    assert [r.index for r in w.results(wait=True)] == [0, 1, 2]
    assert w.dropped == 0


def test_offline_a_full_queue_makes_the_caller_wait(worker: Callable[..., DenseWorker], gate: Gate) -> None:
    seen, w = views(WALL), worker(queue=1)
    submit(w, seen, 0)
    gate.reached.wait()
    submit(w, seen, 1)
    late = threading.Thread(target=submit, args=(w, seen, 2))
    late.start()
    late.join(0.1)
    assert late.is_alive()
    gate.open.set()
    late.join(30)
    assert [r.index for r in w.results(wait=True)] == [0, 1, 2]
    assert w.dropped == 0


def test_an_error_is_counted_and_logged_and_the_stream_goes_on(
    worker: Callable[..., DenseWorker], caplog: pytest.LogCaptureFixture
) -> None:
    seen, w = views(WALL), worker()
    with caplog.at_level(logging.WARNING):
        for i in range(5):
            submit(w, seen, i, (0.0, 8.0) if i == 2 else RANGE)
        results = w.results(wait=True)
    assert [r.index for r in results] == [0, 1, 3, 4]
    assert w.failed == 1
    assert "no depth for keyframe 2" in caplog.text


@pytest.mark.parametrize("damage", [np.nan, 1e30])
def test_a_broken_pose_gives_no_depth_and_harms_no_other(
    worker: Callable[..., DenseWorker], damage: float
) -> None:
    seen, w = views(WALL), worker()
    broken = seen[4].T_map_cam.copy()
    broken[:3, 3] = damage
    seen[4] = replace(seen[4], T_map_cam=broken)
    for i in range(5):
        submit(w, seen, i)
    results = {r.index: r for r in w.results(wait=True)}
    assert relative_error(results[1], seen[1].truth).size > 0.7 * seen[1].truth.size
    assert 4 not in results or np.isfinite(results[4].depth).mean() < 0.02


def test_reset_forgets_and_close_may_be_called_twice(worker: Callable[..., DenseWorker]) -> None:
    seen, w = views(WALL), worker()
    for i in range(3):
        submit(w, seen, i)
    w.reset()
    assert w.results(wait=True) == []
    submit(w, seen, 0)
    submit(w, seen, 1)
    assert [r.index for r in w.results(wait=True)] == [0, 1]
    assert set(w.stage_ms()) == {"depth_sweep_ms", "depth_sgm_ms", "depth_check_ms"}
    w.close()
    w.close()
    with pytest.raises(RuntimeError, match="closed"):
        submit(w, seen, 0)


def test_prepare_shrinks_to_the_asked_width_and_never_enlarges() -> None:
    image = np.zeros((370, 1226, 3), np.uint8)
    camera = Camera(1226, 370, 700.0, 700.0, 600.0, 180.0)
    small = prepare(3, 7, image, camera, GeometricParams(depth_width=320))
    assert small.image.shape == (97, 320, 3) and small.grey.shape == (97, 320)
    assert small.camera == camera.resized(320, 97)
    assert (small.index, small.stamp_ns) == (3, 7)
    assert prepare(0, 0, image, camera, GeometricParams(depth_width=1920)).image is image


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("plumb_bob", (-0.3, 0.1, 0.002, -0.001, 0.0)), ("equidistant", (0.05, -0.01, 0.0, 0.0))],
)
def test_prepare_takes_the_distortion_out(model: str, distortion: tuple[float, ...]) -> None:
    bent = Camera(640, 480, 600.0, 600.0, 319.5, 239.5, model, distortion)
    params = GeometricParams(depth_width=160)
    straight = prepare(0, 0, render(bent, np.eye(4), WALL, noise=0)[0], bent, params)
    expected = prepare(
        0, 0, render(bent.undistorted(), np.eye(4), WALL, noise=0)[0], bent.undistorted(), params
    )
    assert straight.camera == expected.camera
    seen = straight.grey > 0
    assert seen.mean() > 0.9
    assert abs(straight.grey.astype(int) - expected.grey)[seen].mean() < 2


def test_the_sweep_is_cheapest_at_the_true_plane_and_knows_what_it_cannot_see() -> None:
    left, middle, right = views(WALL, 3)
    neighbours = [
        (v.keyframe.grey, v.keyframe.camera, inverse(v.T_map_cam) @ middle.T_map_cam) for v in (left, right)
    ]
    depths = np.array([8.0, 6.0, 5.0, 4.0, 3.0, 2.0])
    cost = plane_sweep(middle.keyframe.grey, CAMERA, neighbours, (1 / depths).astype(np.float32))
    assert cost.shape == (120, 160, 6) and cost.dtype == np.uint8
    assert (cost[10:-10, 30:-30].argmin(axis=2) == 3).mean() > 0.97
    away = pose(so3_exp(np.array([0.0, np.pi, 0.0])), np.zeros(3))
    unseen = plane_sweep(
        middle.keyframe.grey, CAMERA, [(left.keyframe.grey, CAMERA, away)], np.ones(2, np.float32)
    )
    assert (unseen == UNKNOWN).all()


def test_the_sweep_takes_neighbours_of_another_size() -> None:
    left, middle, right = views(WALL, 3)
    image, _ = render(CAMERA.resized(200, 150), right.T_map_cam, WALL)
    larger = prepare(2, 0, image, CAMERA.resized(200, 150), replace(PARAMS, depth_width=200))
    neighbours = [
        (k.grey, k.camera, inverse(v.T_map_cam) @ middle.T_map_cam)
        for k, v in ((left.keyframe, left), (larger, right))
    ]
    cost = plane_sweep(middle.keyframe.grey, CAMERA, neighbours, np.array([0.5, 0.25, 0.125], np.float32))
    assert (cost[10:-10, 30:-30].argmin(axis=2) == 1).mean() > 0.97


def test_matching_smooths_over_wrong_costs_and_finds_the_plane_between_planes() -> None:
    rng = np.random.default_rng(0)
    planes = np.arange(32)
    cost = np.tile(np.minimum(25 * abs(planes - 12.3), 200).astype(np.uint8), (40, 50, 1))
    wrong = rng.random((40, 50)) < 0.1
    cost[wrong] = rng.integers(60, 200, (int(wrong.sum()), 32))
    grey = np.full((40, 50), 100, np.uint8)
    plane, confidence = winner(aggregate(cost, grey), cost)
    assert np.nanmedian(abs(plane - 12.3)) < 0.1
    assert (abs(plane - 12.3) < 2).mean() > 0.98 > (abs(cost.argmin(axis=2) - 12.3) < 2).mean() + 0.05
    assert np.median(confidence[~wrong]) > 0.8


def test_a_winner_at_either_end_of_the_range_is_no_depth() -> None:
    cost = np.full((4, 6, 16), 150, np.uint8)
    cost[:, :3, 0] = cost[:, 3:, -1] = 0
    plane, confidence = winner(aggregate(cost, np.zeros((4, 6), np.uint8)), cost)
    assert np.isnan(plane).all() and (confidence == 0).all()


def test_depth_that_others_contradict_is_dropped_and_nothing_is_filled() -> None:
    depth = np.full((30, 40), 2.0, np.float32)
    depth[10:20, 10:20] = 1.5
    depth[25:, :] = np.nan
    camera = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)
    truth = np.full((30, 40), 2.0, np.float32)
    kept = confirmed(depth, 0.01, camera, [(truth, camera, np.eye(4)), (truth, camera, np.eye(4))])
    assert np.isnan(kept[10:20, 10:20]).all() and np.isnan(kept[25:]).all()
    assert (kept[:8] == 2.0).all()
    assert np.isnan(confirmed(depth, 0.01, camera, [])).all()


def test_one_agreeing_of_two_others_is_not_enough() -> None:
    camera = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)
    two, three = np.full((30, 40), 2.0, np.float32), np.full((30, 40), 3.0, np.float32)
    here = np.eye(4)
    assert np.isnan(confirmed(two, 0.01, camera, [(two, camera, here), (three, camera, here)])).all()
    assert np.isfinite(confirmed(two, 0.01, camera, [(two, camera, here)])).all()


def test_near_depth_beside_an_edge_is_taken_away_and_wild_pixels_take_nothing() -> None:
    depth = np.full((20, 20), 4.0, np.float32)
    depth[:, :10] = 2.0
    depth[5, 3] = 9.0
    kept = without_seams(depth, 0.01)
    assert np.isnan(kept[:, 8:10]).all()
    assert np.isfinite(np.delete(kept, [8, 9], axis=1)).all()


def test_one_agreeing_is_enough_where_no_other_has_depth() -> None:
    camera = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)
    two, half = np.full((30, 40), 2.0, np.float32), np.full((30, 40), 3.0, np.float32)
    half[:, 20:] = np.nan
    kept = confirmed(two, 0.01, camera, [(two, camera, np.eye(4)), (half, camera, np.eye(4))])
    assert np.isnan(kept[:, :20]).all() and np.isfinite(kept[:, 20:]).all()


def test_far_depth_agrees_within_what_the_sweep_can_tell_apart() -> None:
    camera = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)
    far, farther = np.full((30, 40), 100.0, np.float32), np.full((30, 40), 104.0, np.float32)
    here = np.eye(4)
    assert np.isfinite(confirmed(far, 0.001, camera, [(farther, camera, here)])).all()
    assert np.isnan(confirmed(far, 0.0001, camera, [(farther, camera, here)])).all()


def test_the_slope_of_distant_ground_is_no_edge() -> None:
    depth = np.repeat((400.0 / np.arange(2, 22, dtype=np.float32))[:, None], 20, axis=1)
    assert np.isfinite(without_seams(depth, 0.01)).all()
    assert np.isnan(without_seams(depth, 0.0001)[:5]).any()
