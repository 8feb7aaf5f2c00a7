# SPDX-License-Identifier: Apache-2.0
"""A program that has never heard of this package: plain rclpy, standard messages, the QoS that RViz asks for. It prints
what it got as JSON. Arguments: a folder to find tf2_msgs in where ROS has none, and the number of poses to wait for."""

import json
import struct
import sys
import time


class Nothing:
    """Makes the package unknown, even where it is installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "recon3d_ros":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Nothing())
sys.path.append(sys.argv[1])

import rclpy  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS = {
    "/reconstructor/pose": (PoseStamped, 5),
    "/reconstructor/odometry": (Odometry, 5),
    "/reconstructor/cloud": (PointCloud2, 5),
    "/reconstructor/path": (Path, LATCHED),
    "/mesher/mesh": (MarkerArray, LATCHED),
    "/tf": (TFMessage, 100),
}


def main():
    rclpy.init(args=["stranger"])
    node = rclpy.create_node("stranger")
    heard = {topic: [] for topic in TOPICS}
    for topic, (message, profile) in TOPICS.items():
        node.create_subscription(message, topic, heard[topic].append, profile)
    wanted, end = int(sys.argv[2]), time.monotonic() + 60
    while time.monotonic() < end and not (
        len(heard["/reconstructor/pose"]) >= wanted
        and all(heard.values())
        and triangles(heard["/mesher/mesh"])
    ):
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(summary(heard)))
    node.destroy_node()
    rclpy.shutdown()


def triangles(arrays):
    return sum(len(marker.points) // 3 for array in arrays for marker in array.markers)


def summary(heard):
    cloud = heard["/reconstructor/cloud"][-1]
    offsets = {field.name: field.offset for field in cloud.fields}
    first = bytes(cloud.data[: cloud.point_step])
    (colour,) = struct.unpack_from("<I", first, offsets["rgb"])
    return {
        "pose": heard["/reconstructor/pose"][-1].header.frame_id,
        "odometry": heard["/reconstructor/odometry"][-1].child_frame_id,
        "points": cloud.width,
        "colour": [colour >> 16 & 255, colour >> 8 & 255, colour & 255],
        "path": len(heard["/reconstructor/path"][-1].poses),
        "triangles": triangles(heard["/mesher/mesh"]),
        "links": sorted({(t.header.frame_id, t.child_frame_id) for m in heard["/tf"] for t in m.transforms}),
        "package": any(name.startswith("recon3d_ros") for name in sys.modules),
    }


if __name__ == "__main__":
    main()
