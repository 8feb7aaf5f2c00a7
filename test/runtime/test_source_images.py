# SPDX-License-Identifier: Apache-2.0
import json

import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime.sources import open_source
from recon3d_ros.runtime.sources.images import image_files

SIZE = (32, 24)


def write(path, value=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))


def test_files_come_in_the_natural_order_of_their_numbers(tmp_path):
    for i in (10050, 2, 999, 10, 1):
        (tmp_path / f"frame{i}.png").touch()
    assert [f.name for f in image_files(tmp_path)] == [f"frame{i}.png" for i in (1, 2, 10, 999, 10050)]


def test_names_without_numbers_and_mixed_ones_sort_too(tmp_path):
    for name in ("b.png", "a.png", "a1.png", "1.png", "1a2.png", "01.png"):
        (tmp_path / name).touch()
    assert [f.name for f in image_files(tmp_path)] == [
        "01.png",
        "1.png",
        "1a2.png",
        "a1.png",
        "a.png",
        "b.png",
    ]


def test_frames_are_the_images_in_order_and_again_when_iterated_again(tmp_path):
    for i in range(12):
        write(tmp_path / f"{i}.png", i * 20)
    source = open_source(tmp_path)
    assert (source.kind, source.length, source.has_depth, source.truth) == ("images", 12, False, None)
    for _ in range(2):
        frames = list(source)
        assert [int(f.image[0, 0, 0]) for f in frames] == [i * 20 for i in range(12)]
        assert [f.stamp_ns for f in frames] == [i * 100_000_000 for i in range(12)]
        assert all(f.camera is None for f in frames)
    assert str(source.length) in source.describe()


def test_names_that_are_nanoseconds_or_seconds_are_the_stamps(tmp_path):
    stamps = [1739236932037457664, 1739236932081043456]
    for stamp in stamps:
        write(tmp_path / "ns" / f"{stamp}.png")
    for name in ("1305031102.175304", "1305031102.211214"):
        write(tmp_path / "seconds" / f"{name}.png")
    assert [f.stamp_ns for f in open_source(tmp_path / "ns")] == stamps
    assert [f.stamp_ns for f in open_source(tmp_path / "seconds")] == [
        1305031102175304000,
        1305031102211214000,
    ]


def test_damaged_images_are_counted_and_passed_over_in_each_iteration(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.jpg", 50)
    (tmp_path / "1.jpg").write_bytes(b"no image")
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 2])
    source = open_source(tmp_path)
    for _ in range(2):
        assert [f.stamp_ns for f in source] == [0, 300_000_000]
        assert source.skipped == {"unreadable image": 2}


def test_an_image_of_another_size_is_passed_on(tmp_path):
    write(tmp_path / "0.png")
    write(tmp_path / "1.png", size=(16, 12))
    assert [f.image.shape[:2] for f in open_source(tmp_path)] == [(24, 32), (12, 16)]


def test_a_calibration_beside_the_images_gives_camera_and_frame_rate(tmp_path):
    write(tmp_path / "0.png")
    write(tmp_path / "1.png")
    values = {
        "width": 64,
        "height": 48,
        "camera_model": "pinhole",
        "fx": 50,
        "fy": 50,
        "cx": 31.5,
        "cy": 23.5,
        "fps": 4,
    }
    (tmp_path / "calib.json").write_text(json.dumps(values))
    frames = list(open_source(tmp_path))
    assert frames[1].stamp_ns == 250_000_000
    assert frames[0].camera == Camera(32, 24, 25.0, 25.0, 15.5, 11.5)


def test_a_given_camera_is_scaled_or_refused(tmp_path):
    write(tmp_path / "0.png")
    frame = next(iter(open_source(tmp_path, camera=Camera(64, 48, 50.0, 50.0, 31.5, 23.5))))
    assert frame.camera.size == SIZE
    with pytest.raises(InputError, match="32x24"):
        open_source(tmp_path, camera=Camera(64, 64, 50.0, 50.0, 31.5, 31.5))


def test_folders_without_a_readable_image_are_input_errors(tmp_path):
    write(tmp_path / "inside" / "0.png")
    with pytest.raises(InputError, match="inside"):
        open_source(tmp_path)
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 1 images"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nothing", "no such file"),
        ("notes.txt", "no known kind"),
        ("old.bag", "rosbags-convert"),
        ("a.png", "its folder"),
    ],
)
def test_paths_that_are_no_source_say_what_would_be(tmp_path, name, hint):
    if name != "nothing":
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=hint) as error:
        open_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_prior_is_refused_where_there_are_no_poses(tmp_path):
    write(tmp_path / "0.png")
    with pytest.raises(InputError, match="without the prior"):
        open_source(tmp_path, prior=True)


def photograph(path, seconds, **gps):
    """A photo with focal length, time and, where given, place."""
    image = pytest.importorskip("PIL.Image").new("RGB", (64, 48))
    exif = image.getexif()
    exif.get_ifd(0x8769).update({0xA405: 24, 0x9003: f"2024:05:06 07:08:{seconds:02d}"})
    if gps:
        degrees = {"latitude": (1, "N", 2), "longitude": (3, "E", 4)}
        for name, (ref, side, tag) in degrees.items():
            exif.get_ifd(0x8825).update({ref: side, tag: (gps[name], 0.0, 0.0)})
        exif.get_ifd(0x8825)[6] = gps["altitude"]
    image.save(path, exif=exif)


def test_photos_bring_focal_length_place_and_time(tmp_path):
    for i in range(3):
        place = {} if i == 1 else {"latitude": 47.0 + 1e-4 * i, "longitude": 8.0, "altitude": 400.0 + i}
        photograph(tmp_path / f"{i}.jpg", 10 + 2 * i, **place)
    source = open_source(tmp_path)
    for _ in range(2):
        frames = list(source)
        assert frames[0].camera.fx == pytest.approx(24 / 43.267 * 80, rel=1e-4) and frames[0].camera.estimated
        assert np.diff([f.stamp_ns for f in frames]).tolist() == [2 * 10**9] * 2
        assert frames[0].position.tolist() == [0, 0, 0] and frames[1].position is None
        assert frames[2].position == pytest.approx([0.0, 22.2, 2.0], abs=0.1)
    assert "EXIF" in source.describe() and "2 GPS positions" in source.describe()


def test_photos_taken_in_the_same_second_keep_the_assumed_rate(tmp_path):
    for i in range(3):
        photograph(tmp_path / f"{i}.jpg", 10)
    assert [f.stamp_ns for f in open_source(tmp_path)] == [0, 10**8, 2 * 10**8]


def test_a_calibration_outweighs_the_photos(tmp_path):
    photograph(tmp_path / "0.jpg", 10)
    camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    assert open_source(tmp_path, camera=camera).camera == camera
