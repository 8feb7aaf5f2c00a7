# SPDX-License-Identifier: Apache-2.0
import array
from types import SimpleNamespace as Message

import cv2
import numpy as np
import pytest

from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.image_messages import decode_depth_message, decode_image_message, is_depth_message

#: An image whose quarters are red, green, blue and white: mistakes of order and of channels show.
COLOURS = np.zeros((16, 24, 3), np.uint8)
COLOURS[:8, :12], COLOURS[:8, 12:], COLOURS[8:, :12], COLOURS[8:, 12:] = (
    (230, 20, 20),
    (20, 230, 20),
    (20, 20, 230),
    230,
)


def message(encoding, pixels, step=None, bigendian=0, height=None, width=None, kind=bytes):
    pixels = np.ascontiguousarray(pixels)
    rows = pixels.shape[0]
    data = pixels.view(np.uint8).reshape(rows, -1)
    if step:
        data = np.pad(data, ((0, 0), (0, step - data.shape[1])), constant_values=99)
    return Message(
        encoding=encoding,
        height=height or rows,
        width=width or pixels.shape[1],
        step=data.shape[1],
        is_bigendian=bigendian,
        data=kind(data.tobytes()),
    )


def yuv(image):
    return cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)


def packed(order):
    """The colours as 4:2:2, two pixels in four bytes of this order."""
    planes = yuv(COLOURS).ravel()
    y = planes[: 16 * 24].reshape(16, 24)
    u, v = (planes[16 * 24 + i * 96 :][:96].reshape(8, 12).repeat(2, axis=0) for i in (0, 1))
    parts = {"y0": y[:, ::2], "u": u, "y1": y[:, 1::2], "v": v}
    return np.stack([parts[name] for name in order], axis=-1).reshape(16, 24, 2)


def planar(order, full):
    """The colours as a plane of Y and one of interleaved chroma."""
    planes = yuv(COLOURS).ravel()
    y = planes[: 16 * 24].reshape(16, 24)
    u, v = (planes[16 * 24 + i * 96 :][:96].reshape(8, 12) for i in (0, 1))
    chroma = np.stack([{"u": u, "v": v}[name] for name in order], axis=-1)
    if full:
        chroma = chroma.repeat(2, axis=0).repeat(2, axis=1).reshape(32, 24)
    return np.concatenate([y, chroma.reshape(-1, 24)])


def bayer(first):
    """The colours as a mosaic whose 2x2 cell reads `first`, such as "rggb"."""
    out = np.empty((16, 24), np.uint8)
    for i, colour in enumerate(first):
        y, x = divmod(i, 2)
        out[y::2, x::2] = COLOURS[y::2, x::2, "rgb".index(colour)]
    return out


ALPHA = np.full((16, 24, 1), 7, np.uint8)
CASES = {
    "rgb8": COLOURS,
    "bgr8": COLOURS[..., ::-1],
    "8UC3": COLOURS[..., ::-1],
    "rgba8": np.concatenate([COLOURS, ALPHA], axis=-1),
    "bgra8": np.concatenate([COLOURS[..., ::-1], ALPHA], axis=-1),
    "yuv422": packed(("u", "y0", "v", "y1")),
    "uyvy": packed(("u", "y0", "v", "y1")),
    "yuv422_yuy2": packed(("y0", "u", "y1", "v")),
    "bayer_rggb8": bayer("rggb"),
    "bayer_bggr8": bayer("bggr"),
    "bayer_gbrg8": bayer("gbrg"),
    "bayer_grbg8": bayer("grbg"),
}


def assert_colours(image):
    assert image.dtype == np.uint8
    assert image.shape == COLOURS.shape
    # In the middle of the quarters: borders are blurred by chroma at half size and by demosaicing.
    for y, x in ((4, 6), (4, 18), (12, 6), (12, 18)):
        np.testing.assert_allclose(image[y, x].astype(int), COLOURS[y, x], atol=8)


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.parametrize("padding", [0, 13])
def test_every_colour_encoding_gives_the_same_rgb_with_and_without_padding(encoding, padding):
    pixels = np.ascontiguousarray(CASES[encoding])
    step = pixels.view(np.uint8).reshape(16, -1).shape[1] + padding
    assert_colours(decode_image_message(message(encoding, pixels, step)))


