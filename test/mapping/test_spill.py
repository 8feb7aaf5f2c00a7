# SPDX-License-Identifier: Apache-2.0
"""Blocks dropped at the bound are kept on disk, come back when they are seen again, and leave nothing behind."""

import os
import subprocess
import sys

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import spill
from recon3d_ros.mapping.mesher import Mesher


def mesher(**params):
    return Mesher(MeshParams(**{"voxel_size": 0.04, "duplicate_share": 0.0, **params}))


def equal(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("vertices", "triangles", "colours"))


def held(target):
    """Coordinates -> voxels of every block in memory or on disk."""
    blocks, out = target._volume.blocks, {}
    for slot in np.flatnonzero(blocks.alive):
        out[tuple(blocks.coords[slot])] = (blocks.tsdf[slot], blocks.weight[slot], blocks.colour[slot])
    if target._volume.spill is not None:
        coords = target._volume.spill.coordinates
        part = spill.pool.allocate(max(1, len(coords)))
        target._volume.spill.peek(part, coords)
        for slot in np.flatnonzero(part.alive):
            out[tuple(part.coords[slot])] = (part.tsdf[slot], part.weight[slot], part.colour[slot])
    return out


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_with_room_on_disk_a_full_pool_loses_nothing(take_walk, tmp_path):
    """A walk there and back again: every block comes back as it was. Without carving, which skips what is on disk."""
    keyframes = take_walk(12)
    back = [type(k)(**{**vars(k), "id": 100 + k.id}) for k in keyframes[::-1]]
    roomy = mesher(carve=False)
    tight = mesher(carve=False, max_blocks=130, spill=str(tmp_path))
    lossy = mesher(carve=False, max_blocks=130)
    for keyframe in keyframes + back:
        for target in (roomy, tight, lossy):
            assert target.integrate(keyframe)
        assert tight.blocks <= 130
    assert tight.counters["blocks evicted"] > 0 and tight.counters["blocks refused"] == 0
    expected, got = held(roomy), held(tight)
    assert expected.keys() == got.keys()
    assert all(np.array_equal(a, b) for k in expected for a, b in zip(expected[k], got[k], strict=True))
    assert len(lossy.surface().triangles) < len(tight.surface().triangles)
    assert equal(tight.surface(), roomy.surface())


def test_the_shown_mesh_is_that_of_the_blocks_in_memory(take_walk, viewer, tmp_path):
    target = mesher(max_blocks=130, spill=str(tmp_path))
    for keyframe in take_walk(12):
        target.integrate(keyframe)
        viewer.follow(target.changed())
        viewer.assert_full(target)


def test_a_rebuild_shares_the_disk_and_gives_back_what_it_does_not_need(take_walk, tmp_path):
    true, drifted = take_walk(12), take_walk(12, drift=20)
    target = mesher(max_blocks=130, spill=str(tmp_path), depth_memory=1)
    fresh = mesher(max_blocks=130, spill=str(tmp_path))
    for i, keyframe in enumerate(drifted):
        target.integrate(keyframe)
        fresh.integrate(true[i] if i >= 8 else keyframe)
    for poses in (true, drifted, true):
        target.correct({k.id: k.T_map_cam for k in poses})
        assert target.rebuild()
    expected, got = held(fresh), held(target)
    assert expected.keys() == got.keys()
    assert all(np.array_equal(a, b) for k in expected for a, b in zip(expected[k], got[k], strict=True))
    volume, users = target._volume, target._volumes._disk._users
    spills = [volume.spill, *(moment._state.spill for moment in volume._checkpoints)]
    assert sum(users.values()) == sum(len(s) for s in spills)
    assert target._volumes._disk._end == len(users) + len(target._volumes._disk._free)


def test_nothing_is_left_on_disk_while_it_runs_or_after(take_walk, tmp_path):
    before = descriptors()
    target = mesher(max_blocks=130, spill=str(tmp_path))
    for keyframe in take_walk(12):
        target.integrate(keyframe)
    assert len(target._volume.spill) > 0 and list(tmp_path.iterdir()) == []
    target.reset()
    del target
    assert descriptors() == before


def test_nothing_is_left_after_a_process_that_was_killed(tmp_path):
    code = (
        "import os, sys\nfrom recon3d_ros.mapping.spill import BlockFile, BLOCK_BYTES\n"
        "file = BlockFile(sys.argv[1])\nassert file.write(bytes(BLOCK_BYTES)) == 0\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_blocks_says_so_once_and_goes_on(take_walk, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    target = mesher(max_blocks=130, spill=str(tmp_path))
    monkeypatch.setattr(spill.os, "pwrite", full)
    for keyframe in take_walk(12):
        assert target.integrate(keyframe)
    assert target.blocks <= 130 and len(target._volume.spill) == 0
    assert sum("No space left" in record.message for record in caplog.records) == 1
    assert len(target.surface().triangles) > 0


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"mesh\.spill") as error:
        mesher(spill=str(tmp_path / folder))
    assert "\n" not in str(error.value)
