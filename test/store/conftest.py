# SPDX-License-Identifier: Apache-2.0
"""Updates to make keyframes of, readers in processes of their own, and a look at what is left in shared memory."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import CloudParams, StoreParams
from recon3d_ros.core.types import Tracking, Update
from recon3d_ros.store.keyframe_store import KeyframeStore

SHM = Path("/dev/shm")
CAMERA = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)

#: A consumer: one command per line in, one JSON object per line out.
READER = """
import json, sys
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Scale
from recon3d_ros.store.reader import SegmentReader

reader, leases = SegmentReader(), []
for line in sys.stdin:
    command, *words = line.split()
    try:
        if command == "read":
            camera = Camera(40, 30, 40.0, 40.0, 20.0, 15.0)
            leases.append(reader.read(words[0], int(words[1]), int(words[2]), camera, Scale.SENSOR))
        elif command == "release":
            leases.pop(0).release()
        held = [lease.keyframe for lease in leases]
        out = {"ids": [k.id for k in held], "sums": [float(k.points.sum(dtype=float)) for k in held]}
    except StoreError as error:
        out = {"refused": error.reason, "count": reader.refused[error.reason]}
    print(json.dumps(out), flush=True)
reader.close()
"""


def update(index: int, camera: Camera = CAMERA, **changes) -> Update:
    """A keyframe with a depth of its own and every pixel measured."""
    shape = (camera.height, camera.width)
    rng = np.random.default_rng(index)
    values = dict(
        index=index,
        stamp_ns=1_000_000 * index + 7,
        T_map_cam=np.eye(4),
        tracking=Tracking.TRACKING,
        is_keyframe=True,
        camera=camera,
        depth=rng.uniform(1, 5, shape).astype(np.float32),
        colours=rng.integers(0, 255, (*shape, 3), dtype=np.uint8),
        confidence=np.ones(shape, np.float32),
    )
    return Update(**(values | changes))


class Child:
    """A process that answers each line with a line."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> dict:
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        print(*words, file=self.process.stdin, flush=True)

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def end(self) -> int:
        self.process.stdin.close()
        return self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def words(handle) -> tuple[str, int, int]:
    """A handle as the reader process takes it."""
    return handle.shm_name, handle.shm_size, handle.generation


@pytest.fixture
def spawn():
    """Start a process by its code; it is ended with the test."""
    children = []

    def start(code: str = READER, *arguments: object) -> Child:
        children.append(Child(code, *arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.process.stdin.close()
        child.process.stdout.close()


_NUMBERS = itertools.count()


@pytest.fixture
def prefix():
    """A prefix for the files of one test, which must leave none."""
    name = f"recon3d_test{os.getpid()}x{next(_NUMBERS)}"
    yield name
    left = files_of(name)
    for file in left:
        (SHM / file).unlink()
    assert not left


def files_of(prefix: str) -> list[str]:
    return sorted(p.name for p in SHM.iterdir() if p.name.startswith(prefix))


@pytest.fixture
def tools():
    """The helpers of this file, for tests that are loaded without a package around them."""
    return sys.modules[__name__]


@pytest.fixture
def make_store(prefix):
    """A store on an arena; closed with the test, before a look is taken at what is left."""
    stores = []

    def make(arena, slots: int = 3) -> KeyframeStore:
        stores.append(KeyframeStore(arena, StoreParams(slots=slots), CloudParams()))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
