# SPDX-License-Identifier: Apache-2.0
"""What the store promises whatever memory it works on."""

import dataclasses

import numpy as np
import pytest

from recon3d_ros.core.types import Scale
from recon3d_ros.store import layout
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.shared import SharedArena


@pytest.fixture(params=["heap", "shared"])
def store(request, make_store, prefix):
    return make_store(HeapArena() if request.param == "heap" else SharedArena(3, 2.0, prefix))


def test_a_keyframe_is_handed_over_by_reference(store, tools):
    keyframe = store.put(tools.update(4, scale=Scale.SENSOR))
    assert store.get(4) is keyframe
    assert (keyframe.id, keyframe.stamp_ns, keyframe.scale) == (4, 4_000_007, Scale.SENSOR)
    assert keyframe.camera == tools.CAMERA
    assert len(keyframe.points) == len(keyframe.colours) == len(keyframe.confidence) == 1200


def test_m2_arrays_of_a_keyframe_lie_in_one_segment_and_cannot_be_written(store, tools):
    keyframe = store.put(tools.update(1))
    root = keyframe.points.base
    header = layout.unpack(root)
    assert (header.id, header.stamp_ns) == (1, 1_000_007)
    assert store.handle(1).shm_size == header.blocks.size
    low, high = keyframe.points.min(axis=0), keyframe.points.max(axis=0)
    np.testing.assert_array_equal(header.bounds, [*low, *high])
    np.testing.assert_array_equal(keyframe.bounds(), [low, high])
    for array in (keyframe.points, keyframe.colours, keyframe.confidence):
        assert np.shares_memory(array, root)
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_the_newest_keyframes_can_be_got_and_no_others(store, tools):
    for index in range(10):
        store.put(tools.update(index))
    assert [i for i in range(12) if store.get(i)] == [7, 8, 9]
    assert store.get(9).id == 9


def test_a_keyframe_that_is_held_outlives_its_slot(store, tools):
    held = [store.put(tools.update(index)) for index in range(10)]
    for keyframe in held:
        depth = tools.update(keyframe.id).depth
        np.testing.assert_allclose(keyframe.points[:, 2], depth.ravel(), rtol=1e-6)


def test_a_known_keyframe_is_replaced(store, tools):
    store.put(tools.update(5))
    again = store.put(tools.update(5, depth=np.full((30, 40), 2.5, np.float32)))
    assert store.get(5) is again
    assert (again.points[:, 2] == 2.5).all()


def test_m17_unsure_and_absurd_points_are_dropped_and_counted(store, tools):
    depth = np.full((30, 40), 2.0, np.float32)
    depth[0] = np.nan
    depth[1, :3] = np.inf
    confidence = np.ones((30, 40), np.float32)
    confidence[2] = 0.01
    keyframe = store.put(tools.update(0, depth=depth, confidence=confidence))
    store.put(tools.update(1, depth=depth * np.float32(np.nan), confidence=None))
    assert len(keyframe.points) == 1200 - 40 - 3 - 40
    statistics = store.statistics()
    assert statistics["points_absurd"] == 3
    assert statistics["points_unsure"] == 40
    assert (statistics["keyframes"], statistics["keyframes_empty"]) == (2, 1)
    assert store.get(1).confidence is None


def test_an_update_without_depth_or_pose_is_refused(store, tools):
    for missing in ("depth", "camera", "colours", "T_map_cam"):
        with pytest.raises(ValueError, match="no keyframe yet"):
            store.put(dataclasses.replace(tools.update(0), **{missing: None}))


def test_a_reset_forgets_all_keyframes(store, tools):
    held = store.put(tools.update(0))
    expected = held.points.copy()
    store.reset()
    assert store.get(0) is None
    store.put(tools.update(1))
    np.testing.assert_array_equal(held.points, expected)
