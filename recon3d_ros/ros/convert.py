# SPDX-License-Identifier: Apache-2.0
"""From the nouns of the core to messages. The other direction is `core.messages`, which works without ROS too."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion, TransformStamped, Vector3
from geometry_msgs.msg import Pose as PoseMessage
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from recon3d_ros.core.geometry import quaternion_from_rotation
from recon3d_ros.core.types import Floats, Image, Keyframe, Pose
from recon3d_ros.ros.messages import Keyframe as KeyframeMessage


def header(stamp_ns: int, frame_id: str) -> Header:
    """Header of a stamp in nanoseconds."""
    return Header(stamp=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id=frame_id)


def pose_message(T: Pose) -> PoseMessage:
    """geometry_msgs/Pose of a 4x4 transform."""
    x, y, z = T[:3, 3].tolist()
    return PoseMessage(position=Point(x=x, y=y, z=z), orientation=_quaternion(T))


def pose_stamped(T: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    """geometry_msgs/PoseStamped of a 4x4 transform."""
    return PoseStamped(header=header(stamp_ns, frame_id), pose=pose_message(T))


def transform_stamped(T_parent_child: Pose, stamp_ns: int, parent: str, child: str) -> TransformStamped:
    """geometry_msgs/TransformStamped: `T_parent_child` maps coordinates of the child frame into the parent frame."""
    x, y, z = T_parent_child[:3, 3].tolist()
    message = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    message.transform.translation = Vector3(x=x, y=y, z=z)
    message.transform.rotation = _quaternion(T_parent_child)
    return message


def odometry_message(T_odom_base: Pose, stamp_ns: int, odom: str, base: str) -> Odometry:
    """nav_msgs/Odometry with a pose alone: its covariance is 0 (unknown), its twist is not given."""
    message = Odometry(header=header(stamp_ns, odom), child_frame_id=base)
    message.pose.pose = pose_message(T_odom_base)
    return message


def cloud_message(
    points: Floats, colours: Image, confidence: Floats | None, stamp_ns: int, frame_id: str
) -> PointCloud2:
    """Points float32 [N,3], colours uint8 [N,3] RGB and, where given, confidence float32 [N] as an unordered PointCloud2.

    Fields x, y, z, rgb (a float32 whose bits are 0x00RRGGBB), confidence. The points must be finite.
    """
    names = ["x", "y", "z", "rgb"] + (["confidence"] if confidence is not None else [])
    layout: list[tuple[str, str] | tuple[str, str, int]] = [("xyz", "<f4", 3), ("rgb", "<u4")]
    packed = np.empty(len(points), dtype=layout + ([("confidence", "<f4")] if confidence is not None else []))
    packed["xyz"] = points
    red, green, blue = colours.T.astype(np.uint32)
    packed["rgb"] = red << 16 | green << 8 | blue
    if confidence is not None:
        packed["confidence"] = confidence
    return PointCloud2(
        header=header(stamp_ns, frame_id),
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(names)
        ],
        point_step=packed.itemsize,
        row_step=packed.nbytes,
        data=byte_array(packed),
        is_dense=True,
    )


def keyframe_message(keyframe: Keyframe, map_frame: str) -> KeyframeMessage:
    """The notice of a keyframe that was added; its number, and where the points lie, are for the caller to fill in."""
    camera = keyframe.camera
    low, high = keyframe.bounds()
    return KeyframeMessage(
        header=header(keyframe.stamp_ns, map_frame),
        action=KeyframeMessage.ADD,
        id=keyframe.id,
        pose=pose_message(keyframe.T_map_cam),
        width=camera.width,
        height=camera.height,
        intrinsics=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        bbox_min=low.astype(np.float32),
        bbox_max=high.astype(np.float32),
        point_count=len(keyframe.points),
        has_confidence=keyframe.confidence is not None,
        scale_state=keyframe.scale.value,
    )


def byte_array(values: NDArray[np.generic]) -> array[int]:
    """The bytes of an array as a message field takes them at once; a numpy array would be checked element by element."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).tobytes())
    return data


def _quaternion(T: Pose) -> Quaternion:
    x, y, z, w = quaternion_from_rotation(T[:3, :3]).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)
