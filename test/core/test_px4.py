# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace as Message

import numpy as np
import pytest

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.px4 import BootClock, pose_from_vehicle_odometry

HALF = np.sqrt(0.5)
LEVEL_NORTH = (1.0, 0.0, 0.0, 0.0)


def odometry(q=LEVEL_NORTH, position=(3.0, 4.0, -10.0), frame=1):
    return Message(pose_frame=frame, position=np.array(position, np.float32), q=np.array(q, np.float32))


def test_north_east_down_becomes_east_north_up():
    assert np.allclose(pose_from_vehicle_odometry(odometry())[:3, 3], (4.0, 3.0, 10.0))


def test_a_level_body_that_looks_north_has_its_x_axis_north_and_its_y_axis_west():
    R = pose_from_vehicle_odometry(odometry())[:3, :3]
    assert np.allclose(R @ (1, 0, 0), (0, 1, 0)) and np.allclose(R @ (0, 1, 0), (-1, 0, 0))
    assert np.allclose(R @ (0, 0, 1), (0, 0, 1))


def test_a_body_turned_east_has_yaw_zero():
    R = pose_from_vehicle_odometry(odometry(q=(HALF, 0.0, 0.0, HALF)))[:3, :3]
    assert np.allclose(R, np.eye(3), atol=1e-6)


def test_a_nose_that_points_up_points_up():
    # Pitch in FRD is positive nose up; looking east.
    east, up = np.array([HALF, 0, 0, HALF]), np.array([np.cos(np.pi / 8), 0, np.sin(np.pi / 8), 0])
    (a, _, _, d), (e, _, g, _) = east, up
    q = (a * e, -d * g, a * g, d * e)
    x_axis = pose_from_vehicle_odometry(odometry(q=q))[:3, 0]
    assert np.allclose(x_axis, (HALF, 0.0, HALF), atol=1e-6)


def test_a_world_of_any_heading_keeps_its_heading_and_gets_z_up():
    T = pose_from_vehicle_odometry(odometry(frame=2))
    assert np.allclose(T[:3, 3], (3.0, -4.0, 10.0)) and np.allclose(T[:3, :3], np.eye(3))


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"q": (np.nan, 0.0, 0.0, 0.0)}, "odometry invalid"),
        ({"q": (0.0, 0.0, 0.0, 0.0)}, "odometry invalid"),
        ({"position": (np.nan, 0.0, 0.0)}, "odometry invalid"),
        ({"frame": 0}, "odometry frame"),
    ],
)
def test_what_is_not_given_is_no_pose(changes, reason):
    with pytest.raises(FrameError) as error:
        pose_from_vehicle_odometry(odometry(**changes))
    assert error.value.reason == reason


def test_time_since_boot_becomes_ros_time_by_the_message_that_took_least():
    clock, boot = BootClock(), 1_000_000_000_000
    delays_ms = (20, 5, 30, 8, 12)
    stamps = [
        clock.ros_ns(1_000_000 + 20_000 * i, boot + 10**9 + 20_000_000 * i + delay * 1_000_000)
        for i, delay in enumerate(delays_ms)
    ]
    true = [boot + 10**9 + 20_000_000 * i for i in range(5)]
    errors = np.subtract(stamps, true)
    assert errors[0] == 20_000_000 and (np.abs(errors[1:] - 5_000_000) < 10_000).all()


def test_a_clock_that_runs_slow_is_followed():
    clock = BootClock()
    hour = 3600 * 10**6
    for stamp_us in range(0, hour, 10**6):
        # 50 ppm: in an hour 180 ms.
        arrived = round(stamp_us * 1000 * 1.00005) + 3_000_000
        error = clock.ros_ns(stamp_us, arrived) - arrived
        assert -1_000_000 <= error <= 0


def test_a_board_that_starts_anew_is_noticed():
    clock = BootClock()
    clock.ros_ns(90_000_000, 10**12)
    assert not clock.is_restart(89_900_000) and clock.is_restart(2_000_000)
    assert clock.ros_ns(2_000_000, 2 * 10**12) == 2 * 10**12
