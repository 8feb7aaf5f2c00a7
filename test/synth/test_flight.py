# SPDX-License-Identifier: Apache-2.0
"""Synthetic flights: the same every time, smooth, clear of obstacles, and good to track."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import inverse, is_pose, rotation_angle, transform
from recon3d_ros.synth.flight import SCENES, FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.paths import PATHS
from recon3d_ros.synth.sensor import Faults

SMALL = camera_of(96, 72, 70.0)


def flight(scene="room", path="orbit", seed=1, **options):
    return SyntheticFlight(scene, path, FlightOptions(**{"frames": 6, "camera": SMALL} | options), seed)


@pytest.fixture(scope="module")
def scenes():
    return {name: make(1) for name, make in SCENES.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scene", SCENES)
def test_paths_are_smooth_and_keep_clear_of_the_scene(scene, path):
    f = flight(scene, path, frames=400)
    poses = f.truth.poses
    assert all(is_pose(T, 1e-9) for T in poses[::20])
    assert f.scene.distance(f.truth.positions).min() > (0.3 if scene == "room" else 2.5)
    steps = np.linalg.norm(np.diff(f.truth.positions, axis=0), axis=1) * f.options.fps
    turns = [rotation_angle(A[:3, :3].T @ B[:3, :3]) * f.options.fps for A, B in pairwise(poses)]
    assert steps.max() < 1.4 * f.scene.site.speed
    assert np.degrees(np.max(turns)) < 45


def test_stamps_start_at_one_second_and_follow_the_rate():
    stamps = flight(fps=30.0, frames=4).truth.stamps_ns
    assert stamps.tolist() == [1_000_000_000, 1_033_333_333, 1_066_666_667, 1_100_000_000]


def test_frames_bring_camera_but_neither_depth_nor_prior_unless_asked():
    plain = flight().frame(0)
    assert plain.camera == SMALL and plain.depth is None and plain.prior is None
    rich = flight(depth=True, prior=True)
    np.testing.assert_array_equal(rich.frame(2).prior, rich.truth.poses[2])
    np.testing.assert_array_equal(rich.frame(2).depth, rich.view(2)[1])


def test_same_seed_gives_the_same_bytes_in_any_order():
    faults = Faults(noise=4, depth_noise=0.01, prior_noise=0.05, drop=0.2, exposure_drift=0.2, blur=0.7)
    options = dict(depth=True, prior=True, faults=faults)
    first = list(flight(**options))
    again = flight(**options)
    order = list(reversed(again.delivered))
    second = [again.frame(i) for i in order][::-1]
    assert len(first) == len(second) > 2
    for a, b in zip(first, second, strict=True):
        assert a.stamp_ns == b.stamp_ns
        assert a.image.tobytes() == b.image.tobytes() and a.depth.tobytes() == b.depth.tobytes()
        np.testing.assert_array_equal(a.prior, b.prior)
    assert flight(seed=2).frame(0).image.tobytes() != flight().frame(0).image.tobytes()


def test_each_fault_does_what_it_says():
    clean = flight().frame(3).image.astype(float)
    noisy = flight(faults=Faults(noise=5.0)).frame(3).image
    assert 3.5 < (noisy - clean).std() < 5.5
    dark = flight(faults=Faults(exposure_step=0.5))
    np.testing.assert_array_equal(dark.frame(2).image, flight().frame(2).image)
    assert dark.frame(3).image.mean() == pytest.approx(0.5 * clean.mean(), rel=0.02)
    sharpness = cv2.Laplacian(clean, cv2.CV_64F).std()
    for fault in (Faults(blur=1.5), Faults(shutter=1.0)):
        assert cv2.Laplacian(flight(faults=fault).frame(3).image, cv2.CV_64F).std() < 0.9 * sharpness
    error = flight(depth=True, faults=Faults(depth_noise=0.02)).frame(3).depth / flight().view(3)[1] - 1
    assert error.std() == pytest.approx(0.02, rel=0.1)


def test_dropped_frames_never_arrive_but_keep_their_truth():
    f = flight(frames=10, faults=Faults(drop_from=3, drop_to=5))
    stamps = [frame.stamp_ns for frame in f]
    assert len(f) == len(stamps) == 7 and len(f.truth) == 10
    assert stamps == np.delete(f.truth.stamps_ns, [3, 4, 5]).tolist()
    share = len(flight(frames=400, faults=Faults(drop=0.25))) / 400
    assert 0.68 < share < 0.82


@pytest.mark.parametrize(
    "options", [dict(frames=0), dict(fps=0.0), dict(fps=float("nan"))], ids=lambda o: next(iter(o))
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError):
        flight(**options)
    with pytest.raises(InputError):
        Faults(noise=-1.0)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        InputError, match=r"'bilding'; did you mean 'building'\? Known: building, terrain, room"
    ):
        SyntheticFlight("bilding")
    with pytest.raises(
        InputError, match=r"unknown synthetic path 'spiral'.*orbit, lookaround, lawnmower, forward, hover"
    ):
        SyntheticFlight("room", "spiral")


@pytest.mark.parametrize("scene", SCENES)
def test_a_tracker_follows_the_texture_to_a_fifth_of_a_pixel(scene):
    f = flight(scene, frames=42, camera=camera_of(640, 480, 70.0))
    (a, depth), (b, _) = f.view(40), f.view(41)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b)]
    corners = cv2.goodFeaturesToTrack(grey[0], 1500, 0.005, 10, blockSize=5)[:, 0]
    found, _, _ = cv2.calcOpticalFlowPyrLK(*grey, corners, None, winSize=(21, 21), maxLevel=4)
    camera, (u, v) = f.options.camera, corners.astype(int).T
    z = depth[v, u].astype(float)
    points = np.c_[camera.unproject(corners) * z[:, None], z]
    A, B = f.truth.poses[40], f.truth.poses[41]
    expected = camera.project(transform(inverse(B) @ A, points))
    inside = ((expected > 0) & (expected < np.array(camera.size) - 1)).all(axis=1)
    assert inside.sum() >= 500
    assert np.median(np.linalg.norm(found - expected, axis=1)[inside]) < 0.2
