# SPDX-License-Identifier: Apache-2.0
"""The mesh against exact surfaces, and every shortcut of the mesher against doing the whole work anew."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.warm_up import warm_up


def mesher(**params):
    return Mesher(MeshParams(**{"voxel_size": 0.04, **params}))


def fed(target, shots, first=0, **how):
    """The mesher after the keyframes of some shots."""
    for i, shot in enumerate(shots, first):
        assert target.integrate(shot.keyframe(i, **how))
    return target


def equal(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("vertices", "triangles", "colours")
    )


def sides(mesh):
    """How often each undirected edge is a side of a triangle."""
    t = mesh.triangles
    pairs = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1)
    return np.unique(pairs, axis=0, return_counts=True)[1]


def normals(mesh):
    a, b, c = (mesh.vertices[mesh.triangles[:, i]].astype(float) for i in range(3))
    return np.cross(b - a, c - a)


def distance_to_boxes(points, corners):
    """Distance [N] to the surface of the union of boxes."""
    signed = []
    for low, high in corners:
        q = np.abs(points - np.add(low, high) / 2) - np.subtract(high, low) / 2
        signed.append(np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0))
    return np.abs(np.min(signed, axis=0))


@pytest.mark.parametrize("voxel_size", [0.05, 0.02, 0.01])
def test_m11_m12_a_sphere_is_closed_faces_outwards_and_lies_within_half_a_voxel(sphere_shots, voxel_size):
    mesh = fed(mesher(voxel_size=voxel_size, truncation=3.0), sphere_shots).surface()
    edges = sides(mesh)
    assert (edges == 2).all()
    assert len(mesh.vertices) - len(edges) + len(mesh.triangles) == 2
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)
    outwards = mesh.vertices[mesh.triangles].mean(axis=1)
    assert (np.einsum("ij,ij->i", normals(mesh), outwards) > 0).all()
    error = np.abs(np.linalg.norm(mesh.vertices.astype(float), axis=1) - 0.5) / voxel_size
    assert error.mean() < 0.12 and error.max() < 0.5


def test_m12_no_vertex_is_twice_in_a_region(sphere_shots):
    for block in fed(mesher(voxel_size=0.02), sphere_shots[:12]).all_blocks():
        assert len(np.unique(block.vertices, axis=0)) == len(block.vertices)
        assert np.array_equal(np.unique(block.triangles), np.arange(len(block.vertices)))


def test_m7_points_are_in_the_map_and_the_pose_is_not_applied_again(take_flight, box_corners):
    """A floor seen from two poses far from the origin: it lies where its points lie."""
    away = np.array([40.0, -25.0, 10.0])
    target = mesher()
    for i, shot in enumerate(take_flight(2, box_corners[:1])):
        keyframe = shot.keyframe(i)
        T = keyframe.T_map_cam.copy()
        T[:3, 3] += away
        assert target.integrate(
            replace(keyframe, T_map_cam=T, points=(keyframe.points + away).astype(np.float32))
        )
    z = target.surface().vertices[:, 2]
    assert len(z) > 1000 and np.median(z) == pytest.approx(10.0, abs=0.004)


def test_colours_are_those_of_the_surface(sphere_shots):
    mesh = fed(mesher(voxel_size=0.02), sphere_shots).surface()
    true = 127 + 120 * np.sin(3 * mesh.vertices)
    assert np.percentile(np.abs(mesh.colours - true), 95) < 8


def test_m11_boxes_on_a_floor_are_met_within_a_small_fraction_of_a_voxel(take_survey, box_corners):
    corners = [(np.multiply(8, low), np.multiply(8, high)) for low, high in box_corners]
    shots = take_survey(3, 5.0, 9.0, corners, Camera(640, 480, 585.0, 585.0, 319.5, 239.5))
    mesh = fed(mesher(voxel_size=0.05, min_weight=1.0), shots).surface()
    error = distance_to_boxes(mesh.vertices.astype(float), corners) / 0.05
    assert len(error) > 100_000 and np.percentile(error, 95) < 0.06


def test_many_views_average_out_a_noise_of_one_percent(take_survey, box_corners):
    shots = take_survey(5, 0.4, 2.5, camera=Camera(320, 240, 290.0, 290.0, 159.5, 119.5))
    mesh = fed(mesher(voxel_size=0.05, min_weight=5.0), shots, noise=0.01).surface()
    error = distance_to_boxes(mesh.vertices.astype(float), box_corners) / 0.05
    assert len(error) > 5_000 and np.percentile(error, 95) < 0.35


@pytest.mark.parametrize("max_blocks", [10_000, 500], ids=["room for all", "full"])
def test_following_the_changes_gives_the_mesh_of_a_full_extraction_bit_for_bit(
    take_flight, viewer, max_blocks
):
    target = mesher(max_blocks=max_blocks)
    # Noise moves every voxel; boxes that come and go, and confidence, exercise carving and the weight threshold.
    shots = take_flight(30)
    shots[10:20] = take_flight(10, [((-3, -3, -0.5), (3, 3, 0.0)), ((-0.2, -1, 0), (0.5, 0.2, 0.4))], seed=2)
    for i, shot in enumerate(shots):
        assert target.integrate(shot.keyframe(i, noise=0.01, confidence=0.3 + 0.1 * (i % 8)))
        if i % 3 == 0:
            viewer.follow(target.changed())
            viewer.assert_full(target)
    assert (target.counters["blocks evicted"] > 0) == (max_blocks == 500)
    assert target.blocks <= max_blocks


def test_m15_only_what_changed_is_given_again(take_flight):
    target = fed(mesher(), take_flight(6))
    everything = target.changed()
    assert target.changed() == []
    fed(target, take_flight(1, seed=5), first=6)
    changed = target.changed()
    assert 0 < len(changed) < len(everything)
    before = {block.id: block for block in everything}
    assert any(block.id in before and not equal(block, before[block.id]) for block in changed)


@pytest.mark.parametrize("carve", [True, False])
def test_a_box_that_is_taken_away_leaves_nothing_behind(take_flight, box_corners, carve):
    target = fed(mesher(carve=carve), take_flight(4))
    fed(target, take_flight(30, box_corners[:1]), first=4)
    above = target.surface().vertices[:, 2] > 0.1
    assert above.any() != carve


def test_m17_unusable_keyframes_are_counted_by_reason_and_change_nothing(take_flight):
    target = fed(mesher(), take_flight(2))
    before = target.surface()
    good = take_flight(3)[2].keyframe(7)
    broken, away = good.T_map_cam.copy(), good.T_map_cam.copy()
    broken[0, 0], away[0, 3] = np.nan, 1e9
    empty = np.empty((0, 3), np.float32)
    for keyframe in (
        replace(good, id=1),
        replace(good, T_map_cam=broken),
        replace(good, T_map_cam=np.zeros((4, 4))),
        replace(good, T_map_cam=away, points=(good.points + [1e9, 0, 0]).astype(np.float32)),
        replace(good, points=(1e8 * good.points).astype(np.float32)),
        replace(good, points=empty, colours=empty.astype(np.uint8)),
        replace(good, points=np.full_like(good.points, np.nan)),
        replace(good, points=good.points[:50], colours=good.colours[:50]),
    ):
        assert not target.integrate(keyframe)
    reasons = {"repeated", "bad pose", "few points", "out of range"}
    counted = {k: n for k, n in target.counters.items() if k in reasons}
    assert counted.keys() <= reasons and sum(counted.values()) == 8 and counted["bad pose"] == 2
    assert target.keyframes == 2 and equal(target.surface(), before)
    assert target.integrate(good)


def test_m17_bad_points_of_a_good_keyframe_are_dropped_and_counted(take_flight):
    keyframe = take_flight(1)[0].keyframe()
    points = np.concatenate([keyframe.points, np.full((30, 3), np.nan), np.full((5, 3), 1e12)]).astype(
        np.float32
    )
    colours = np.concatenate([keyframe.colours, np.zeros((35, 3), np.uint8)])
    with_bad, without = mesher(), mesher()
    assert with_bad.integrate(replace(keyframe, points=points, colours=colours)) and without.integrate(
        keyframe
    )
    assert with_bad.counters["points dropped"] >= 30
    assert equal(with_bad.surface(), without.surface())


def test_keyframes_of_different_cameras_make_one_mesh(take_flight, box_corners):
    wide = take_flight(6, camera=Camera(200, 100, 110.0, 110.0, 99.5, 49.5), seed=1)
    mesh = fed(mesher(), [*take_flight(6), *wide]).surface()
    assert np.median(distance_to_boxes(mesh.vertices.astype(float), box_corners)) < 0.01


def test_the_voxel_size_follows_the_depth_of_the_first_keyframe(take_flight):
    (shot,) = take_flight(1)
    median = np.median(shot.depth[shot.depth > 0])
    target = Mesher(MeshParams(voxel_size=0.0, voxel_share=0.02))
    assert target.voxel_size == 0.0
    assert not target.integrate(replace(shot.keyframe(), points=np.empty((0, 3), np.float32)))
    assert target.voxel_size == 0.0
    target.integrate(shot.keyframe())
    assert target.voxel_size == pytest.approx(0.02 * median, rel=0.03)


def test_a_scene_a_hundred_times_larger_gives_the_same_mesh_a_hundred_times_larger(take_flight):
    meshes = []
    for factor in (1.0, 128.0):
        target = Mesher(MeshParams(voxel_share=0.02))
        for i, shot in enumerate(take_flight(4)):
            keyframe = shot.keyframe(i)
            T = keyframe.T_map_cam.copy()
            T[:3, 3] *= factor
            target.integrate(replace(keyframe, T_map_cam=T, points=keyframe.points * np.float32(factor)))
        meshes.append(target.surface())
    assert np.array_equal(meshes[0].triangles, meshes[1].triangles)
    assert np.allclose(128 * meshes[0].vertices, meshes[1].vertices, rtol=1e-5)


def test_nothing_is_integrated_beyond_the_depth_limit(take_flight):
    (shot,) = take_flight(1)
    target = fed(mesher(max_depth=1.0, min_weight=1.0), [shot])
    T = shot.T_map_cam
    z = (target.surface().vertices - T[:3, 3]) @ T[:3, 2]
    median = np.median(shot.depth[shot.depth > 0])
    assert 0.9 * median < z.max() < median + 0.05


def test_m11_confidence_counts_as_observations(take_flight):
    (shot,) = take_flight(1)
    target = mesher(min_weight=1.0)
    target.integrate(shot.keyframe(0, confidence=0.6))
    assert len(target.surface().triangles) == 0
    target.integrate(shot.keyframe(1, confidence=0.6))
    assert len(target.surface().triangles) > 0


def test_m11_a_full_pool_refuses_what_it_cannot_hold_and_says_so_once(take_flight, caplog):
    target = fed(mesher(max_blocks=64, min_weight=1.0), take_flight(4))
    assert (
        target.blocks == 64
        and target.counters["blocks refused"] > 0
        and target.counters["blocks evicted"] > 0
    )
    assert sum("mesh.max_blocks" in record.message for record in caplog.records) == 1
    assert len(target.surface().triangles) > 0


def test_m22_reset_forgets_everything(take_flight):
    target = mesher(voxel_size=0.0)
    once = fed(target, take_flight(3)).surface()
    target.changed()
    target.reset()
    assert (target.voxel_size, target.blocks, target.triangles, target.keyframes) == (0.0, 0, 0, 0)
    assert target.changed() == [] and target.all_blocks() == [] and len(target.surface().triangles) == 0
    assert equal(fed(target, take_flight(3)).surface(), once)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"truncation": 9.0, "max_truncation": 8.0}, "mesh.max_truncation"),
        ({"slow_speed": 0.6, "fast_speed": 0.5}, "mesh.fast_speed"),
        ({"spill": "/nowhere/at/all"}, "mesh.spill"),
    ],
)
def test_m23_parameters_that_contradict_each_other_are_refused_at_the_start(params, name):
    with pytest.raises(InputError, match=name) as error:
        Mesher(MeshParams(**params))
    assert "\n" not in str(error.value)


def test_what_is_prepared_between_keyframes_changes_nothing(take_walk):
    """Neither for the keyframe that follows, nor for one of another camera or one that is not used."""
    small = Camera(80, 60, 75.0, 75.0, 39.5, 29.5)
    true, other = take_walk(5), take_walk(4, camera=small)[3]
    few = replace(true[2], id=99, points=true[2].points[:50], colours=true[2].colours[:50])
    plain, prepared = (mesher(duplicate_share=0.0) for _ in range(2))
    assert not prepared.prepare()
    for keyframe in (*true[:2], few, true[2], other, true[4]):
        assert plain.integrate(keyframe) == prepared.integrate(keyframe) == (keyframe is not few)
        while prepared.prepare():
            pass
    assert equal(plain.surface(), prepared.surface()) and len(plain.surface().triangles) > 1000


def test_kernels_can_be_compiled_beforehand(caplog):
    warm_up(MeshParams())
    assert not caplog.records
