# SPDX-License-Identifier: Apache-2.0
"""Saved surfaces: a mesher that goes on with one is the mesher that never stopped, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import blocks as pool
from recon3d_ros.mapping import checkpoint
from recon3d_ros.mapping.mesher import Mesher


def mesher(**params):
    return Mesher(MeshParams(**{"voxel_size": 0.04, "duplicate_share": 0.0, **params}))


def fed(target, keyframes):
    for keyframe in keyframes:
        assert target.integrate(keyframe)
    return target


def saved(target):
    """All steps of a save at once."""
    work = target.saving()
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def resumed(arrays, **params):
    target = mesher(**params)
    target.resume(arrays)
    return target


def poses(keyframes):
    return {k.id: k.T_map_cam for k in keyframes}


def equal(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("vertices", "triangles", "colours"))


def rows(target):
    """All that is saved, blocks in the order of their coordinates; slots apart, whose order means nothing."""
    arrays = dict(saved(target))
    order = np.lexsort(arrays["coords"].T)
    apart = {name: arrays.pop(name) for name in ("slots", "free")}
    assert len(apart["slots"]) == target.blocks
    each = ("coords", "last_seen", "tsdf", "weight", "colour")
    return {name: array[order] if name in each else array for name, array in arrays.items()}


def differences(a, b):
    """Names of what two meshers hold differently."""
    mine, other = rows(a), rows(b)
    out = [name for name in mine if not np.array_equal(mine[name], other[name])]
    return out if equal(a.surface(), b.surface()) else [*out, "surface"]


@pytest.fixture(params=["room for all", "full", "full, with disk"])
def room(request, tmp_path):
    """Parameters."""
    tight = {"max_blocks": 130}
    return {"room for all": {}, "full": tight, "full, with disk": {**tight, "spill": str(tmp_path)}}[
        request.param
    ]


def test_going_on_equals_not_having_stopped_also_after_later_keyframes_were_corrected(walks, viewer, room):
    true, drifted = walks
    unbroken = fed(mesher(**room), true[:6])
    target = resumed(saved(unbroken), **room)
    viewer.follow(target.changed())
    viewer.assert_full(target)
    assert not differences(target, unbroken) and (target.keyframes, target.voxel_size) == (6, 0.04)
    for each in (target, unbroken):
        fed(each, drifted[6:])
    viewer.follow(target.changed())
    viewer.assert_full(target)
    assert not differences(target, unbroken)
    for some in (true, drifted[8:10]):  # the second rebuild starts from what the first one left
        for each in (target, unbroken):
            each.correct(poses(some[6:] if some is true else some))
            assert each.rebuild()
        viewer.follow(target.changed())
        viewer.assert_full(target)
        assert not differences(target, unbroken)
    assert (unbroken.counters["blocks evicted"] > 0) == bool(room)


def test_saved_again_it_is_the_same(walks, room):
    arrays = saved(fed(mesher(**room), walks[0]))
    again = saved(resumed(arrays, **room))
    assert arrays.keys() == again.keys()
    for name, array in arrays.items():
        assert array.dtype == again[name].dtype and np.array_equal(array, again[name])


def test_keyframes_of_before_are_repeated_ones_and_stay_where_they_are(walks):
    true, drifted = walks
    target = resumed(saved(fed(mesher(), drifted[:6])))
    assert not target.integrate(drifted[3]) and target.counters["repeated"] == 1
    target.correct(poses(true[:8]))
    assert not target.rebuild(exactly=True)
    fed(target, drifted[6:8])  # what was corrected before it came is taken as corrected
    assert not differences(target, fed(mesher(), drifted[:6] + true[6:8]))


def test_what_was_saved_stays_where_it_is_when_depth_is_let_go(walks):
    true, drifted = walks
    target = resumed(saved(fed(mesher(), drifted[:4])), depth_memory=1)
    fed(target, drifted[4:])  # the seventh of these does not fit: the first four go
    target.correct(poses(true))
    assert target.rebuild()
    moved = ["place"]  # where the last keyframe was when it came
    assert differences(target, fed(mesher(), drifted[:8] + true[8:])) == moved


def test_without_depth_memory_it_goes_on_too(walks):
    true, drifted = walks
    target = fed(resumed(saved(fed(mesher(), true[:6])), depth_memory=0), drifted[6:])
    target.correct(poses(true))
    assert not target.rebuild() and not differences(target, fed(mesher(), true[:6] + drifted[6:]))


def test_the_derived_voxel_size_and_what_counts_as_seen_before_are_kept(take_walk):
    """A camera at rest, whose keyframes are left out but for every fourth."""
    params = {"voxel_size": 0.0, "voxel_share": 0.02, "duplicate_share": 0.5, "duplicate_weight": 1.0}
    still = [replace(k, id=i) for i, k in enumerate(take_walk(1) * 12)]
    unbroken = mesher(**params)
    for keyframe in still[:4]:
        unbroken.integrate(keyframe)
    target = resumed(saved(unbroken), **params)
    taken = [[each.integrate(keyframe) for keyframe in still[4:]] for each in (target, unbroken)]
    assert taken[0] == taken[1] and 0 < sum(taken[0]) < 8
    assert target.voxel_size == unbroken.voxel_size > 0 and not differences(target, unbroken)


def test_with_less_memory_the_oldest_go_to_disk_and_nothing_is_lost(walks, tmp_path):
    whole = fed(mesher(), walks[0])
    target = resumed(saved(whole), max_blocks=100, spill=str(tmp_path))
    assert target.blocks == 100 < whole.blocks and equal(target.surface(), whole.surface())
    seen = saved(whole)["last_seen"]
    assert saved(target)["last_seen"][:100].min() >= np.sort(seen)[-100]
    back = [replace(k, id=100 + k.id) for k in walks[0][::-1]]
    assert fed(target, back).blocks <= 100


def test_without_disk_what_was_there_comes_into_memory(walks, tmp_path):
    tight = fed(mesher(max_blocks=130, spill=str(tmp_path)), walks[0])
    target = resumed(saved(tight), max_blocks=1000)
    assert target.blocks > 130 and equal(target.surface(), tight.surface())
    fed(target, [replace(k, id=100 + k.id) for k in walks[0]])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"voxel_size": 0.05}, "mesh.voxel_size is 0.05, that of the saved map 0.04: set it to 0"),
        ({"truncation": 3.0}, "mesh.truncation is 3, the saved map has 4: set it to that"),
        (
            {"max_blocks": 100},
            "blocks, mesh.max_blocks is 100: raise it to that or more, or name a folder in",
        ),
    ],
)
def test_parameters_that_contradict_the_map_are_refused_in_one_line_and_nothing_changes(walks, params, said):
    arrays = saved(fed(mesher(), walks[0]))
    target = fed(mesher(**params), walks[0][:2])
    before = target.surface()
    with pytest.raises(InputError) as error:
        target.resume(arrays)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert equal(target.surface(), before) and target.keyframes == 2


def changed(name, change):
    return lambda arrays: {**arrays, name: change(arrays[name].copy())}


def first(value):
    def change(array):
        array[0] = value
        return array

    return change


DAMAGES = {
    "missing": lambda arrays: {n: a for n, a in arrays.items() if n != "tsdf"},
    "other type": changed("weight", lambda a: a.astype(np.int64)),
    "other shape": changed("colour", lambda a: a[..., :2]),
    "shorter": changed("last_seen", lambda a: a[:-1]),
    "slot twice": changed("slots", lambda a: first(a[1])(a)),
    "slot far away": changed("slots", first(10**9)),
    "block twice": changed("coords", lambda a: first(a[1])(a)),
    "block far away": changed("coords", first(2 * pool.LIMIT)),
    "seen later": changed("last_seen", first(10**6)),
    "no number": changed("voxel_size", lambda a: np.array(np.nan)),
    "scale unknown": changed("scale", lambda a: np.array("?")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_no_mesher_has_saved_is_refused_in_one_line_and_nothing_changes(walks, damage):
    target = fed(mesher(), walks[0][:2])
    before = target.surface()
    with pytest.raises(InputError, match="damaged") as error:
        target.resume(DAMAGES[damage](saved(fed(mesher(), walks[0][:3]))))
    assert "\n" not in str(error.value) and equal(target.surface(), before)


def test_without_a_surface_there_is_nothing_to_save():
    with pytest.raises(InputError, match="no surface yet"):
        saved(mesher())


@pytest.mark.parametrize("meanwhile", ["keyframes", "a rebuild", "a reset"])
def test_what_is_saved_is_of_one_moment_whatever_comes_meanwhile(walks, monkeypatch, tmp_path, meanwhile):
    """In steps of a few blocks; and nothing is held for it afterwards, in memory or on disk."""
    monkeypatch.setattr(checkpoint, "_STEP", 15)
    true, drifted = walks
    target = fed(mesher(max_blocks=130, spill=str(tmp_path)), drifted[:8])
    expected, work = saved(target), target.saving()
    steps, got = 0, None
    while got is None:
        try:
            next(work)
        except StopIteration as end:
            got = end.value
        if steps == 2 and meanwhile == "a rebuild":
            target.correct(poses(true))
            assert target.rebuild()
        elif steps == 2 and meanwhile == "a reset":
            target.reset()
        elif steps < 4 and meanwhile == "keyframes":
            assert target.integrate(drifted[8 + steps])
        steps += 1
    assert steps > 10 and all(np.array_equal(got[name], expected[name]) for name in expected)
    if meanwhile != "a reset":
        volume, users = target._volume, target._volumes._disk._users
        spills = [volume.spill, *(moment._state.spill for moment in volume._checkpoints)]
        assert sum(users.values()) == sum(len(s) for s in spills)
        kept = (target._history.base, target._history.checkpoint)
        assert all(moment in kept for moment in volume._checkpoints)
