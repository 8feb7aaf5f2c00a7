# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime.sources import open_source


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for i in range(9):
        writer.write(np.full((48, 64, 3), (0, 0, 25 * i), np.uint8))
    writer.release()
    return path


def test_frames_are_rgb_with_rising_stamps_and_the_same_again(video):
    source = open_source(video)
    assert (source.kind, source.length, source.has_depth) == ("video", 9, False)
    for _ in range(2):
        frames = list(source)
        assert [f.stamp_ns for f in frames] == [i * 50_000_000 for i in range(9)]
        np.testing.assert_allclose([f.image[24, 32, 0] for f in frames], [25 * i for i in range(9)], atol=4)
        assert max(f.image[24, 32, 2] for f in frames) < 10
    assert "64x48 at 20 Hz" in source.describe()


def test_a_given_camera_is_scaled_to_the_video(video):
    frame = next(iter(open_source(video, camera=Camera(128, 96, 100.0, 100.0, 64.0, 48.0))))
    assert frame.camera.size == (64, 48)


@pytest.mark.parametrize("name", ["empty.mp4", "text.h264"])
def test_a_file_that_is_no_video_is_an_input_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"no video at all" * 50)
    with pytest.raises(InputError, match="mp4"):
        open_source(tmp_path / name)


@pytest.mark.data
def test_a_raw_h264_stream_has_no_length_and_says_that_its_rate_is_assumed(data_dir):
    source = open_source(data_dir / "worldsystem-drone" / "hall_0140_segment_014.h264")
    assert source.length is None
    assert "assumed" in source.describe()
    stamps = [f.stamp_ns for f in source]
    assert len(stamps) == 144
    assert (np.diff(stamps) > 0).all()
