# SPDX-License-Identifier: Apache-2.0
"""Scenes with exact depth: a sphere, and boxes on a floor."""

from dataclasses import dataclass

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import pose
from recon3d_ros.core.types import Keyframe

CAMERA = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)

#: (lower corner, upper corner) of a floor and two boxes on it.
BOXES = (
    ((-3.0, -3.0, -0.5), (3.0, 3.0, 0.0)),
    ((-0.63, -0.41, 0.0), (0.17, 0.33, 0.52)),
    ((0.61, -0.92, 0.0), (1.13, -0.31, 0.87)),
)


def look_at(centre, target):
    """Pose map <- camera of a camera at `centre` that looks at `target`, map z up."""
    z = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    x = np.cross(z, (0.0, 0.0, 1.0) if abs(z[2]) < 0.99 else (0.0, 1.0, 0.0))
    x /= np.linalg.norm(x)
    return pose(np.column_stack([x, np.cross(z, x), z]), np.asarray(centre, float))


@dataclass
class Shot:
    """One view: camera, pose, depth [h,w] (0 = nothing) and colours [h,w,3]."""

    camera: Camera
    T_map_cam: np.ndarray
    depth: np.ndarray
    colours: np.ndarray

    def keyframe(self, id_=0, noise=0.0, confidence=None):
        """The keyframe of this view; noise is a share of the depth."""
        known = self.depth > 0
        rays = np.dstack([self.camera.rays(), np.ones(known.shape)])[known]
        depth = self.depth[known] * (1 + noise * np.random.default_rng(id_).normal(size=known.sum()))
        points = rays * depth[:, None] @ self.T_map_cam[:3, :3].T + self.T_map_cam[:3, 3]
        weight = None if confidence is None else np.full(len(points), confidence, np.float32)
        return Keyframe(
            id_, id_, self.T_map_cam, self.camera, points.astype(np.float32), self.colours[known], weight
        )


def shoot(distance_along, T_map_cam, camera=CAMERA):
    """A view of a scene given by `distance_along(origin [3], directions [h,w,3]) -> multiples [h,w]`, inf for none."""
    rays = np.dstack([camera.rays(), np.ones((camera.height, camera.width))]).astype(float)
    directions = rays @ T_map_cam[:3, :3].T
    depth = distance_along(T_map_cam[:3, 3], directions)
    depth = np.where(np.isfinite(depth), depth, 0.0)
    points = T_map_cam[:3, 3] + directions * depth[..., None]
    colours = (127 + 120 * np.sin(3 * points)).astype(np.uint8)
    return Shot(camera, T_map_cam, depth, colours)


def sphere(radius=0.5):
    """The scene of a sphere around the origin."""

    def distance_along(origin, directions):
        a, b = (directions**2).sum(-1), directions @ origin
        root = b * b - a * (origin @ origin - radius**2)
        return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)

    return distance_along


def boxes(corners=BOXES):
    """The scene of axis-parallel boxes (slab method)."""

    def distance_along(origin, directions):
        nearest = np.full(directions.shape[:2], np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for low, high in corners:
                a, b = (np.array(low) - origin) / directions, (np.array(high) - origin) / directions
                enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
                nearest = np.where((enter < leave) & (enter > 0), np.minimum(nearest, enter), nearest)
        return nearest

    return distance_along


def around(number, radius):
    """Camera centres [number,3] spread evenly on a sphere."""
    i = np.arange(number) + 0.5
    z = 1 - 2 * i / number
    angle = np.pi * (1 + 5**0.5) * i
    return radius * np.column_stack(
        [np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z]
    )


@pytest.fixture(scope="session")
def sphere_shots():
    """24 views of a sphere of radius 0.5 around the origin."""
    camera = Camera(320, 240, 330.0, 330.0, 159.5, 119.5)
    return [shoot(sphere(), look_at(centre, (0, 0, 0)), camera) for centre in around(24, 1.6)]


def flight(number, corners=BOXES, seed=0, camera=CAMERA):
    """Views of boxes from random places above the floor."""
    rng = np.random.default_rng(seed)
    shots = []
    for _ in range(number):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 2.6)
        centre = (radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0.9, 2.0))
        shots.append(shoot(boxes(corners), look_at(centre, rng.uniform(-0.4, 0.4, 3)), camera))
    return shots


