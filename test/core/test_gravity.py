# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace as Message

import numpy as np
import pytest

from recon3d_ros.core.geometry import quaternion_from_rotation, so3_exp
from recon3d_ros.core.gravity import GRAVITY, GravityFilter, Inertia
from recon3d_ros.core.messages import inertia_from_message

MS = 1_000_000
UP = np.array([0.0, 0.0, 1.0])


def fly(
    gravity, seconds=2.0, turn=(0.0, 0.0, 0.0), acceleration=lambda t: np.zeros(3), sends="turn", noise=0.0
):
    """Readings at 100 Hz of a sensor that starts level and turns evenly; returns its last stamp and the true up."""
    rng = np.random.default_rng(0)
    turn = np.array(turn)
    for i in range(int(seconds * 100)):
        R = so3_exp(turn * i / 100)
        force = R.T @ (GRAVITY * UP + acceleration(i / 100)) + noise * rng.standard_normal(3)
        known = {"turn": turn} if sends == "turn" else {}
        if sends == "orientation":
            known = {"orientation": quaternion_from_rotation(R)}
        gravity.add((i + 1) * 10 * MS, Inertia(force, **known))
    return (i + 1) * 10 * MS, R.T @ UP


@pytest.mark.parametrize("sends", ["turn", "orientation"])
def test_up_is_where_it_is_while_the_sensor_turns(sends):
    gravity = GravityFilter()
    stamp, up = fly(gravity, turn=(0.6, -0.4, 0.2), sends=sends)
    assert np.allclose(gravity.up(stamp, 30 * MS), up, atol=1e-6)


def test_vibration_is_averaged_out():
    gravity = GravityFilter()
    stamp, up = fly(gravity, noise=0.8)
    assert np.degrees(np.arccos(gravity.up(stamp, 30 * MS) @ up)) < 1.5


@pytest.mark.parametrize(
    "acceleration",
    [
        lambda t: np.array([3.0, 0.0, 0.0]),  # evenly, sideways
        lambda t: np.array([0.0, 0.0, 0.5]),  # climbing
        lambda t: np.array([1.0 if t > 1.5 else -1.0, 0.0, 0.0]),  # to and fro
    ],
)
def test_nothing_is_said_while_it_accelerates(acceleration):
    gravity = GravityFilter()
    stamp, _ = fly(gravity, acceleration=acceleration)
    assert gravity.up(stamp, 30 * MS) is None


def test_nothing_is_said_of_a_time_without_readings():
    gravity = GravityFilter()
    stamp, _ = fly(gravity, seconds=0.5)
    assert gravity.up(stamp, 30 * MS) is None  # too short
    gravity.reset()
    stamp, _ = fly(gravity)
    assert gravity.up(stamp + 10**9, 30 * MS) is None  # too long ago
    assert gravity.up(stamp, 30 * MS) is not None


@pytest.mark.parametrize(
    "wild",
    [
        Inertia(np.full(3, 1e300)),
        Inertia(GRAVITY * UP, np.full(3, 1e300)),
        Inertia(GRAVITY * UP, np.full(3, np.nan)),
    ],
)
def test_a_wild_reading_does_not_spoil_those_after_it(wild):
    gravity = GravityFilter()
    gravity.add(1, Inertia(GRAVITY * UP, np.zeros(3)))
    with pytest.raises(ValueError):
        gravity.add(2, wild)
    stamp, up = fly(gravity)
    assert np.allclose(gravity.up(stamp, 30 * MS), up)


@pytest.mark.parametrize("force", [None, np.array([np.nan, 0.0, 9.8])])
def test_a_reading_without_force_is_refused(force):
    with pytest.raises(ValueError):
        GravityFilter().add(1, Inertia(force))


def test_fields_that_are_not_given_are_not_used():
    def vector(value):
        return Message(x=value, y=value, z=value)

    nine = [0.0] * 9
    message = Message(
        linear_acceleration=vector(1.0),
        angular_velocity=vector(2.0),
        orientation=Message(x=0.0, y=0.0, z=0.0, w=1.0),
        linear_acceleration_covariance=nine,
        angular_velocity_covariance=nine,
        orientation_covariance=[-1.0, *nine[1:]],
    )
    inertia = inertia_from_message(message)
    assert inertia.orientation is None
    assert inertia.force.tolist() == [1.0] * 3 and inertia.turn.tolist() == [2.0] * 3
