# SPDX-License-Identifier: Apache-2.0
"""The network's nine numbers per frame to pose and intrinsics, and back (specification, section 8):
`tx ty tz | qx qy qz qw | fov_h fov_w`, camera to world, `fov_h` the vertical and `fov_w` the horizontal field of view in
radians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, quaternion_from_rotation, rotation_from_quaternion, transform
from recon3d_ros.core.types import Floats, Pose

#: Fields of view nearer to 0 or to pi have no usable focal length; the network can give exactly 0.
MIN_FOV = 1e-3


def decode(pose_enc: NDArray[np.floating], height: int, width: int) -> tuple[Pose, Array]:
    """Poses T_world_cam [...,4,4] and camera matrices K [...,3,3], float64, of encodings [...,9].

    height, width: of the depth image, pixels. The quaternion need not be of unit length. What is no rotation (zero or
    non-finite quaternion) and the focal length of a field of view that is not usable become NaN, never infinite.
    """
    encoding = np.asarray(pose_enc, dtype=np.float64)
    T = np.zeros((*encoding.shape[:-1], 4, 4))
    rotations = [_rotation(q) for q in encoding[..., 3:7].reshape(-1, 4)]
    T[..., :3, :3] = np.array(rotations).reshape(*encoding.shape[:-1], 3, 3)
    T[..., :3, 3] = encoding[..., :3]
    T[..., 3, 3] = 1.0
    K = np.zeros((*encoding.shape[:-1], 3, 3))
    K[..., 0, 0] = _focal(encoding[..., 8], width)
    K[..., 1, 1] = _focal(encoding[..., 7], height)
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = width / 2, height / 2, 1.0
    return T, K


def encode(T_world_cam: Pose, K: Array, height: int, width: int) -> Array:
    """Encodings [...,9] float64 of poses [...,4,4] and camera matrices [...,3,3], with qw >= 0. The principal point is
    not part of an encoding."""
    quaternions = [quaternion_from_rotation(R) for R in T_world_cam[..., :3, :3].reshape(-1, 3, 3)]
    quaternion = np.array(quaternions).reshape(*T_world_cam.shape[:-2], 4)
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    fov_h = 2 * np.arctan(height / 2 / K[..., 1, 1])
    fov_w = 2 * np.arctan(width / 2 / K[..., 0, 0])
    return np.concatenate([T_world_cam[..., :3, 3], quaternion, fov_h[..., None], fov_w[..., None]], axis=-1)


def camera(pose_enc: NDArray[np.floating], height: int, width: int) -> Camera | None:
    """The camera of one encoding [9] for a depth image of that size, or None when a field of view is not usable."""
    fy, fx = _focal(pose_enc[7], height), _focal(pose_enc[8], width)
    if not np.isfinite([fx, fy]).all():
        return None
    return Camera(width, height, float(fx), float(fy), width / 2, height / 2, estimated=True)


def unproject(depth: Floats, K: Array, T_world_cam: Pose) -> Floats:
    """World points float32 [H,W,3] of a depth image [H,W] along z; NaN where the depth is NaN."""
    v, u = np.indices(depth.shape, dtype=np.float64)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    return transform(T_world_cam, rays * depth[..., None]).astype(np.float32)


def _focal(fov: NDArray[np.floating], size: int) -> Array:
    angle = np.asarray(fov, dtype=np.float64)
    usable = (angle > MIN_FOV) & (angle < np.pi - MIN_FOV)
    return size / 2 / np.tan(np.where(usable, angle, np.nan) / 2)


def _rotation(quaternion: Array) -> Array:
    try:
        return rotation_from_quaternion(quaternion)
    except ValueError:
        return np.full((3, 3), np.nan)
