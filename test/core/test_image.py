# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.image import decode_image, read_depth, read_image, resampling_map, to_grey

RED = np.full((40, 60, 3), (255, 0, 0), np.uint8)


def encoded(image, suffix):
    return cv2.imencode(suffix, image)[1].ravel()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_a_red_file_is_read_as_red(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"red{suffix}"), RED[..., ::-1])
    np.testing.assert_allclose(read_image(tmp_path / f"red{suffix}"), RED, atol=2)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_cut_short_is_refused_and_not_filled_with_grey(suffix):
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    data = encoded(image, suffix)
    assert decode_image(data).shape == (80, 80, 3)
    with pytest.raises(FrameError, match="cut short"):
        decode_image(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xd9"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(FrameError) as error:
        decode_image(np.frombuffer(data, np.uint8))
    assert error.value.reason == "unreadable image"


def test_a_missing_file_is_a_frame_error(tmp_path):
    with pytest.raises(FrameError, match="No such file"):
        read_image(tmp_path / "nothing.png")


def test_depth_is_scaled_to_metres_and_zero_is_no_measurement(tmp_path):
    cv2.imwrite(str(tmp_path / "depth.png"), np.array([[0, 5000], [2500, 65535]], np.uint16))
    depth = read_depth(tmp_path / "depth.png", 5000.0)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[np.nan, 1.0], [0.5, 13.107]])


def test_depth_of_three_channels_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "depth.png"), RED)
    with pytest.raises(FrameError, match="more than one channel"):
        read_depth(tmp_path / "depth.png", 1000.0)


def test_grey_weighs_green_most():
    red, green, blue = (
        int(to_grey(np.full((2, 2, 3), c, np.uint8))[0, 0]) for c in np.eye(3, dtype=int) * 255
    )
    assert green > red > blue > 0


def test_the_resampling_map_carries_an_image_into_an_ideal_camera():
    lens = Camera(160, 120, 120.0, 120.0, 80.0, 60.0, "plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0))
    ideal = lens.undistorted()
    point = np.array([[0.3, -0.2, 1.0]])
    at, seen = ideal.project(point)[0].round().astype(int), lens.project(point)[0]
    table = resampling_map(ideal, lens)
    assert table.shape == (120, 160, 2)
    np.testing.assert_allclose(table[at[1], at[0]], seen, atol=0.01)
    assert np.linalg.norm(seen - at) > 1.0


def test_the_resampling_map_of_a_camera_onto_itself_changes_nothing_and_is_read_only():
    camera = Camera(16, 12, 10.0, 10.0, 8.0, 6.0)
    table = resampling_map(camera, camera)
    u, v = np.meshgrid(np.arange(16), np.arange(12))
    np.testing.assert_allclose(table, np.stack([u, v], axis=-1), atol=1e-5)
    with pytest.raises(ValueError):
        table[0, 0] = 0
