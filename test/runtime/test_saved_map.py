# SPDX-License-Identifier: Apache-2.0
"""A map in a folder: what a pipeline goes on with, and what it says where it cannot."""

import dataclasses

import numpy as np
import pytest

from recon3d_ros.backends import registry
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.params import load_yaml
from recon3d_ros.runtime.archive import read_archive, write_archive
from recon3d_ros.runtime.pipeline import Pipeline
from recon3d_ros.runtime.saved_map import SavedMap
from recon3d_ros.store.heap import HeapArena
from recon3d_ros.store.keyframe_store import KeyframeStore
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

CONFIG = Config()


def pipeline(config=CONFIG):
    store = KeyframeStore(HeapArena(), config.store, config.cloud)
    return Pipeline(config, registry.create("rgbd", config), store)


@pytest.fixture(scope="module")
def frames():
    options = FlightOptions(frames=16, camera=camera_of(160, 120, 70.0), depth=True)
    return list(SyntheticFlight("room", "forward", options))


@pytest.fixture
def flown(frames):
    made = pipeline()
    for frame in frames[:10]:
        made.step(frame)
    return made


def fly_on(made, frames):
    """A second flight, whose stamps begin anew."""
    steps = [s for f in frames[4:] for s in made.step(dataclasses.replace(f, stamp_ns=f.stamp_ns + 10**12))]
    return [s.update.index for s in steps]


def test_cloud_and_indices_go_on_and_the_trajectory_is_that_of_the_new_flight(frames, flown, tmp_path):
    path = SavedMap.of(flown, "rgbd").write(tmp_path / "map")
    assert path == tmp_path / "map" / "reconstruction.npz"
    saved = SavedMap.read(tmp_path / "map", "auto")
    assert saved.backend == "rgbd"
    (tmp_path / "config.yaml").write_text(saved.config)
    assert load_yaml(tmp_path / "config.yaml")["backend"] == "auto"
    made = pipeline()
    saved.resume(made)
    assert np.array_equal(made.cloud.points, flown.cloud.points)
    assert np.array_equal(made.cloud.colours, flown.cloud.colours)
    assert made.cloud.voxel_size == flown.cloud.voxel_size > 0
    assert fly_on(made, frames) == list(range(10, 22))
    assert min(made.keyframes) >= 10 and set(flown.keyframes) < set(made.cloud.ranges())
    assert len(made.trajectory()) == 12 and made.frames == 12
    # What both flights see is there once, as in one flight.
    assert fly_on(flown, frames) == list(range(10, 22))
    assert len(made.cloud) == pytest.approx(len(flown.cloud), rel=0.3)


def test_ids_after_a_jump_of_time_are_not_given_twice(frames, flown, tmp_path):
    flown.begin_map()
    for frame in frames[:6]:
        flown.step(frame)
    SavedMap.of(flown, "rgbd").write(tmp_path)
    made = pipeline()
    SavedMap.read(tmp_path, "rgbd").resume(made)
    assert set(made.cloud.ranges()) == set(flown.maps.clouds[1].ranges())
    assert fly_on(made, frames)[0] == 16


def test_a_cloud_that_may_hold_less_drops_its_oldest_points(flown, tmp_path):
    SavedMap.of(flown, "rgbd").write(tmp_path)
    limit = len(flown.cloud) // 2
    config = dataclasses.replace(CONFIG, cloud=dataclasses.replace(CONFIG.cloud, max_points=limit))
    made = pipeline(config)
    SavedMap.read(tmp_path, "rgbd").resume(made)
    assert 0 < len(made.cloud) <= limit


def test_the_map_of_another_backend_is_refused(flown, tmp_path):
    SavedMap.of(flown, "rgbd").write(tmp_path)
    with pytest.raises(InputError, match="is a map of backend 'rgbd', not 'geometric': set backend to rgbd"):
        SavedMap.read(tmp_path, "geometric")


def test_a_map_that_lacks_something_is_refused(flown, tmp_path):
    path = SavedMap.of(flown, "rgbd").write(tmp_path)
    arrays = dict(read_archive(path, "reconstruction"))
    del arrays["pipeline.backend.T_map_cam"]
    write_archive(path, "reconstruction", arrays)
    points = flown.cloud.points
    with pytest.raises(InputError, match="save it anew"):
        SavedMap.read(tmp_path, "rgbd").resume(flown)
    # What was there goes on.
    assert np.array_equal(flown.cloud.points, points) and len(flown.trajectory()) == 10


def test_a_folder_without_a_map_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there: save a map first"):
        SavedMap.read(tmp_path, "auto")


def test_nothing_is_written_where_there_is_no_map(tmp_path):
    with pytest.raises(InputError, match="there is no map yet"):
        SavedMap.of(pipeline(), "rgbd")