@pytest.mark.parametrize(
    ("encoding", "pixels"), [("nv21", planar("vu", False)), ("nv24", planar("uv", True))]
)
def test_semi_planar_encodings_give_the_same_rgb(encoding, pixels):
    assert_colours(decode_image_message(message(encoding, pixels, height=16)))


@pytest.mark.parametrize("bigendian", [0, 1])
def test_grey_encodings_give_equal_channels(bigendian):
    grey = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 100
    wide = grey.astype(">u2" if bigendian else "<u2")
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(
        decode_image_message(message("mono16", wide, bigendian=bigendian)), expected
    )
    np.testing.assert_array_equal(decode_image_message(message("mono8", expected[..., 0])), expected)


@pytest.mark.parametrize("kind", [bytes, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)])
def test_data_may_be_bytes_an_array_or_numpy(kind):
    np.testing.assert_array_equal(decode_image_message(message("rgb8", COLOURS, kind=kind)), COLOURS)


def test_rgb_without_padding_is_viewed_and_not_copied():
    data = np.frombuffer(COLOURS.tobytes(), np.uint8)
    image = decode_image_message(message("rgb8", COLOURS, kind=lambda _: data))
    assert np.shares_memory(image, data)


@pytest.mark.parametrize("encoding", ["h264", "something", "32FC1"])
def test_what_is_no_colour_image_is_refused_with_a_hint(encoding):
    with pytest.raises(FrameError, match=encoding) as error:
        decode_image_message(message(encoding, COLOURS))
    assert error.value.reason == "encoding"


@pytest.mark.parametrize("changes", [{"height": 17}, {"width": 25}, {"step": 3}, {"data": b""}, {"width": 0}])
def test_fields_that_contradict_each_other_are_refused(changes):
    broken = message("rgb8", COLOURS)
    vars(broken).update(changes)
    with pytest.raises(FrameError) as error:
        decode_image_message(broken)
    assert error.value.reason == "damaged message"


def compressed(image, suffix, format):
    return Message(format=format, data=cv2.imencode(suffix, image)[1].tobytes())


@pytest.mark.parametrize("format", ["", "jpeg", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8"])
def test_compressed_images_are_in_the_order_of_opencv(format):
    image = decode_image_message(compressed(COLOURS[..., ::-1], ".png", format))
    np.testing.assert_array_equal(image, COLOURS)


def test_compressed_images_follow_the_order_their_format_names():
    image = decode_image_message(compressed(COLOURS, ".png", "rgb8; png compressed rgb8"))
    np.testing.assert_array_equal(image, COLOURS)


def test_a_broken_jpeg_is_an_unreadable_image():
    with pytest.raises(FrameError) as error:
        decode_image_message(Message(format="jpeg", data=b"\xff\xd8 broken"))
    assert error.value.reason == "unreadable image"


def test_depth_in_millimetres_and_in_metres_agree():
    metres = np.array([[np.nan, 1.0], [0.25, 9.0]], np.float32)
    millimetres = np.nan_to_num(metres * 1000).astype(np.uint16)
    np.testing.assert_allclose(decode_depth_message(message("32FC1", metres)), metres)
    np.testing.assert_allclose(decode_depth_message(message("16UC1", millimetres)), metres)
    big = message("16UC1", millimetres.astype(">u2"), bigendian=1)
    np.testing.assert_allclose(decode_depth_message(big), metres)


def test_depth_of_another_encoding_is_refused():
    with pytest.raises(FrameError, match="rgb8"):
        decode_depth_message(message("rgb8", COLOURS))


def test_depth_is_known_by_what_a_message_says_of_itself():
    assert is_depth_message(message("16UC1", COLOURS[..., 0].astype(np.uint16)))
    assert not is_depth_message(message("rgb8", COLOURS))
    assert is_depth_message(Message(format="16UC1; compressedDepth png", data=b""))
    assert not is_depth_message(Message(format="rgb8; jpeg compressed bgr8", data=b""))


def test_messages_of_rclpy_are_decoded():
    sensor_msgs = pytest.importorskip("sensor_msgs.msg")
    image = sensor_msgs.Image(encoding="bgr8", height=16, width=24, step=72)
    image.data.frombytes(np.ascontiguousarray(COLOURS[..., ::-1]).tobytes())
    np.testing.assert_array_equal(decode_image_message(image), COLOURS)
