# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402
"""Mesh messages through DDS into another process, where a normal subscriber unpacks them."""

import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'recon3d_ros[ros]'")

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.ros import qos
from recon3d_ros.ros.environment import check_environment
from recon3d_ros.ros.marker_cdr import MarkerWriter

TOPIC = "mesh_over_dds"
STAMP = 1_700_000_000_123_456_789

#: Triangles of the regions 0, 1, ... at each turn; a region that becomes empty is deleted. At about 1 MB a message the
#: second turn needs several, one of them for a region that is larger than that.
TURNS = [
    [5, 300, 1, 70],
    [4000, 0, 4300, 40, 0, 9000, 2, 3],
    [0, 0, 17, 0, 1, 0, 0, 0],
]


def regions(turn):
    """The regions of a turn, the same in every process."""
    rng = np.random.default_rng(turn)
    out = []
    for x, triangles in enumerate(TURNS[turn]):
        n = triangles // 2 + 3 if triangles else 0
        out.append(
            MeshBlock(
                (x, -x, 7),
                rng.normal(size=(n, 3)).astype(np.float32),
                rng.integers(0, max(n, 1), (triangles, 3)).astype(np.int32),
                rng.integers(0, 256, (n, 3)).astype(np.uint8),
            )
        )
    return out


def expected_markers(flat):
    """All markers as message objects, in the order in which they are sent."""
    ids, out = {}, []
    for turn in range(len(TURNS)):
        for region in regions(turn):
            if len(region.triangles) or region.id in ids:
                out.append(marker(region, ids.setdefault(region.id, len(ids)), flat))
    return out


def marker(region, number, flat):
    """The marker of a region."""
    out = Marker(ns="mesh", id=number, type=Marker.TRIANGLE_LIST)
    out.header.frame_id = "map"
    out.header.stamp.sec, out.header.stamp.nanosec = divmod(STAMP, 10**9)
    out.pose.orientation.w = 1.0
    out.scale.x = out.scale.y = out.scale.z = 1.0
    out.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    out.action = Marker.ADD if len(region.triangles) else Marker.DELETE
    out.points = [Point(x=x, y=y, z=z) for x, y, z in region.vertices[region.triangles.ravel()].tolist()]
    corners = region.colours[region.triangles]
    colours = np.rint(corners.mean(axis=1)) if flat else corners
    shares = (colours.reshape(-1, 3) / 255).astype(np.float32)
    out.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in shares.tolist()]
    return out


def receive(flat):
    """The other process: takes messages until every marker came, and compares. Prints what is different."""
    check_environment()
    rclpy.init(args=["receive"])
    node, received, sizes = rclpy.create_node("receiver"), [], []

    def take(message):
        received.extend(message.markers)
        sizes.append(len(message.markers))

    node.create_subscription(MarkerArray, TOPIC, take, qos.MESH)
    expected, end = expected_markers(flat), time.monotonic() + 60
    while len(received) < len(expected) and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.shutdown()
    different = [i for i, (a, b) in enumerate(zip(received, expected, strict=False)) if a != b]
    print(f"{len(received)} of {len(expected)} markers in {len(sizes)} messages, different: {different}")


@pytest.mark.parametrize("flat", [False, True], ids=["colour a corner", "colour a triangle"])
def test_another_process_receives_the_messages_that_objects_give(flat):
    messages, writer = [], MarkerWriter(colour_per_triangle=flat)
    for turn in range(len(TURNS)):
        messages += writer.write(regions(turn), STAMP, "map")
    assert len(messages) > len(TURNS)
    check_environment()
    rclpy.init(args=["test"])
    node = rclpy.create_node("sender")
    publisher = node.create_publisher(MarkerArray, TOPIC, qos.MESH)
    receiver = subprocess.Popen(
        [sys.executable, __file__, "flat" if flat else "full"], stdout=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 30
        while not publisher.get_subscription_count() and time.monotonic() < end:
            time.sleep(0.02)
        for message in messages:
            publisher.publish(message)
        said, _ = receiver.communicate(timeout=90)
    finally:
        receiver.kill()
        node.destroy_node()
        rclpy.shutdown()
    number = len(expected_markers(flat))
    assert said.strip() == f"{number} of {number} markers in {len(messages)} messages, different: []"


if __name__ == "__main__":
    receive(sys.argv[1] == "flat")
