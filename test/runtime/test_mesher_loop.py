# SPDX-License-Identifier: Apache-2.0
"""The mesher thread: order, publication, reset, and keyframes that cannot be read."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Keyframe
from recon3d_ros.runtime.mesher import MesherLoop

CAMERA = Camera(64, 48, 60, 60, 31.5, 23.5)


def wall(id_=0, distance=2.0):
    """A keyframe that looks at a wall."""
    rays = CAMERA.rays().reshape(-1, 2)
    points = (np.column_stack([rays, np.ones(len(rays))]) * distance).astype(np.float32)
    return Keyframe(id_, id_, np.eye(4), CAMERA, points, np.full((len(points), 3), 200, np.uint8))


@pytest.fixture
def params():
    return MeshParams(voxel_size=0.05, min_weight=1.0, min_component=10, publish_rate=50.0)


def test_keyframes_become_a_surface_at_the_wall(params):
    loop = MesherLoop(params, realtime=False)
    for i in range(3):
        loop.put(wall(i))
    loop.finish()
    mesh = loop.surface()
    assert len(mesh.triangles) > 100 and np.abs(mesh.vertices[:, 2] - 2.0).max() < 0.025


def test_blocks_are_published_while_keyframes_come_and_again_on_request(params):
    batches, enough = [], threading.Event()

    def sink(blocks):
        batches.append(blocks)
        enough.set()

    loop = MesherLoop(params, realtime=True, sink=sink)
    loop.put(wall())
    assert enough.wait(20)
    first = {b.id for b in batches[-1]}
    enough.clear()
    loop.republish()
    assert enough.wait(20)
    assert {b.id for b in batches[-1]} == first
    loop.close()


def test_a_keyframe_that_cannot_be_opened_costs_only_itself(params):
    @contextmanager
    def gone():
        raise StoreError("overwritten")
        yield

    loop = MesherLoop(params, realtime=False)
    loop.put_lease(gone)
    loop.put(wall())
    loop.finish()
    assert len(loop.surface().triangles) > 0
    assert loop.metrics.drops == {"keyframe overwritten": 1}


def test_reset_empties_the_surface(params):
    loop = MesherLoop(params, realtime=False)
    loop.put(wall())
    loop.reset()
    loop.finish()
    assert len(loop.surface().triangles) == 0
