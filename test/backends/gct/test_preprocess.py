# SPDX-License-Identifier: Apache-2.0
"""Images as the network sees them, against the reference and against what a camera sees."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recon3d_ros.backends.gct.preprocess import Preprocessor, resize, square, to_tensor  # noqa: E402
from recon3d_ros.core.camera import Camera  # noqa: E402
from recon3d_ros.core.errors import FrameError, InputError  # noqa: E402


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bytes_of(tensor):
    """uint8 [h,w,3] of a tensor [3,h,w] in 0..255 or in 0..1."""
    values = tensor.numpy() if tensor.dtype == torch.uint8 else np.round(tensor.numpy() * 255)
    return np.ascontiguousarray(values.transpose(1, 2, 0)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("number", range(4))
def test_prepared_images_equal_pillow_s_to_the_byte(vectors, number, mode):
    v, meta = vectors.load("11_preprocess"), vectors.meta("11_preprocess")
    prepare = Preprocessor(meta["image_size"], meta["patch_size"], mode)
    image = prepare(bytes_of(v[f"in{number}_u8"])).image
    expected = v[f"out{number}.{mode}"]
    assert (to_tensor(image) - expected).abs().max() < 2e-5
    assert (image == bytes_of(expected)).all()


@pytest.mark.parametrize("number", range(2))
def test_squared_images_equal_the_reference(vectors, number):
    v = vectors.load("11_preprocess")
    source = bytes_of(v[f"in{number}_u8"])
    image, rectangle = square(source, vectors.meta("11_preprocess")["image_size"])
    assert (to_tensor(image) - v[f"out{number}.square"]).abs().max() < 2e-5
    assert [*rectangle, source.shape[1], source.shape[0]] == v[f"out{number}.square_coords"][0].tolist()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (294, 518)),
        ((480, 640), (392, 518)),
        ((518, 518), (518, 518)),
        ((1920, 1080), (518, 518)),
        ((375, 1242), (154, 518)),
    ],
)
def test_the_longer_side_becomes_the_width_and_both_are_multiples_of_the_patch(size, expected):
    prepared = Preprocessor()(image_of(*size))
    assert prepared.image.shape == (*expected, 3)
    assert prepared.image.dtype == np.uint8
    assert Preprocessor(mode="pad")(image_of(*size)).image.shape == (518, 518, 3)


def test_half_a_patch_goes_to_the_even_number_of_patches():
    assert Preprocessor(98, 14)(image_of(35, 98)).image.shape[0] == 28
    assert Preprocessor(98, 14)(image_of(49, 98)).image.shape[0] == 56


def test_an_image_of_the_right_size_stays_as_it_is():
    image = image_of(294, 518)
    assert (Preprocessor()(image).image == image).all()


def test_resizing_keeps_a_flat_image_flat_and_a_ramp_straight():
    assert (resize(np.full((100, 150, 3), 77, np.uint8), 61, 43) == 77).all()
    ramp = np.repeat(np.linspace(0, 250, 500)[None, :, None], 40, 0).repeat(3, 2).round().astype(np.uint8)
    expected = ((np.arange(100) + 0.5) * 5 - 0.5) * 250 / 499
    assert np.abs(resize(ramp, 100, 40)[:, 3:-3] - expected[None, 3:-3, None]).max() <= 1


def test_shrinking_averages_what_is_finer_than_a_pixel():
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resize(stripes, 50, 50)[5:-5, 5:-5].astype(int) - 100).max() <= 2


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("size", [(480, 640), (640, 360), (345, 1000), (514, 510)])
def test_a_camera_carried_over_sees_a_light_where_the_prepared_image_shows_it(mode, size):
    height, width = size
    camera = Camera(width, height, 0.8 * width, 0.9 * width, 0.47 * width, 0.52 * height)
    spot = np.array([0.4 * width, 0.55 * height])
    v, u = np.indices(size)
    blob = 255 * np.exp(-((u - spot[0]) ** 2 + (v - spot[1]) ** 2) / (2 * (width / 40) ** 2))
    prepared = Preprocessor(mode=mode)(np.repeat(blob[..., None], 3, 2).astype(np.uint8))
    carried = prepared.camera(camera)
    assert carried.size == prepared.image.shape[1::-1]
    ray = np.append(camera.unproject(spot), 1.0)[None]
    x, y = carried.project(ray)[0]
    light = prepared.image[..., 0].astype(np.float64)
    weights = light * _near(light.shape, x, y, 40)
    rows, columns = np.indices(light.shape)
    assert (weights * columns).sum() / weights.sum() == pytest.approx(x, abs=0.05)
    assert (weights * rows).sum() / weights.sum() == pytest.approx(y, abs=0.05)


def _near(shape, x, y, radius):
    rows, columns = np.indices(shape)
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_a_camera_carried_over_keeps_rays_and_distortion(mode):
    camera = Camera(640, 900, 500, 505, 318, 455, "plumb_bob", (0.1, -0.05, 0.001, 0.002, 0.0))
    prepared = Preprocessor(mode=mode)(image_of(900, 640))
    carried = prepared.camera(camera)
    assert carried.distortion == camera.distortion
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3)) + (0, 0, 2)
    where = (camera.project(points) + 0.5) * prepared.scale - 0.5 - prepared.offset
    assert np.allclose(carried.project(points), where)


@pytest.mark.parametrize("size", [(13, 100), (100, 13), (14, 2000), (1, 1)])
def test_an_image_too_small_for_a_patch_is_a_bad_frame(size):
    with pytest.raises(FrameError, match="too small"):
        Preprocessor()(image_of(*size))


def test_a_long_and_thin_image_is_a_bad_frame_when_padded():
    with pytest.raises(FrameError, match="too small"):
        Preprocessor(mode="pad")(image_of(2000, 14))


@pytest.mark.parametrize("arguments", [{"width": 500}, {"width": 0}, {"mode": "stretch"}])
def test_a_size_or_mode_that_does_not_fit_is_an_input_error(arguments):
    with pytest.raises(InputError):
        Preprocessor(**arguments)


def test_an_image_that_must_not_be_written_is_prepared_without_a_warning():
    image = image_of(294, 518)
    image.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = to_tensor(Preprocessor()(image).image)
        assert Preprocessor(56)(image).image.shape == (28, 56, 3)
    assert tensor.shape == (3, 294, 518) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert torch.equal(tensor[:, 5, 7], torch.tensor(image[5, 7] / np.float32(255)))


def test_a_view_on_a_larger_image_is_prepared_like_its_copy():
    large = image_of(400, 700)
    part = large[20:380:1, 650:10:-1]
    assert (Preprocessor()(part).image == Preprocessor()(part.copy()).image).all()
