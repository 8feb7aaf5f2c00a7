# SPDX-License-Identifier: Apache-2.0
"""Trajectories and their TUM text."""

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import se3_exp
from recon3d_ros.core.trajectory import Trajectory, format_tum, read_tum, recorded, to_ns


def some_trajectory(n=20):
    rng = np.random.default_rng(0)
    stamps = 1_700_000_000_123_456_789 + np.arange(n) * 66_666_667
    return Trajectory(stamps, np.array([se3_exp(rng.normal(size=6)) for _ in range(n)]))


def test_text_keeps_stamps_to_the_nanosecond_and_poses_to_rounding(tmp_path):
    t = some_trajectory()
    (tmp_path / "t.txt").write_text(format_tum(t))
    back = read_tum(tmp_path / "t.txt")
    assert (back.stamps_ns == t.stamps_ns).all()
    assert np.allclose(back.poses, t.poses, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("1.5", 1_500_000_000), ("-0.25", -250_000_000), ("3", 3_000_000_000), ("1e-3", 1_000_000)],
)
def test_seconds_become_nanoseconds_without_rounding(text, ns):
    assert to_ns(text) == ns


def test_nearest_pose_respects_the_tolerance():
    t = some_trajectory(3)
    assert t.nearest(t.stamps_ns + 1000, 1000).tolist() == [0, 1, 2]
    assert t.nearest(t.stamps_ns + 1001, 1000).tolist() == [-1, -1, -1]
    assert t.at(int(t.stamps_ns[1]) - 5, 10) is t.poses[1] or np.allclose(
        t.at(int(t.stamps_ns[1]) - 5, 10), t.poses[1]
    )
    assert Trajectory(t.stamps_ns[:0], t.poses[:0]).at(0, 10) is None


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("# comment\n0.0 0 0 0 0 0 0 1\nnonsense here\n")
    with pytest.raises(InputError, match=r"t\.txt:3"):
        read_tum(path)
    path.write_text("0.0 0 0 0 0 0 0 0\n")
    with pytest.raises(InputError, match="not a rotation"):
        read_tum(path)


def test_lines_with_nan_are_passed_over_and_stamps_are_sorted(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("2.0 1 0 0 0 0 0 1\n1.0 nan 0 0 0 0 0 1\n0.0 0 0 0 0 0 0 1\n")
    assert read_tum(path).stamps_ns.tolist() == [0, 2_000_000_000]


@pytest.mark.parametrize(
    ("stamps", "left"),
    [
        ([1, 2, 3], [0, 1, 2]),
        ([1, 2, 3, 1, 2, 3], [3, 4, 5]),
        ([1, 2, 3, 4, 0, 2], [4, 5, 2, 3]),
        ([1, 2, 3, 1, 2, 3, 1], [6, 4, 5]),
        ([5, 6, 1, 2], [2, 3, 0, 1]),
        ([4, 4], [1]),
        ([], []),
    ],
)
def test_where_time_went_back_later_poses_replace_those_of_the_time_they_cover(stamps, left):
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, 0, 3] = np.arange(len(stamps))
    trajectory = recorded(np.array(stamps, np.int64), poses)
    assert trajectory.positions[:, 0].tolist() == left
    assert (np.diff(trajectory.stamps_ns) > 0).all()
