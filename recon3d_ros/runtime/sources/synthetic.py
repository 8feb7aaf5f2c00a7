# SPDX-License-Identifier: Apache-2.0
"""Synthetic flights as a source: `synthetic:SCENE/PATH?option=value&...`, for example
`synthetic:building/orbit?frames=150&size=640x480&seed=1&depth=1`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TypeVar

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Distance, Frame
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of
from recon3d_ros.synth.scene import Scene
from recon3d_ros.synth.sensor import Faults

N = TypeVar("N", int, float)
PREFIX = "synthetic:"
_FAULTS: Mapping[str, type] = MappingProxyType({f.name: type(f.default) for f in fields(Faults)})
_OPTIONS = ("frames", "fps", "size", "fov", "seed", "depth", "prior", *_FAULTS)


class SyntheticSource:
    """The frames of one synthetic flight.

    name: `synthetic:SCENE/PATH?option=value&...`; what is left out is building, orbit and the defaults of `FlightOptions`.
    camera: replaces the one that `size` and `fov` make. prior: give true poses as prior, like the option of that name.
    Raises InputError that names what is known for a scene, path, option or value that is not.
    """

    kind = "synthetic"

    def __init__(self, name: str = PREFIX, *, camera: Camera | None = None, prior: bool = False) -> None:
        self.name = name
        self.flight = _parse(name.removeprefix(PREFIX), camera, prior)
        self.length: int | None = len(self.flight)
        self.truth: Trajectory | None = self.flight.truth
        self.surface: Distance | None = self.flight.scene.distance
        self.has_depth: bool = self.flight.options.depth
        # Frames that the flight drops never arrive, so none is ever passed over.
        self.skipped: Counter[str] = Counter()

    @property
    def scene(self) -> Scene:
        """The scene flown over, for comparison with its true surface."""
        return self.flight.scene

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.flight)

    def describe(self) -> str:
        """What it is, in one line."""
        o = self.flight.options
        size = f"{o.camera.width}x{o.camera.height}"
        depth = ", with depth" if o.depth else ""
        where = f"{self.flight.scene_name}/{self.flight.path_name}"
        return f"synthetic flight {where}: {self.length} frames of {size} at {o.fps:g} Hz{depth}"


def _parse(text: str, camera: Camera | None, prior: bool) -> SyntheticFlight:
    where, _, query = text.partition("?")
    scene, _, path = where.partition("/")
    given = dict(_option(item) for item in query.split("&") if item)
    width, height = _size(given.get("size", "640x480"))
    options = FlightOptions(
        frames=_number(given, "frames", 180),
        fps=_number(given, "fps", 10.0),
        camera=camera or camera_of(width, height, _number(given, "fov", 70.0)),
        depth=bool(_number(given, "depth", 0)),
        prior=prior or bool(_number(given, "prior", 0)),
        faults=Faults(
            **{name: _number(given, name, kind()) for name, kind in _FAULTS.items() if name in given}
        ),
    )
    return SyntheticFlight(scene or "building", path or "orbit", options, _number(given, "seed", 1))


def _option(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if name not in _OPTIONS or not equals:
        near = difflib.get_close_matches(name, _OPTIONS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near and near[0] != name else ""
        raise InputError(
            f"'{item}' is no option=value of a synthetic flight{hint} Known: {', '.join(_OPTIONS)}"
        )
    return name, value


def _number(given: Mapping[str, str], name: str, default: N) -> N:
    try:
        return type(default)(given[name]) if name in given else default
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise InputError(f"'{name}' of a synthetic flight takes {kind}; got '{given[name]}'") from error


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and min(int(width), int(height)) >= 16):
        raise InputError(
            f"'size' of a synthetic flight is WIDTHxHEIGHT, at least 16x16, such as 640x480; got '{text}'"
        )
    return int(width), int(height)
