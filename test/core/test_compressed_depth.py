# SPDX-License-Identifier: Apache-2.0
import struct

import cv2
import numpy as np
import pytest

from recon3d_ros.core.compressed_depth import decode_compressed_depth
from recon3d_ros.core.errors import FrameError

DEPTH = np.random.default_rng(3).integers(500, 6000, (20, 30)).astype(np.uint16)
DEPTH[3:9, :17] = 0
DEPTH[-1, -4:] = 0


def header(a=0.0, b=0.0):
    return struct.pack("<iff", 0, a, b)


def as_array(data):
    return np.frombuffer(data, np.uint8)


def png(values):
    return cv2.imencode(".png", values)[1].tobytes()


def rvl(values):
    """The bytes that the RVL coder of image_transport writes."""
    nibbles = []

    def put(number):
        while True:
            rest = number >> 3
            nibbles.append((number & 7) | (8 if rest else 0))
            number = rest
            if not number:
                return

    flat, i, previous = values.ravel().astype(int), 0, 0
    while i < len(flat):
        zeros = next((n for n, v in enumerate(flat[i:]) if v), len(flat) - i)
        put(zeros)
        i += zeros
        run = next((n for n, v in enumerate(flat[i:]) if not v), len(flat) - i)
        put(run)
        for value in flat[i : i + run]:
            delta = int(value) - previous
            put((delta << 1) ^ (delta >> 31))
            previous = int(value)
        i += run
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(n << (28 - 4 * k) for k, n in enumerate(nibbles[j : j + 8])) for j in range(0, len(nibbles), 8)
    ]
    return struct.pack("<II", values.shape[1], values.shape[0]) + struct.pack(f"<{len(words)}I", *words)


def metres(values):
    return np.where(values == 0, np.nan, values / 1000).astype(np.float32)


def test_png_of_millimetres():
    depth = decode_compressed_depth("16UC1; compressedDepth png", as_array(header() + png(DEPTH)))
    np.testing.assert_allclose(depth, metres(DEPTH))


def test_the_old_format_without_a_coder_is_png():
    depth = decode_compressed_depth("16UC1; compressedDepth", as_array(header() + png(DEPTH)))
    np.testing.assert_allclose(depth, metres(DEPTH))


def test_rvl_of_millimetres():
    depth = decode_compressed_depth("16UC1; compressedDepth rvl", as_array(header() + rvl(DEPTH)))
    np.testing.assert_allclose(depth, metres(DEPTH))


@pytest.mark.parametrize(("coder", "code"), [("png", png), ("rvl", rvl)])
def test_floats_are_stored_as_inverse_depth(coder, code):
    a, b = 1001.0, -10.0
    true = np.random.default_rng(4).uniform(0.5, 8.0, (10, 12)).astype(np.float32)
    stored = np.round(a / true + b).astype(np.uint16)
    stored[2, 3] = 0
    depth = decode_compressed_depth(f"32FC1; compressedDepth {coder}", as_array(header(a, b) + code(stored)))
    assert np.isnan(depth[2, 3])
    true[2, 3] = np.nan
    np.testing.assert_allclose(depth, true, rtol=0.005)


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("16UC1; compressedDepth png", b""),
        ("16UC1; compressedDepth png", header() + b"garbage"),
        ("16UC1; compressedDepth rvl", header()),
        ("16UC1; compressedDepth rvl", header() + rvl(DEPTH)[:60]),
        ("16UC1; compressedDepth rvl", header() + struct.pack("<II", 2**31, 2**31)),
    ],
)
def test_damaged_depth_is_refused(format, data):
    with pytest.raises(FrameError) as error:
        decode_compressed_depth(format, as_array(data))
    assert error.value.reason == "unreadable depth"


def test_random_bytes_as_rvl_never_do_more_than_refuse_or_fill():
    random = np.random.default_rng(5)
    for _ in range(50):
        body = struct.pack("<II", 16, 16) + random.bytes(int(random.integers(0, 400)))
        try:
            depth = decode_compressed_depth("16UC1; compressedDepth rvl", as_array(header() + body))
            assert depth.shape == (16, 16)
        except FrameError:
            pass
