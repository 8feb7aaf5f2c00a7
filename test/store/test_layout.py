# SPDX-License-Identifier: Apache-2.0
"""The byte layout of a segment, held against the table of the format."""

import struct

import numpy as np
import pytest

from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.geometry import pose, so3_exp
from recon3d_ros.store import layout
from recon3d_ros.store.layout import Blocks, Header, State

POSE = pose(so3_exp(np.array([0.3, -0.2, 0.5])), np.array([1.0, 2.0, 3.0]))
BOUNDS = np.array([-1, -2, -3, 1, 2, 3], np.float32)


def segment(count=5, has_confidence=True, channels=3):
    """A sealed segment and the arrays in it."""
    rng = np.random.default_rng(count)
    blocks = Blocks.aligned(count, channels, has_confidence)
    memory = np.zeros(blocks.size, np.uint8)
    points, colours, confidence = layout.arrays(memory, blocks)
    points[:] = rng.normal(size=points.shape)
    colours[:] = rng.integers(0, 255, colours.shape)
    if confidence is not None:
        confidence[:] = rng.uniform(size=count)
    layout.seal(memory, Header(42, 1_700_000_000_123_456_789, POSE, BOUNDS, blocks))
    return memory, (points, colours, confidence)


@pytest.mark.parametrize("has_confidence", [True, False])
@pytest.mark.parametrize("count", [0, 1, 16, 1000])
def test_m1_m2_a_sealed_segment_is_read_back(count, has_confidence):
    memory, arrays = segment(count, has_confidence)
    header = layout.unpack(memory)
    assert (header.id, header.stamp_ns) == (42, 1_700_000_000_123_456_789)
    np.testing.assert_array_equal(header.T_map_cam, POSE)
    np.testing.assert_array_equal(header.bounds, BOUNDS)
    for found, expected in zip(layout.arrays(memory, header.blocks), arrays, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_array_equal(found, expected)


def test_every_field_stands_at_its_offset():
    memory, _ = segment(count=5)
    raw = memory.tobytes()
    assert raw[:4] == b"R3KF"
    assert struct.unpack_from("<HHII", raw, 4) == (3, 192, State.COMPLETE, 1)
    assert struct.unpack_from("<QqII", raw, 16) == (42, 1_700_000_000_123_456_789, 5, 3)
    np.testing.assert_array_equal(np.frombuffer(raw, "<f8", 12, 40).reshape(3, 4), POSE[:3])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4", 6, 136), BOUNDS)
    colours, confidence, size = struct.unpack_from("<QQQ", raw, 160)
    assert (colours, confidence, size, struct.unpack_from("<I", raw, 188)[0]) == (256, 320, 384, 0)


def test_blocks_start_at_multiples_of_64_and_do_not_overlap():
    for count in range(200):
        blocks = Blocks.aligned(count, 3, True)
        assert not any(
            offset % 64 for offset in (blocks.points, blocks.colours, blocks.confidence, blocks.size)
        )
        assert blocks.points + 12 * count <= blocks.colours
        assert blocks.colours + 3 * count <= blocks.confidence
        assert blocks.confidence + 4 * count <= blocks.size


def test_m3_the_state_decides_whether_a_segment_may_be_read():
    memory, _ = segment()
    for state, reason in ((State.WRITING, "incomplete"), (State.WITHDRAWN, "withdrawn")):
        layout.set_state(memory, state)
        with pytest.raises(StoreError) as error:
            layout.unpack(memory)
        assert error.value.reason == reason
    layout.set_state(memory, State.COMPLETE)
    layout.unpack(memory)


def test_m3_every_damaged_bit_of_the_header_is_found():
    memory, _ = segment()
    for bit in range(188 * 8):
        damaged = memory.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError):
            layout.unpack(damaged)


def test_m3_a_segment_cut_off_anywhere_is_refused():
    memory, _ = segment()
    for size in range(len(memory)):
        with pytest.raises(StoreError):
            layout.unpack(memory[:size])


def test_m3_random_bytes_are_refused():
    rng = np.random.default_rng(1)
    for _ in range(300):
        noise = rng.integers(0, 255, rng.integers(0, 600), dtype=np.uint8)
        noise[:8] = np.frombuffer(b"R3KF\x03\x00\xc0\x00", np.uint8)[: len(noise)]
        with pytest.raises(StoreError):
            layout.unpack(noise)


def recorded(version, has_confidence=False, channels=3, count=7):
    """A segment as versions 1 and 2 were written: pose column by column, blocks without gaps."""
    rng = np.random.default_rng(version)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    colours = rng.integers(0, 255, (count, channels), dtype=np.uint8)
    confidence = rng.uniform(size=count).astype(np.float32)
    counts = (123, count, channels) + ((int(has_confidence),) if version == 2 else ())
    header = struct.pack("<Q" + "I" * (len(counts) - 1) + "16f6f", *counts, *POSE.T.ravel(), *BOUNDS)
    payload = points.tobytes() + colours.tobytes() + (confidence.tobytes() if has_confidence else b"")
    return np.frombuffer(header + payload, np.uint8), points, colours, confidence


@pytest.mark.parametrize(("version", "size"), [(1, 104), (2, 108)])
@pytest.mark.parametrize("channels", [3, 4])
def test_m1_recorded_versions_are_read_with_their_pose_turned_back(version, size, channels):
    memory, points, colours, confidence = recorded(version, has_confidence=version == 2, channels=channels)
    np.testing.assert_array_equal(memory[size - 88 :].tobytes()[48:60], POSE[:3, 3].astype("<f4").tobytes())
    header = layout.unpack(memory, version)
    np.testing.assert_allclose(header.T_map_cam, POSE, atol=1e-6)
    found = layout.arrays(memory, header.blocks)
    np.testing.assert_array_equal(found[0], points)
    np.testing.assert_array_equal(found[1], colours)
    if version == 2:
        np.testing.assert_array_equal(found[2], confidence)
    else:
        assert found[2] is None


def test_the_version_is_never_guessed():
    memory, *_ = recorded(1)
    with pytest.raises(StoreError):
        layout.unpack(memory)
    with pytest.raises(StoreError):
        layout.unpack(memory[:-1], 1)
    with pytest.raises(ValueError, match="version 4"):
        layout.unpack(memory, 4)
