# SPDX-License-Identifier: Apache-2.0
import numpy as np

from recon3d_ros.core.geodesy import LocalFrame, position_between

SECOND = 1_000_000_000


def test_a_place_a_little_north_and_up_is_so_in_metres():
    world = LocalFrame()
    assert np.allclose(world.position(47.0, 8.0, 400.0), 0.0)
    east, north, up = world.position(47.001, 8.0, 410.0)
    assert abs(east) < 0.01 and abs(north - 111.2) < 0.2 and abs(up - 10.0) < 0.01


def test_positions_between_fixes_lie_on_the_line_and_a_little_beyond_it():
    first, second = (0, np.zeros(3)), (SECOND // 5, np.array([1.0, 2.0, 3.0]))
    assert np.allclose(position_between(first, second, SECOND // 10), (0.5, 1.0, 1.5))
    assert np.allclose(position_between(first, second, 2 * SECOND // 5), (2.0, 4.0, 6.0))
    assert position_between(first, second, SECOND // 2) is None  # more than a step after the last one
    assert position_between(first, second, -1) is None
    assert position_between(first, (2 * SECOND, np.ones(3)), SECOND) is None  # fixes too far apart
