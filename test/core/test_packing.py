# SPDX-License-Identifier: Apache-2.0
"""What a saved map is made of comes back as it was."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.packing import pack, pack_camera, part_of, unpack, unpack_camera, within


def test_arrays_of_different_lengths_come_back_and_own_their_memory():
    rows = [np.arange(6.0).reshape(2, 3), np.empty((0, 3)), np.ones((1, 3))]
    packed = pack(rows, np.empty((0, 3)))
    for before, after in zip(rows, unpack(packed), strict=True):
        assert np.array_equal(before, after) and before.shape == after.shape and after.base is None
    unpack(packed)[0][:] = 7.0
    assert packed["rows"][0, 0] == 0.0


def test_no_arrays_keep_their_type():
    packed = pack([], np.empty((0, 2), np.float32))
    assert packed["rows"].shape == (0, 2) and packed["rows"].dtype == np.float32 and unpack(packed) == []


def test_parts_lie_in_parts():
    arrays = within("map", {**within("lens", {"focal": np.array(3.0)}), "points": np.zeros(2)})
    assert set(arrays) == {"map.lens.focal", "map.points"}
    assert part_of("lens", part_of("map", arrays)) == {"focal": 3.0}
    assert part_of("ma", arrays) == {}


@pytest.mark.parametrize(
    "camera",
    [
        Camera(640, 480, 500.5, 501.0, 320.0, 240.25),
        Camera(64, 48, 40.0, 41.0, 32.0, 24.0, "equidistant", (0.1, -0.02, 0.003, 1e-4), estimated=True),
    ],
)
def test_cameras_come_back(camera):
    assert unpack_camera(pack_camera(camera)) == camera
