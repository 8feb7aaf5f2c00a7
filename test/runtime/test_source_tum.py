# SPDX-License-Identifier: Apache-2.0
import json

import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime.sources import open_source

CALIB = {"width": 32, "height": 24, "camera_model": "pinhole", "fx": 30.0, "fy": 30.0, "cx": 16.0, "cy": 12.0}


@pytest.fixture
def folder(tmp_path):
    """Five images at 10 Hz; depth 8 ms later for all but the third; poses along x, 0.1 m a frame, at 100 Hz."""
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    rgb, depth = ["# timestamp filename"], ["# timestamp filename"]
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"rgb/{i}.png"), np.full((24, 32, 3), 40 * i, np.uint8))
        rgb.append(f"{1000 + i / 10:.6f} rgb/{i}.png original-{i}")
        if i != 2:
            cv2.imwrite(str(tmp_path / f"depth/{i}.png"), np.full((24, 32), 5000 + i, np.uint16))
            depth.append(f"{1000.008 + i / 10:.6f} depth/{i}.png")
    (tmp_path / "rgb.txt").write_text("\n".join(rgb) + "\n")
    (tmp_path / "depth.txt").write_text("\n".join(depth) + "\n")
    poses = [f"{1000.003 + i / 100:.6f} {0.003 + i / 100:.6f} 0 0 0 0 0 1" for i in range(-5, 50)]
    (tmp_path / "groundtruth.txt").write_text("\n".join(poses) + "\n")
    return tmp_path


def test_depth_comes_with_the_image_nearest_in_time(folder):
    source = open_source(folder)
    assert (source.length, source.has_depth) == (5, True)
    for _ in range(2):
        frames = list(source)
        assert [f.stamp_ns for f in frames] == [1_000_000_000_000 + i * 100_000_000 for i in range(5)]
        assert [f.depth is not None for f in frames] == [True, True, False, True, True]
    # Without a calib.json the benchmark's scale holds: 5000 is a metre.
    np.testing.assert_allclose(frames[4].depth, 5004 / 5000)
    assert frames[0].camera is None
    assert frames[0].prior is None


def test_depth_outside_the_tolerance_is_left_out(folder):
    assert not any(f.depth is not None for f in open_source(folder, sync=0.005))


def test_the_truth_becomes_the_prior_only_when_asked_for(folder):
    source = open_source(folder, prior=True)
    assert len(source.truth) == 55
    # Between two poses it is interpolated.
    np.testing.assert_allclose([f.prior[0, 3] for f in source], np.arange(5) / 10, atol=1e-9)
    assert "prior" in source.describe()


def test_a_prior_without_poses_is_refused(folder):
    (folder / "groundtruth.txt").unlink()
    with pytest.raises(InputError, match="no poses"):
        open_source(folder, prior=True)


def test_a_calib_json_gives_cameras_scale_and_whose_the_poses_are(folder):
    other = {"depth_fx": 40.0, "depth_fy": 40.0, "depth_cx": 16.0, "depth_cy": 12.0}
    values = CALIB | other | {"depth_scale": 1000.0, "poses_of": "depth camera"}
    (folder / "calib.json").write_text(json.dumps(values))
    source = open_source(folder)
    frame = next(iter(source))
    assert frame.camera == Camera(32, 24, 30.0, 30.0, 16.0, 12.0)
    assert frame.depth_camera == Camera(32, 24, 40.0, 40.0, 16.0, 12.0)
    np.testing.assert_allclose(frame.depth, 5.0)
    assert "not registered" in source.describe()
    assert "of the depth camera" in source.describe()


def test_damaged_depth_leaves_a_frame_without_and_is_counted(folder):
    (folder / "depth" / "1.png").write_bytes(b"no image")
    (folder / "rgb" / "3.png").unlink()
    source = open_source(folder)
    assert [f.depth is not None for f in source] == [True, False, False, True]
    assert source.skipped == {"unreadable depth": 1, "unreadable image": 1}


@pytest.mark.parametrize("line", ["hello", "12.5", "abc rgb/0.png"])
def test_a_line_that_cannot_be_understood_is_named(folder, line):
    (folder / "rgb.txt").write_text(f"# comment\n{line}\n")
    with pytest.raises(InputError, match=r"rgb\.txt:2"):
        open_source(folder)


def test_an_empty_index_is_an_input_error(folder):
    (folder / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no images"):
        open_source(folder)


@pytest.mark.data
def test_the_real_recordings_open(data_dir):
    folders = [d for d in sorted(data_dir.iterdir()) if (d / "rgb.txt").is_file()]
    assert len(folders) >= 5
    for folder in folders:
        source = open_source(folder)
        frame = next(iter(source))
        assert frame.image.dtype == np.uint8
        assert frame.camera is None or frame.camera.size == frame.image.shape[1::-1]


def test_gps_positions_are_metres_of_the_first_fix(folder):
    stamps = [line.split()[0] for line in (folder / "rgb.txt").read_text().splitlines() if line[0] != "#"]
    rows = ["# timestamp lat lon alt more"]
    rows += [f"{s} {47.0 + 1e-4 * i} 8.0 {400.0 + i} 1 2 3 nan" for i, s in enumerate(stamps)]
    rows[-1] = f"{stamps[-1]} nan nan nan"
    (folder / "gps.txt").write_text("\n".join(rows))
    source = open_source(folder)
    frames = list(source)
    assert frames[0].position == pytest.approx([0, 0, 0]) and frames[-1].position is None
    assert frames[1].position == pytest.approx([0.0, 11.1, 1.0], abs=0.1)
    assert f"{len(stamps) - 1} GPS positions" in source.describe()


def test_a_line_of_gps_that_is_none_is_named(folder):
    (folder / "gps.txt").write_text("1.0 47.0\n")
    with pytest.raises(InputError, match=r"gps.txt:1: expected 'seconds latitude"):
        open_source(folder)
