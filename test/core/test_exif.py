# SPDX-License-Identifier: Apache-2.0
"""What photos say of their camera and place, as written by Pillow."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from recon3d_ros.core.exif import Exif, read_exif
from recon3d_ros.core.geodesy import LocalFrame, is_fix


def write(path, own=(), gps=(), size=(640, 480)):
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[0x010F] = "a maker whose name does not fit four bytes"
    exif.get_ifd(0x8769).update(dict(own))
    exif.get_ifd(0x8825).update(dict(gps))
    if (
        path.suffix == ".tif"
    ):  # Pillow leaves the directories out of a TIFF: make it of the block and a grey pixel
        for tag, value in {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}.items():
            exif[tag] = value
        path.write_bytes(exif.tobytes().removeprefix(b"Exif\0\0"))
    else:
        image.save(path, exif=exif)
    return path


LENS = {0x920A: TiffImagePlugin.IFDRational(36, 10), 0xA405: 20}
PLACE = {1: "N", 2: (46.0, 50.0, 33.385), 3: "W", 4: (91.0, 59.0, 40.41), 5: b"\0", 6: 198.3}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_focal_length_and_place_are_read_from_every_kind_of_photo(tmp_path, suffix):
    exif = read_exif(write(tmp_path / f"a.{suffix}", LENS, PLACE))
    assert exif.focal_mm == pytest.approx(3.6) and exif.focal_35 == 20
    assert exif.gps == pytest.approx((46.8426069, -91.9945583, 198.3), abs=1e-6)


def test_the_sensor_tells_the_focal_length_more_exactly_than_the_film(tmp_path):
    own = {**LENS, 0xA20E: 4000 / 6.2 * 10, 0xA210: 3, 0xA002: 4000}
    camera = read_exif(write(tmp_path / "a.jpg", own)).camera(1000, 750)
    assert camera.fx == camera.fy == pytest.approx(3.6 / 6.2 * 1000)
    assert camera.size == (1000, 750) and camera.cx == 499.5 and camera.estimated


@pytest.mark.parametrize("size, focal", [((640, 480), 20 / 43.267 * 800), ((1024, 576), 20 / 36 * 1024)])
def test_the_focal_length_of_film_stands_for_the_diagonal(tmp_path, size, focal):
    for width, height in (size, size[::-1]):
        camera = read_exif(write(tmp_path / "a.jpg", LENS)).camera(width, height)
        assert camera.fx == pytest.approx(focal, rel=1e-4)


def test_south_and_below_the_sea_are_negative(tmp_path):
    gps = {**PLACE, 1: "S", 3: "E", 5: b"\1"}
    assert read_exif(write(tmp_path / "a.jpg", LENS, gps)).gps == pytest.approx(
        (-46.8426069, 91.9945583, -198.3), abs=1e-6
    )


def test_the_time_has_its_fraction_of_a_second(tmp_path):
    own = {0x9003: "2024:05:06 07:08:09", 0x9291: "25"}
    assert read_exif(write(tmp_path / "a.jpg", own)).taken_ns == 1714979289_250000000


@pytest.mark.parametrize("gps", [{}, {**PLACE, 2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, {2: PLACE[2]}])
def test_a_photo_without_a_fix_has_no_place(tmp_path, gps):
    assert read_exif(write(tmp_path / "a.jpg", LENS, gps)).gps is None


def test_damaged_blocks_say_nothing_and_never_raise(tmp_path):
    data = write(tmp_path / "a.jpg", LENS, PLACE).read_bytes()
    rng = np.random.default_rng(1)
    file = tmp_path / "b.jpg"
    for i in range(300):
        broken = bytearray(data[: rng.integers(0, 600)] if i % 2 else data)
        for at in rng.integers(0, max(len(broken), 1), 12 if len(broken) else 0):
            broken[at] = rng.integers(0, 256)
        file.write_bytes(broken)
        exif = read_exif(file)
        camera = exif.camera(640, 480)
        assert camera is None or camera.estimated
        assert exif.gps is None or is_fix(*exif.gps)
    assert read_exif(tmp_path / "none.jpg") == Exif()
    assert read_exif(tmp_path) == Exif()


def test_places_are_metres_east_north_up_of_the_first():
    frame = LocalFrame()
    assert frame.position(46.84260708, -91.99455989, 198.309) == pytest.approx(np.zeros(3))
    # A degree of latitude is 111.15 km here, one of longitude 76.3 km.
    assert frame.position(46.84269067, -91.99442728, 198.609) == pytest.approx([10.116, 9.292, 0.3], abs=0.01)
