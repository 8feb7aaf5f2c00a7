# SPDX-License-Identifier: Apache-2.0
"""What the mesher decides by itself: duplicates, truncation and voxel size by the noise of the depth, relative limits."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.types import Scale
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.noise import inverse_depth_noise


def mesher(**params):
    return Mesher(MeshParams(**{"voxel_size": 0.04, **params}))


def scaled(keyframe, factor, id_):
    """The same view of a world so many times as large."""
    T = keyframe.T_map_cam.copy()
    T[:3, 3] *= factor
    return replace(keyframe, id=id_, T_map_cam=T, points=keyframe.points * np.float32(factor))


def moved(keyframe, way, id_):
    """The same depth seen from a place displaced by `way` along the map's x axis."""
    T = keyframe.T_map_cam.copy()
    T[0, 3] += way
    points = (keyframe.points + np.array([way, 0.0, 0.0])).astype(np.float32)
    return replace(keyframe, id=id_, T_map_cam=T, points=points)


def test_m8_a_keyframe_of_what_is_known_from_the_same_place_is_skipped_but_every_nth(take_flight):
    shot = take_flight(1)[0]
    target = mesher(duplicate_weight=3.0, duplicate_every=4)
    taken = [target.integrate(shot.keyframe(i)) for i in range(15)]
    assert taken == [True] * 3 + 3 * [False, False, False, True]
    assert target.counters["seen before"] == 9 and target.keyframes == 6


@pytest.mark.parametrize("factor", [1.0, 128.0])
def test_m8_m10_motion_counts_in_median_depths(take_flight, factor):
    keyframe = take_flight(1)[0].keyframe()
    median = np.median((keyframe.points - keyframe.T_map_cam[:3, 3]) @ keyframe.T_map_cam[:3, 2])
    target = mesher(voxel_size=0.0, voxel_share=0.02, duplicate_motion=0.02, duplicate_every=100)
    for i in range(6):
        target.integrate(scaled(keyframe, factor, i))
    assert not target.integrate(scaled(moved(keyframe, 0.019 * median, 7), factor, 7))
    assert target.integrate(scaled(moved(keyframe, 0.021 * median, 8), factor, 8))


def test_m8_what_is_new_is_integrated_though_the_camera_stands_still_inside_the_map(take_flight, box_corners):
    """A box appears over empty space in the middle of the scene."""
    empty, full = take_flight(1, box_corners[:1])[0], take_flight(1)[0]
    target = mesher(duplicate_every=100)
    for i in range(8):
        target.integrate(empty.keyframe(i))
    assert target.counters["seen before"] == 3
    assert target.integrate(full.keyframe(8))


def test_m8_voxels_count_once_however_many_pixels_see_them(take_wall):
    """A known board close to the camera fills nine tenths of the pixels; what is new has more voxels."""
    wall = take_wall(3.0)
    depth = wall.points[:, 2].copy()
    board = wall.points[:, 0] < 0.85 * wall.points[:, 0].max()
    depth[board] = 1.05
    both = replace(wall, points=(wall.points / 3.0 * depth[:, None]).astype(np.float32))
    target = mesher(duplicate_share=0.8, duplicate_every=100, duplicate_weight=2.0)
    for i in range(3):
        target.integrate(replace(both, id=i, points=both.points[board], colours=both.colours[board]))
    assert board.mean() > 0.9
    assert target.integrate(replace(both, id=5))


def test_m8_a_share_of_zero_integrates_everything(take_flight):
    shot = take_flight(1)[0]
    target = mesher(duplicate_share=0.0)
    assert all(target.integrate(shot.keyframe(i)) for i in range(12))


@pytest.mark.parametrize("sigma", [0.002, 0.01])
def test_the_noise_of_inverse_depth_is_measured_on_any_scene(take_flight, sigma):
    for shot in take_flight(3):
        known = shot.depth > 0
        noise = sigma * np.random.default_rng(0).normal(size=shot.depth.shape)
        inverse = np.where(known, 1 / np.where(known, shot.depth, 1) + noise, 0)
        depth = np.where(known, 1 / np.maximum(inverse, 1e-3), 0).astype(np.float32)
        assert inverse_depth_noise(depth) == pytest.approx(sigma, rel=0.15)
        assert inverse_depth_noise(shot.depth.astype(np.float32)) < 1e-3
    assert inverse_depth_noise(np.zeros((100, 100), np.float32)) == 0.0


def test_noise_wider_than_the_band_widens_it_and_the_far_surface_is_met(take_wall):
    """At twice the median depth the noise is 3 voxels; a band of 4 voxels sees only its near side."""
    errors = {}
    for widened in (0.0, 3.0):
        target = mesher(
            voxel_size=0.05, noise_truncation=widened, max_truncation=12.0, max_depth=10.0, min_weight=5.0
        )
        for i in range(30):
            target.integrate(take_wall(6.0, sigma=0.15 / 36, id_=i))
        mesh = target.surface()
        errors[widened] = np.abs(mesh.vertices[:, 2] - 6.0) / 0.05
    assert np.percentile(errors[3.0], 95) < 0.8 * np.percentile(errors[0.0], 95)
    assert errors[3.0].mean() < 1.0


def test_near_surfaces_are_not_touched_by_the_noise_that_far_ones_have(take_flight):
    """Where three deviations are less than the truncation, every voxel is as with a constant one."""
    meshes = []
    for widened in (0.0, 3.0):
        target = mesher(noise_truncation=widened, max_depth=1.5)
        for i, shot in enumerate(take_flight(4)):
            target.integrate(shot.keyframe(i, noise=0.005))
        meshes.append(target.surface())
    assert np.array_equal(meshes[0].vertices, meshes[1].vertices)
    assert np.array_equal(meshes[0].colours, meshes[1].colours)


def test_a_voxel_size_that_is_not_given_is_not_finer_than_the_noise(take_wall):
    for sigma, expected in ((0.0, 0.008 * 4.0), (0.05 / 16, 0.05)):
        target = mesher(voxel_size=0.0)
        target.integrate(take_wall(4.0, sigma=sigma))
        assert target.voxel_size == pytest.approx(expected, rel=0.15)
    given = mesher(voxel_size=0.0, depth_noise=0.02)
    given.integrate(take_wall(4.0))
    assert given.voxel_size == pytest.approx(0.02 * 4.0, rel=0.01)


@pytest.mark.parametrize(("scale", "lines"), [(Scale.UNKNOWN, 1), (Scale.SENSOR, 0)])
def test_m10_a_voxel_size_in_unknown_units_is_warned_of_once(take_flight, caplog, scale, lines):
    target = mesher(voxel_size=0.05)
    for i, shot in enumerate(take_flight(3)):
        target.integrate(replace(shot.keyframe(i), scale=scale))
    assert sum("mesh.voxel_size" in record.message for record in caplog.records) == lines
    derived = mesher(voxel_size=0.0)
    derived.integrate(take_flight(1)[0].keyframe())
    assert sum("mesh.voxel_size" in record.message for record in caplog.records) == lines
