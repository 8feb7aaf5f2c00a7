# SPDX-License-Identifier: Apache-2.0
"""A synthetic flight: frames rendered one by one along a path over a scene, with their exact truth."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Floats, Frame, Image
from recon3d_ros.synth.building import building
from recon3d_ros.synth.paths import PATHS, path_of
from recon3d_ros.synth.render import render
from recon3d_ros.synth.room import room
from recon3d_ros.synth.scene import Scene
from recon3d_ros.synth.sensor import Faults, is_dropped, spoil_depth, spoil_image, spoil_pose
from recon3d_ros.synth.terrain import terrain

SCENES: Mapping[str, Callable[[int], Scene]] = MappingProxyType(
    {"building": building, "terrain": terrain, "room": room}
)

_START_NS = 1_000_000_000
_SUBFRAMES = 5


@dataclass(frozen=True)
class FlightOptions:
    """frames: length before any are dropped. fps: frames a second. camera: what looks. depth: whether frames bring depth.
    prior: whether they bring the true pose as prior. faults: of camera and sensors."""

    frames: int = 180
    fps: float = 10.0
    camera: Camera = field(default_factory=lambda: camera_of(640, 480, 70.0))
    depth: bool = False
    prior: bool = False
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"'frames' of a synthetic flight must be at least 1; got {self.frames}")
        if not 0 < self.fps < np.inf:
            raise InputError(f"'fps' of a synthetic flight must be positive; got {self.fps:g}")


def camera_of(width: int, height: int, fov: float) -> Camera:
    """Ideal camera of that horizontal field of view in degrees, its centre in the middle of the image."""
    if not 1 <= fov <= 150:
        raise InputError(f"'fov' of a synthetic flight must lie in 1 .. 150 degrees; got {fov:g}")
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


class SyntheticFlight:
    """Iterates over `Frame`s; each is rendered when its turn comes, and is the same bytes every time.

    The map is the world of the scene: z up, metres. `truth` holds the pose of every frame, dropped ones too.
    """

    def __init__(
        self,
        scene: str = "building",
        path: str = "orbit",
        options: FlightOptions | None = None,
        seed: int = 1,
    ) -> None:
        self.options = options or FlightOptions()
        self.seed = seed
        self.scene_name = _known("scene", scene, SCENES)
        self.path_name = _known("path", path, PATHS)

    @cached_property
    def scene(self) -> Scene:
        """The scene flown over; built when first asked for."""
        return _scene(self.scene_name, self.seed)

    @cached_property
    def truth(self) -> Trajectory:
        """Stamps and true poses of all frames."""
        o = self.options
        path = path_of(self.path_name, self.scene.site)
        stamps = [_START_NS + round(i * 1e9 / o.fps) for i in range(o.frames)]
        return Trajectory(np.array(stamps, np.int64), np.stack([path(i / o.fps) for i in range(o.frames)]))

    @cached_property
    def delivered(self) -> list[int]:
        """Numbers of the frames that are not dropped."""
        return [i for i in range(self.options.frames) if not is_dropped(self.options.faults, i, self.seed)]

    def __len__(self) -> int:
        return len(self.delivered)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(i) for i in self.delivered)

    def frame(self, index: int) -> Frame:
        """Frame number `index`, whether it is dropped or not."""
        o = self.options
        T = self.truth.poses[index]
        ideal, depth = self.view(index)
        return Frame(
            stamp_ns=int(self.truth.stamps_ns[index]),
            image=spoil_image(ideal, o.faults, index, o.frames, self.seed),
            camera=o.camera,
            depth=spoil_depth(depth, o.faults, index, self.seed) if o.depth else None,
            prior=spoil_pose(T, o.faults, index, self.seed) if o.prior else None,
        )

    def view(self, index: int) -> tuple[Image, Floats]:
        """Image and exact depth of frame number `index`, with motion blur but no other fault of the sensor."""
        image, depth = render(self.scene, self.options.camera, self.truth.poses[index])
        if not self.options.faults.shutter:
            return image, depth
        path, fps = path_of(self.path_name, self.scene.site), self.options.fps
        total = image.astype(np.float32)
        for share in np.linspace(-0.5, 0.5, _SUBFRAMES):
            if share:
                t = (index + share * self.options.faults.shutter) / fps
                total += render(self.scene, self.options.camera, path(t))[0]
        return (total / _SUBFRAMES + 0.5).astype(np.uint8), depth


@lru_cache(maxsize=3)
def _scene(name: str, seed: int) -> Scene:
    return SCENES[name](seed)


def _known(what: str, name: str, choices: Mapping[str, object]) -> str:
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(f"unknown synthetic {what} '{name}'{hint} Known: {', '.join(choices)}")
