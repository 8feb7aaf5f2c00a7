# SPDX-License-Identifier: Apache-2.0
"""The direction against gravity from an IMU (REP-145): at rest an accelerometer reads what holds it up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d_ros.core.geometry import Array, rotation_from_quaternion, so3_exp
from recon3d_ros.core.history import History

GRAVITY = 9.81
#: Time over which force is averaged, and the share of it that must be covered.
_WINDOW_NS, _COVERED = 1_000_000_000, 0.7
#: Fewest samples in that time, and how many are kept.
_SAMPLES, _KEPT = 10, 2000
#: Differences (m/s2) of the mean from gravity, and of both halves of the time from each other, beyond which it accelerates.
_OFF, _CHANGE = 0.25, 0.35
#: Longest time over which one reading of the gyroscope is taken to hold.
_GAP_NS = 100_000_000
#: No sensor measures more: m/s2, rad/s.
_FORCE, _TURN = 1e4, 1e3


@dataclass(frozen=True, eq=False)
class Inertia:
    """One reading in the axes of the sensor; None where the sensor does not give it.

    force: specific force [3], m/s2. turn: angular velocity [3], rad/s. orientation: quaternion x, y, z, w of the sensor in
    a world.
    """

    force: Array | None
    turn: Array | None = None
    orientation: Array | None = None


class GravityFilter:
    """Averages specific force over a second in axes that do not turn, and gives it out while it is steady and as long
    as gravity.

    How the sensor turns is told by its gyroscope, else by its orientation: drivers without one often send the identity.
    """

    def __init__(self) -> None:
        # By stamp: rotation reference <- sensor, and the force in the axes of the reference.
        self._history: History[tuple[Array, Array]] = History(_KEPT)

    def __len__(self) -> int:
        return len(self._history)

    def add(self, stamp_ns: int, inertia: Inertia) -> bool:
        """Take a reading; False for one whose stamp does not rise. Raises ValueError for one without force, beyond what any
        sensor can measure, or with an orientation that is none."""
        if inertia.force is None or not (np.abs(inertia.force) < _FORCE).all():
            raise ValueError(f"specific force {inertia.force}")
        R = self._rotation(stamp_ns, inertia)
        return self._history.add(stamp_ns, (R, R @ inertia.force))

    def reset(self) -> None:
        """Forget everything."""
        self._history.clear()

    def up(self, stamp_ns: int, tolerance_ns: int) -> Array | None:
        """Unit vector [3] against gravity in the axes of the sensor at a stamp; None while it accelerates or too little is
        known."""
        samples = self._history.until(stamp_ns + tolerance_ns, _WINDOW_NS + tolerance_ns)
        if len(samples) < _SAMPLES or abs(samples[-1][0] - stamp_ns) > max(tolerance_ns, _GAP_NS):
            return None
        if samples[-1][0] - samples[0][0] < _COVERED * _WINDOW_NS:
            return None
        forces = np.array([force for _, (_, force) in samples])
        mean, half = forces.mean(axis=0), len(forces) // 2
        change = forces[:half].mean(axis=0) - forces[half:].mean(axis=0)
        length = float(np.linalg.norm(mean))
        if abs(length - GRAVITY) > _OFF or np.linalg.norm(change) > _CHANGE:
            return None
        nearest = min(samples, key=lambda item: abs(item[0] - stamp_ns))
        R_reference_sensor = nearest[1][0]
        up: Array = R_reference_sensor.T @ mean / length
        return up

    def _rotation(self, stamp_ns: int, inertia: Inertia) -> Array:
        """Reference <- sensor."""
        if inertia.turn is None and inertia.orientation is not None:
            return rotation_from_quaternion(inertia.orientation)
        newest = self._history.newest()
        if newest is None:
            return np.eye(3)
        before, (R, _) = newest
        if inertia.turn is None:
            return R
        if not (np.abs(inertia.turn) < _TURN).all():
            raise ValueError(f"angular velocity {inertia.turn}")
        return R @ so3_exp(inertia.turn * min(stamp_ns - before, _GAP_NS) * 1e-9)