def survey(number, step, height, corners=BOXES, camera=CAMERA):
    """Views straight down from a grid of number x number places over the boxes."""
    steps = step * (np.arange(number) - (number - 1) / 2)
    places = [(x, y, height) for x in steps for y in steps]
    return [shoot(boxes(corners), look_at(p, (p[0], p[1] + 0.3 * height, 0.0)), camera) for p in places]


def walk(number, drift=0, step=0.25, camera=CAMERA):
    """Keyframes of a camera that slides along x above the boxes and looks down, its pose off by `drift` * 2^-10 more
    along y each time. Depths and places are multiples of 2^-10, so that float32 points give the depth back exactly."""
    keyframes = []
    for i in range(number):
        x = i * step - 1.0
        shot = shoot(boxes(), look_at((x, 0.0, 2.0), (x, 0.0, 0.0)), camera)
        T = shot.T_map_cam.copy()
        T[1, 3] += i * drift / 1024
        keyframes.append(Shot(shot.camera, T, np.round(shot.depth * 1024) / 1024, shot.colours).keyframe(i))
    return keyframes


def equal(a, b):
    """The same vertices, triangles and colours bit for bit."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("vertices", "triangles", "colours")
    )


class Viewer:
    """What a viewer shows after it got the changes."""

    def __init__(self):
        self.shown = {}

    def follow(self, blocks):
        """Take some regions in."""
        for block in blocks:
            assert len(block.triangles) or block.id in self.shown
            self.shown[block.id] = block
            if not len(block.triangles):
                del self.shown[block.id]

    def assert_full(self, target):
        """It shows what a full extraction gives, bit for bit."""
        everything = {block.id: block for block in target.all_blocks()}
        assert self.shown.keys() == everything.keys()
        assert all(equal(self.shown[i], everything[i]) for i in self.shown)
        assert target.triangles == sum(len(block.triangles) for block in self.shown.values())


@pytest.fixture
def viewer():
    """A viewer that shows nothing yet."""
    return Viewer()


@pytest.fixture(scope="session")
def take_walk():
    """`walk`, for tests."""
    return walk


@pytest.fixture(scope="session")
def walks():
    """True and drifted keyframes."""
    return walk(12), walk(12, drift=20)


def wall(distance, sigma=0.0, id_=0):
    """A keyframe of a wall straight ahead, sigma the standard deviation of its inverse depth."""
    shot = shoot(boxes([((-99.0, -99.0, distance), (99.0, 99.0, distance + 1))]), np.eye(4))
    noise = sigma * np.random.default_rng(id_).normal(size=shot.depth.shape)
    return Shot(shot.camera, shot.T_map_cam, 1 / (1 / shot.depth + noise), shot.colours).keyframe(id_)


@pytest.fixture(scope="session")
def take_wall():
    """`wall`, for tests."""
    return wall


@pytest.fixture(scope="session")
def take_survey():
    """`survey`, for tests."""
    return survey


@pytest.fixture(scope="session")
def take_sphere():
    """Views of a sphere of a given radius around the origin, from all sides."""

    def take(radius, number):
        camera = Camera(320, 240, 330.0, 330.0, 159.5, 119.5)
        return [shoot(sphere(radius), look_at(c, (0, 0, 0)), camera) for c in around(number, 2.6 * radius)]

    return take


@pytest.fixture(scope="session")
def take_flight():
    """`flight`, for tests."""
    return flight


@pytest.fixture(scope="session")
def box_corners():
    """The boxes of a flight; the first is the floor."""
    return BOXES
