# SPDX-License-Identifier: Apache-2.0
"""How often the mesh is shown, by the speed of the camera."""

import math

import numpy as np
import pytest

from recon3d_ros.core.geometry import pose
from recon3d_ros.mapping.pace import Pace, Speed


def at(x):
    return pose(np.eye(3), np.array([x, 0.0, 0.0]))


def test_m9_the_speed_is_way_by_image_stamps_smoothed_one_to_four():
    speed = Speed()
    assert speed.add(1_000_000_000, at(0.0), 1.0) == 0.0
    assert speed.add(1_500_000_000, at(1.0), 1.0) == pytest.approx(2.0)
    assert speed.add(2_500_000_000, at(2.0), 1.0) == pytest.approx(0.8 * 2.0 + 0.2 * 1.0)


@pytest.mark.parametrize("stamp", [1_500_000_000, 900_000_000])
def test_m9_stamps_that_do_not_rise_are_passed_over(stamp):
    speed = Speed()
    speed.add(1_000_000_000, at(0.0), 1.0)
    before = speed.add(1_500_000_000, at(1.0), 1.0)
    assert speed.add(stamp, at(50.0), 1.0) == before
    assert speed.add(2_500_000_000, at(2.0), 1.0) == pytest.approx(0.8 * 2.0 + 0.2 * 1.0)


def test_when_time_has_gone_back_speed_is_taken_from_there():
    speed = Speed()
    for seconds, x in ((100, 0.0), (101, 1.0), (50, 30.0), (51, 31.0)):
        speed.add(seconds * 1_000_000_000, at(x), 1.0)
    assert speed.value == pytest.approx(1.0)


def test_m9_a_standing_camera_becomes_slow_again():
    speed = Speed()
    for i in range(3):
        speed.add(i * 1_000_000_000, at(2.0 * i), 1.0)
    for i in range(3, 30):
        speed.add(i * 1_000_000_000, at(4.0), 1.0)
    assert speed.value < 0.01


def test_m10_where_the_scale_is_unknown_speed_is_in_median_depths():
    speed = Speed()
    speed.add(0, at(0.0), 4.0)
    assert speed.add(1_000_000_000, at(2.0), 4.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("speed", "period"), [(0.0, 1.0), (0.1, 1.0), (0.11, 2.0), (0.5, 2.0), (0.51, math.inf), (9.0, math.inf)]
)
def test_m9_the_table_of_periods(speed, period):
    pace = Pace(0.1, 0.5, patience=3)
    for _ in range(3):
        pace.add(speed)
    assert pace.period == period


def test_m9_a_change_must_be_asked_for_several_times_in_a_row():
    pace = Pace(0.1, 0.5, patience=3)
    assert [pace.add(s) for s in (0.3, 0.3, 0.05, 0.3, 0.3, 0.3)] == [1.0, 1.0, 1.0, 1.0, 1.0, 2.0]
    assert [pace.add(s) for s in (0.6, 0.6, 0.4, 0.6, 0.6, 0.6)] == [2.0, 2.0, 2.0, 2.0, 2.0, math.inf]
    assert [pace.add(s) for s in (0.05, 0.3, 0.05, 0.05, 0.05)] == [
        math.inf,
        math.inf,
        math.inf,
        math.inf,
        1.0,
    ]
