# SPDX-License-Identifier: Apache-2.0
"""Sky masks by a network whose answer is known: its score is the brightness of the image. The file is written here, field
by field (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)."""

import numpy as np
import pytest

from recon3d_ros.backends.gct.sky import SkyMask
from recon3d_ros.core.errors import InputError

FLOAT, INTS = 1, 7


def varint(number):
    head, rest = number & 127, number >> 7
    return bytes([head | 128]) + varint(rest) if rest else bytes([head])


def field(number, value):
    """One protobuf field: a whole number, or text, bytes or the fields of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name, array):
    shape = b"".join(field(1, size) for size in array.shape)
    return shape + field(2, FLOAT) + field(8, name) + field(9, array.astype("<f4").tobytes())


def value(name, channels):
    shape = b"".join(field(1, field(1, size)) for size in (1, channels, 320, 320))
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, shape)))


def model(weights):
    """A network of one 1x1 convolution of the three channels with `weights`."""
    kernel = field(1, "kernel_shape") + field(8, 1) + field(8, 1) + field(20, INTS)
    node = field(1, "image") + field(1, "weights") + field(2, "score") + field(4, "Conv") + field(5, kernel)
    weights = np.reshape(weights, (-1, 3, 1, 1)).astype(np.float32)
    graph = field(1, node) + field(2, "sky") + field(5, tensor("weights", weights))
    graph += field(11, value("image", 3)) + field(12, value("score", len(weights)))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


@pytest.fixture
def brightness(tmp_path):
    path = tmp_path / "brightness.onnx"
    # Undoes the scaling of the channels, so that the score is their sum but for a constant.
    path.write_bytes(model([0.229, 0.224, 0.225]))
    return path


def horizon(height=294, width=518):
    image = np.full((height, width, 3), 60, np.uint8)
    image[: height // 2] = 220
    return image


def test_the_bright_half_of_an_image_is_masked(brightness):
    mask = SkyMask(brightness)(horizon())
    assert mask.shape == (294, 518) and mask.dtype == np.bool_
    assert mask[:146].all() and not mask[148:].any()


def test_the_threshold_is_a_share_of_the_range_of_scores(brightness):
    levels = np.linspace(20, 220, 320).round().astype(np.uint8)
    ramp = np.repeat(np.repeat(levels[None, :, None], 320, 0), 3, 2)
    for threshold in (0.1, 0.5, 0.9):
        share = SkyMask(brightness, threshold)(ramp).mean()
        assert share == pytest.approx(1 - threshold, abs=0.01)
    assert not SkyMask(brightness, 1.0)(ramp).any()


def test_channels_arrive_as_red_green_blue(tmp_path):
    path = tmp_path / "blue.onnx"
    path.write_bytes(model([0, 0, 1]))
    image = horizon()
    image[:147], image[147:] = (0, 0, 200), (200, 0, 0)
    mask = SkyMask(path)(image)
    assert mask[:146].all() and not mask[148:].any()


@pytest.mark.parametrize("weights", [[0.2, 0.2, 0.2], [np.nan, 0, 0]])
def test_an_image_without_contrast_and_a_broken_score_have_no_sky(tmp_path, weights):
    path = tmp_path / "net.onnx"
    path.write_bytes(model(weights))
    image = np.full((56, 84, 3), 128, np.uint8) if np.isfinite(weights).all() else horizon(56, 84)
    assert not SkyMask(path)(image).any()


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no sky model"):
        SkyMask(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"not a network" * 50, model([1, 1, 1])[:60]])
def test_a_file_that_is_no_network_is_an_input_error(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a sky model"):
        SkyMask(path)


def test_a_network_that_gives_more_than_one_score_a_pixel_is_an_input_error(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(model([[1, 1, 1], [1, 0, 0]]))
    with pytest.raises(InputError, match="no sky model"):
        SkyMask(path)
