# SPDX-License-Identifier: Apache-2.0
"""Serialised mesh markers against the messages that objects give. Bytes are never compared: padding is not defined."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'recon3d_ros[ros]'")

from geometry_msgs.msg import Point
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.ros.marker_cdr import MarkerWriter

STAMP = 12_345_678_901


def region(x, triangles, seed=0):
    """A region at (x, 0, 0) with random triangles over half as many vertices."""
    rng = np.random.default_rng(seed + x)
    n = triangles // 2 + 3
    return MeshBlock(
        (x, 0, 0),
        rng.normal(size=(n, 3)).astype(np.float32) if triangles else np.empty((0, 3), np.float32),
        rng.integers(0, n, (triangles, 3)).astype(np.int32),
        rng.integers(0, 256, (n if triangles else 0, 3)).astype(np.uint8),
    )


def marker(block, number, action, frame_id, namespace, flat=False):
    """The marker as a message object. flat: one colour a triangle."""
    out = Marker(ns=namespace, id=number, type=Marker.TRIANGLE_LIST, action=action)
    out.header.frame_id = frame_id
    out.header.stamp.sec, out.header.stamp.nanosec = divmod(STAMP, 10**9)
    out.pose.orientation.w = 1.0
    out.scale.x = out.scale.y = out.scale.z = 1.0
    out.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    for i in block.triangles.ravel().tolist() if block else []:
        x, y, z = block.vertices[i].tolist()
        out.points.append(Point(x=x, y=y, z=z))
    corners = block.colours[block.triangles] if block else np.empty((0, 3, 3), np.uint8)
    colours = np.rint(corners.mean(axis=1)) if flat else corners
    for r, g, b in (colours.reshape(-1, 3) / 255).tolist():
        out.colors.append(ColorRGBA(r=r, g=g, b=b, a=1.0))
    return out


def as_received(message):
    """A message after a round trip, so that float32 fields are rounded alike."""
    return deserialize_message(serialize_message(message), MarkerArray)


@pytest.mark.parametrize("frame_length", range(9))
@pytest.mark.parametrize("name_length", range(5))
@pytest.mark.parametrize("sizes", [(1,), (5, 0, 2, 0, 0, 7, 1)])
@pytest.mark.parametrize("flat", [False, True], ids=["colour a corner", "colour a triangle"])
def test_bytes_are_the_message_that_objects_give_for_every_length_of_the_names(
    frame_length, name_length, sizes, flat
):
    frame_id, namespace = "f" * frame_length, "n" * name_length
    writer = MarkerWriter(namespace=namespace, colour_per_triangle=flat)
    list(writer.write([region(x, 1) for x in range(len(sizes))], STAMP, frame_id))  # every region is known
    blocks = [region(x, n) for x, n in enumerate(sizes)]
    (data,) = writer.write(blocks, STAMP, frame_id)
    actions = [Marker.ADD if n else Marker.DELETE for n in sizes]
    expected = MarkerArray(
        markers=[
            marker(b, b.id[0], a, frame_id, namespace, flat) for b, a in zip(blocks, actions, strict=True)
        ]
    )
    assert deserialize_message(data, MarkerArray) == as_received(expected)


def test_names_may_hold_letters_of_more_than_one_byte():
    (data,) = MarkerWriter(namespace="Höhe").write([region(0, 3)], STAMP, "карта")
    expected = MarkerArray(markers=[marker(region(0, 3), 0, Marker.ADD, "карта", "Höhe")])
    assert deserialize_message(data, MarkerArray) == as_received(expected)


def test_clear_deletes_all_markers():
    (data,) = MarkerWriter().clear(STAMP, "map")
    expected = MarkerArray(markers=[marker(None, 0, Marker.DELETEALL, "map", "mesh")])
    assert deserialize_message(data, MarkerArray) == as_received(expected)


def test_nothing_changed_is_no_message_and_an_unknown_empty_region_is_left_out():
    writer = MarkerWriter()
    assert list(writer.write([], STAMP, "map")) == []
    assert list(writer.write([region(3, 0)], STAMP, "map")) == []


def test_a_region_keeps_its_id_until_clear():
    writer = MarkerWriter()

    def ids(*blocks):
        (data,) = writer.write(blocks, STAMP, "map")
        return [m.id for m in deserialize_message(data, MarkerArray).markers]

    assert ids(region(7, 1), region(4, 1)) == [0, 1]
    assert ids(region(4, 0), region(9, 1), region(7, 2)) == [1, 2, 0]
    assert ids(region(4, 1)) == [1]
    writer.clear(STAMP, "map")
    assert ids(region(4, 1)) == [0]


def test_messages_are_split_near_the_limit_and_lose_nothing():
    blocks = [region(x, 100) for x in range(50)]
    messages = list(MarkerWriter(max_bytes=60_000).write(blocks, STAMP, "map"))
    assert len(messages) > 5 and max(map(len, messages)) < 65_000
    markers = [m for data in messages for m in deserialize_message(data, MarkerArray).markers]
    assert [m.id for m in markers] == list(range(50))
    assert all(len(m.points) == len(m.colors) == 300 for m in markers)


def test_one_colour_a_triangle_takes_88_bytes_of_120_and_messages_are_split_by_that():
    blocks = [region(x, 1000) for x in range(10)]
    (full,), (flat,) = (
        MarkerWriter(10**7, colour_per_triangle=flat).write(blocks, STAMP, "map") for flat in (False, True)
    )
    assert len(full) - len(flat) == 10_000 * 32
    assert len(list(MarkerWriter(930_000).write(blocks, STAMP, "map"))) == 2
    assert len(list(MarkerWriter(930_000, colour_per_triangle=True).write(blocks, STAMP, "map"))) == 1


def test_a_region_larger_than_the_limit_is_sent_alone():
    messages = MarkerWriter(max_bytes=10_000).write(
        [region(0, 5), region(1, 500), region(2, 5)], STAMP, "map"
    )
    assert [len(deserialize_message(data, MarkerArray).markers) for data in messages] == [1, 1, 1]
