# SPDX-License-Identifier: Apache-2.0
"""The mesher on flights without end: bounded, whatever comes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.mapping.mesher import Mesher

#: Ten minutes at five keyframes a second.
STREAM = 3000


def resident_mb():
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def displaced(keyframe, way, id_):
    """A keyframe as many metres farther along x."""
    T = keyframe.T_map_cam.copy()
    T[0, 3] += way
    points = keyframe.points + np.array([way, 0, 0], np.float32)
    return replace(keyframe, id=id_, T_map_cam=T, points=points)


@pytest.mark.slow
def test_m21_ten_minutes_of_new_ground_with_corrections_stay_within_the_bounds(take_walk):
    """The volume, the depth images and all that a rebuild needs: bar 2 GB; and it stops growing."""
    base = take_walk(10, step=0.125)
    params = MeshParams(voxel_size=0.03, max_blocks=12_000, depth_memory=48)
    target, start = Mesher(params), resident_mb()
    used, recent = [], {}
    for i in range(STREAM):
        keyframe = displaced(base[i % 10], 1.25 * (i // 10), i)
        assert target.integrate(keyframe)
        recent[i] = keyframe.T_map_cam
        recent.pop(i - 100, None)
        if i % 50 == 49:
            shift = np.eye(4)
            shift[1, 3] = 0.05 * (i % 3)
            target.correct({j: shift @ T for j, T in recent.items()})
        for _ in range(4):
            target.rebuild_step()
        if i % 5 == 4:
            target.changed(most=1000)
            used.append(resident_mb() - start)
        assert target.blocks <= params.max_blocks
        assert target._history.nbytes <= 48e6
    assert target.counters["blocks evicted"] > 0 and target.counters["blocks refused"] == 0
    third = len(used) // 3
    assert max(used[-third:]) < 1.1 * max(used[third:-third])
    # The volume, the one being built, and two checkpoints of each; the depth images; the images of one keyframe.
    full = 6 * 3.7e-3 * params.max_blocks + params.depth_memory
    assert max(used) < 1.2 * full + 50 < 2000


def test_a_million_voxels_take_at_most_eight_megabytes(take_flight):
    target = Mesher(MeshParams(voxel_size=0.01, depth_memory=0, max_blocks=40_000))
    for i, shot in enumerate(take_flight(6)):
        target.integrate(shot.keyframe(i))
    assert target.blocks > 4000
    tables = target._volume.blocks.keys.nbytes + target._volume.blocks.slots.nbytes
    assert target.memory_mb - tables / 1e6 <= 8 * target.blocks * 512 / 1e6
