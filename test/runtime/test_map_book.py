# SPDX-License-Identifier: Apache-2.0
"""More than one map: which frame is in which, what is shown, and what a join makes of clouds, surfaces and files."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import CloudParams, Config, MeshParams
from recon3d_ros.core.geometry import pose, similarity, so3_exp, transform
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Join, Keyframe, Scale, Tracking, Update
from recon3d_ros.runtime.map_book import MapBook
from recon3d_ros.runtime.mesher import MesherLoop
from recon3d_ros.runtime.metrics import Percentiles
from recon3d_ros.runtime.pipeline import Step
from recon3d_ros.runtime.report import Report
from recon3d_ros.runtime.results import Results, save
from recon3d_ros.runtime.surfaces import Surfaces

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
S = similarity(2.0, so3_exp(np.array([0.1, -0.3, 0.2])), np.array([3.0, 1.0, -2.0]))


def update(index, map_id, **fields):
    return Update(index, index, np.eye(4), Tracking.TRACKING, map_id=map_id, **fields)


def wall(index, depth=2.0):
    """A keyframe that looks at a wall."""
    points = CAMERA.rays().reshape(-1, 2)
    points = (np.column_stack([points, np.ones(len(points))]) * depth).astype(np.float32)
    colours = np.full((len(points), 3), index, np.uint8)
    return Keyframe(index, index, np.eye(4), CAMERA, points, colours, scale=Scale.SENSOR)


def test_another_map_is_shown_from_its_first_pose_on():
    book = MapBook(CloudParams())
    assert [book.follow(update(i, 0)) for i in range(2)] == [False, False]
    assert book.follow(update(2, 1, revises=True)) and book.current == 1
    assert not book.follow(update(1, 0, revises=True)) and book.current == 1
    assert book.follow(update(3, 0)) and book.current == 0
    assert book.frames == {0: 0, 1: 0, 2: 1, 3: 0}


def test_a_lost_frame_belongs_to_no_map():
    book = MapBook(CloudParams())
    book.follow(Update(0, 0, None, Tracking.LOST, map_id=1))
    assert book.frames == {} and book.current == 0


@pytest.mark.parametrize(("kept", "moved", "begins"), [(0, 1, True), (1, 0, False)])
def test_a_join_makes_one_map_under_the_older_number(kept, moved, begins):
    book = MapBook(CloudParams(voxel_size=0.01))
    book.follow(update(0, 0))
    book.cloud.add(wall(0))
    book.follow(update(1, 1))
    book.cloud.add(wall(1, 3.0))
    alone = {m: cloud.points for m, cloud in book.clouds.items()}
    assert book.follow(update(1, 0, revises=True, join=Join(kept, moved, S))) is begins
    assert book.frames == {0: 0, 1: 0} and list(book.clouds) == [0] and book.current == 0
    expected = {kept: alone[kept], moved: transform(S, alone[moved])}
    ranges = book.cloud.ranges()
    for m in (0, 1):
        assert book.cloud.points[ranges[m]] == pytest.approx(expected[m], abs=1e-4)


def test_surfaces_of_all_maps_are_kept_and_move_with_a_join():
    mesher = MesherLoop(MeshParams(min_component=0, voxel_size=0.1), realtime=False)
    surfaces = Surfaces(mesher)
    for index in (0, 1):
        surfaces.follow(Step(update(index, index), None, begins=index == 1))
        mesher.put(wall(index, 2.0 + index))
    surfaces.follow(Step(update(2, 0, join=Join(0, 1, S)), None, begins=True))
    mesher.put(wall(3, 5.0))
    mesher.finish()
    mesh = surfaces.of(0)
    mesher.close()
    own, back = mesh.vertices[:, 2], transform(np.linalg.inv(S), mesh.vertices)[:, 2]
    for depths, wall_at in ((own, 2.0), (back, 3.0), (own, 5.0)):
        assert np.count_nonzero(np.abs(depths - wall_at) < 0.05) > 100
    assert mesh.triangles.max() == len(mesh.vertices) - 1 and len(mesh.colours) == len(mesh.vertices)


def test_other_maps_have_trajectories_of_their_own_and_those_of_earlier_runs_go(tmp_path):
    one = Trajectory(np.array([1, 2]), np.array([np.eye(4), pose(np.eye(3), np.ones(3))]))
    report = Report(
        "s", "b", 4, 4, 2, 1.0, Percentiles.of([1.0]), {}, 1.0, "unknown", 0, 0, 0.0, maps={"0": 2, "1": 2}
    )
    empty = np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8)
    (tmp_path / "trajectory_map7.txt").write_text("of an earlier run")
    assert save(Results(one, [], *empty, None, Config(), report, {1: one}), tmp_path) == []
    assert sorted(p.name for p in tmp_path.glob("trajectory*.txt")) == [
        "trajectory.txt",
        "trajectory_map1.txt",
    ]
    assert "maps | 0: 2 frames, 1: 2 frames" in (tmp_path / "report.md").read_text()
