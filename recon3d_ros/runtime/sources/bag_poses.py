# SPDX-License-Identifier: Apache-2.0
"""Camera poses from the odometry of a bag: it gives the pose of a body, /tf_static where the camera sits on it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.geometry import inverse
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.core.trajectory import Trajectory
from recon3d_ros.core.types import Pose
from recon3d_ros.runtime.sources.bag_reader import Bag

#: Frame -> its parent and the transform parent <- frame.
Tree = dict[str, tuple[str, Pose]]


def read_camera_poses(bag: Bag, odometry: str, camera_frame: str) -> Trajectory:
    """Poses of the optical frame `camera_frame` in the odometry's world, of the whole bag. Damaged messages are passed
    over. Raises InputError when the body and the camera are not linked."""
    stamps: list[int] = []
    poses: list[Pose] = []
    T_body_camera: Pose | None = None
    for item in bag.messages([odometry], Counter()):
        if T_body_camera is None:
            T_body_camera = _mounting(bag, odometry, item.message.child_frame_id, camera_frame)
        try:
            poses.append(pose_from_message(item.message.pose.pose) @ T_body_camera)
        except FrameError:
            continue
        stamps.append(stamp_ns(item.message) or item.log_time_ns)
    order = np.argsort(np.array(stamps, dtype=np.int64), kind="stable")
    return Trajectory(np.array(stamps, dtype=np.int64)[order], np.array(poses).reshape(-1, 4, 4)[order])


def _mounting(bag: Bag, odometry: str, body: str, camera: str) -> Pose:
    tree = _static_tree(bag)
    T_root_body, body_root = _to_root(tree, body)
    T_root_camera, camera_root = _to_root(tree, camera)
    if not body or body_root != camera_root:
        raise InputError(
            f"no static transform links '{body}' ({odometry}) and '{camera}' (images): record /tf_static, "
            "or run without the prior"
        )
    return inverse(T_root_body) @ T_root_camera


def _static_tree(bag: Bag) -> Tree:
    tree: Tree = {}
    for item in bag.messages(["/tf_static"], Counter()):
        for link in item.message.transforms:
            tree[link.child_frame_id.lstrip("/")] = (
                link.header.frame_id.lstrip("/"),
                pose_from_message(link.transform),
            )
    return tree


def _to_root(tree: Tree, frame: str) -> tuple[Pose, str]:
    """Transform root <- frame, and the root's name."""
    T, frame = np.eye(4), frame.lstrip("/")
    for _ in range(len(tree)):
        if frame not in tree:
            break
        frame, T_parent_frame = tree[frame]
        T = T_parent_frame @ T
    return T, frame
