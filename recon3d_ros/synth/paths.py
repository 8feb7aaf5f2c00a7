# SPDX-License-Identifier: Apache-2.0
"""Drone flights over a site: functions from time in seconds to the pose of the camera (world <- optical axes). They
never end: orbits and circuits go round, a survey goes back the way it came. More frames make a longer flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from recon3d_ros.core.geometry import Array, pose
from recon3d_ros.core.types import Pose
from recon3d_ros.synth.scene import Site

Path = Callable[[float], Pose]
#: Place of the camera [3], heading and pitch (radians; heading 0 is +x, pitch 0 is level, positive up).
_Stance = tuple[Array, float, float]


def path_of(name: str, site: Site) -> Path:
    """The path of that name, a key of `PATHS`, over a site, with the unrest of a real drone."""
    steady = PATHS[name]
    return lambda t: _swaying(steady(site, t), site.sway, t)


def orbit(site: Site, t: float) -> _Stance:
    """Around the target, looking at it, rising and sinking a little."""
    radius, height = site.orbit
    angle = site.speed * t / radius - 2.3
    eye = np.array(site.target) + (radius * np.cos(angle), radius * np.sin(angle), 0.0)
    eye[2] = height * (1 + 0.06 * np.sin(1.7 * angle))
    return eye, *_towards(eye, np.array(site.target))


def lookaround(site: Site, t: float) -> _Stance:
    """The orbit, but after every five seconds it stops, turns away by 75 degrees and back in five more, and goes on."""
    period, phase = divmod(t, 10.0)
    eye, heading, pitch = orbit(site, 5.0 * period + min(phase, 5.0))
    away = 1 - abs(max(phase - 5.0, 0.0) / 2.5 - 1)
    return eye, heading + np.radians(75) * away, pitch


def lawnmower(site: Site, t: float) -> _Stance:
    """Parallel lines joined by half circles, the camera steep, its heading the same all the time."""
    half_length, half_width, height, spacing = site.survey
    lines = int(2 * half_width / spacing) + 1
    leg, turn = 2 * half_length, np.pi * spacing / 2
    total = lines * leg + (lines - 1) * turn
    s = total - abs((site.speed * t) % (2 * total) - total)
    line = min(int(s / (leg + turn)), lines - 1)
    s -= line * (leg + turn)
    way = 1 if line % 2 == 0 else -1
    x, y = min(s, leg) - half_length, line * spacing - half_width
    if s > leg:
        angle = 2 * (s - leg) / spacing
        x, y = x + spacing / 2 * np.sin(angle), y + spacing / 2 * (1 - np.cos(angle))
    return np.array([way * x, y, height]), 0.0, np.radians(-75)


def forward(site: Site, t: float) -> _Stance:
    """Along a rectangle with round corners, looking ahead and a little down."""
    half_length, half_width, height = site.circuit
    radius = 0.8 * min(half_length, half_width)
    a, b, arc = half_length - radius, half_width - radius, np.pi * radius / 2
    s = (site.speed * t) % (4 * a + 4 * b + 4 * arc)
    point, heading = np.array([-a, -half_width]), 0.0
    for straight in (2 * a, 2 * b, 2 * a, 2 * b):
        ahead, left = (
            np.array([np.cos(heading), np.sin(heading)]),
            np.array([-np.sin(heading), np.cos(heading)]),
        )
        if s <= straight:
            point = point + s * ahead
            break
        if s <= straight + arc:
            bend = (s - straight) / radius
            point = point + (straight + radius * np.sin(bend)) * ahead + radius * (1 - np.cos(bend)) * left
            heading += bend
            break
        s -= straight + arc
        point = point + (straight + radius) * ahead + radius * left
        heading += np.pi / 2
    return np.array([*point, height]), heading, np.radians(-14)


def hover(site: Site, t: float) -> _Stance:
    """Nearly in place, turning left and right by 40 degrees."""
    drift = 4 * site.sway * np.array([np.sin(0.7 * t), 1 - np.cos(0.55 * t), 0.4 * np.sin(0.45 * t)])
    eye = np.array(site.hover) + drift
    heading, pitch = _towards(np.array(site.hover), np.array(site.target))
    return eye, heading + np.radians(40) * np.sin(2 * np.pi * t / 12), pitch


PATHS: Mapping[str, Callable[[Site, float], _Stance]] = MappingProxyType(
    {"orbit": orbit, "lookaround": lookaround, "lawnmower": lawnmower, "forward": forward, "hover": hover}
)


def _towards(eye: Array, target: Array) -> tuple[float, float]:
    """Heading and pitch of the line from eye to target."""
    x, y, z = target - eye
    return float(np.arctan2(y, x)), float(np.arctan2(z, np.hypot(x, y)))


def _swaying(stance: _Stance, sway: float, t: float) -> Pose:
    """The pose of a stance with slow unrest in all six directions: `sway` metres, about half a degree."""
    eye, heading, pitch = stance
    a, b, c = np.sin(1.3 * t), np.sin(0.9 * t + 1.0), np.sin(2.1 * t + 2.0)
    eye = eye + 0.6 * sway * np.array([a + 0.4 * c, b - 0.4 * c, 0.7 * np.sin(0.7 * t + 0.5)])
    return looking(eye, heading + 0.008 * b, pitch + 0.006 * a, 0.008 * c)


def looking(eye: Array, heading: float, pitch: float, roll: float = 0.0) -> Pose:
    """Pose of a camera at `eye` [3] with that heading, pitch and roll about its optical axis, in radians."""
    ahead = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    down = np.cross(ahead, right)
    c, s = np.cos(roll), np.sin(roll)
    return pose(np.stack([c * right + s * down, c * down - s * right, ahead], axis=1), eye)
