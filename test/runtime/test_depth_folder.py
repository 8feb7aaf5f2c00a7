# SPDX-License-Identifier: Apache-2.0
"""Depth on disk comes back, with its camera, and never outlives the run it belongs to."""

import json
from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import similarity
from recon3d_ros.core.types import Join, Tracking, Update
from recon3d_ros.runtime.depth_folder import DepthFolder, remove_depth, saved_depth

CAMERA = Camera(8, 6, 7.5, 7.25, 3.5, 2.5)


def update(index, value, camera=CAMERA):
    depth = np.full((6, 8), value, np.float32)
    depth[0, 0] = np.nan
    return Update(index, 10**18 + index, np.eye(4), Tracking.TRACKING, camera=camera, depth=depth)


@pytest.fixture
def folder(tmp_path):
    """With two keyframes, the second one answered twice."""
    writer = DepthFolder(tmp_path)
    for answer in (update(3, 1.0), update(7, 2.0), update(7, 2.5)):
        writer.write(answer)
    writer.write(Update(8, 0, np.eye(4), Tracking.TRACKING))
    writer.close()
    assert not writer.failures
    return tmp_path


def test_the_latest_depth_of_each_keyframe_comes_back_with_its_camera(folder):
    first, second = saved_depth(folder)
    assert (first.id, first.stamp_ns, first.camera) == (3, 10**18 + 3, CAMERA)
    assert np.array_equal(second.read(), update(7, 2.5).depth, equal_nan=True)
    assert not list((folder / "depth").glob(".*"))


def test_depth_is_on_disk_before_the_run_ends(tmp_path):
    writer = DepthFolder(tmp_path)
    writer.write(update(3, 1.0))
    assert (tmp_path / "depth/000003.npy").is_file() and not saved_depth(tmp_path)


def test_a_run_without_depth_leaves_no_folder(tmp_path):
    DepthFolder(tmp_path).close()
    assert not (tmp_path / "depth").exists() and saved_depth(tmp_path) == []


def test_depth_of_an_earlier_run_is_removed_and_other_files_stay(folder):
    (folder / "depth/notes.txt").write_text("mine")
    remove_depth(folder)
    assert [f.name for f in (folder / "depth").iterdir()] == ["notes.txt"]


def test_an_index_names_files_of_its_own_folder_only(folder):
    (folder / "precious.npy").write_text("mine")
    index = folder / "depth/cameras.json"
    index.write_text(index.read_text().replace("000003.npy", "../precious.npy"))
    remove_depth(folder)
    assert (folder / "precious.npy").exists()


def test_a_damaged_index_or_image_is_refused_in_one_line(folder):
    (folder / "depth/000003.npy").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot read depth"):
        saved_depth(folder)[0].read()
    np.save(folder / "depth/000003.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match=r"\(2, 2\)"):
        saved_depth(folder)[0].read()
    (folder / "depth/cameras.json").write_text(json.dumps({"keyframes": [{"id": 1}]}))
    with pytest.raises(InputError, match="is damaged"):
        saved_depth(folder)


def test_depth_grows_with_the_map_that_joins_another(tmp_path):
    writer = DepthFolder(tmp_path)
    writer.write(replace(update(1, 1.0), map_id=0))
    writer.write(replace(update(5, 1.0), map_id=2))
    writer.write(replace(update(7, 1.0), map_id=3))
    S = similarity(3.0, np.eye(3), np.ones(3))
    writer.write(replace(update(8, 1.0), map_id=0, join=Join(kept=2, moved=0, S_kept_moved=S)))
    writer.close()
    saved = saved_depth(tmp_path)
    assert [s.map_id for s in saved] == [0, 0, 3, 0]
    assert [s.read()[1, 1] for s in saved] == pytest.approx([3.0, 1.0, 1.0, 1.0])


def test_a_disk_that_refuses_is_said_once_and_the_run_goes_on(tmp_path):
    (tmp_path / "depth").write_text("a file where the folder should be")
    writer = DepthFolder(tmp_path)
    writer.write(update(3, 1.0))
    writer.write(update(4, 1.0))
    writer.close()
    assert len(writer.failures) == 1 and "depth/ not complete" in writer.failures[0]
