# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as 4x4 float64 arrays. `T_a_b` maps coordinates of frame b into frame a; quaternions are x, y, z, w."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Rotation from camera optical axes (x right, y down, z forward) to body axes (x forward, y left, z up), REP-103.
R_BODY_OPTICAL: Array = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def pose(rotation: Array, translation: Array) -> Array:
    """The 4x4 transform of a 3x3 rotation and a translation [3]."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def body_from_optical() -> Array:
    """Transform body <- optical of one camera (no translation). The pose of the first camera of a map without other
    reference: map x is its viewing direction, map z its up direction."""
    return pose(R_BODY_OPTICAL, np.zeros(3))


def inverse(T: Array) -> Array:
    """Inverse of a rigid transform."""
    R = T[:3, :3].T
    return pose(R, -R @ T[:3, 3])


def transform(T: Array, points: Array) -> Array:
    """Apply a 4x4 transform (rigid or similarity) to points [..., 3]."""
    return points @ T[:3, :3].T + T[:3, 3]


def orthonormalised(T: Array) -> Array:
    """T with its rotation replaced by the nearest one (SVD): products of rotations drift by rounding."""
    U, _, Vt = np.linalg.svd(T[:3, :3])
    return pose(U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt, T[:3, 3])


def is_pose(T: Array, tolerance: float = 1e-3) -> bool:
    """True if T is finite and a rigid transform up to `tolerance`."""
    if T.shape != (4, 4) or not np.isfinite(T).all():
        return False
    R = T[:3, :3]
    return bool(np.allclose(R @ R.T, np.eye(3), atol=tolerance) and np.linalg.det(R) > 0)


def skew(v: Array) -> Array:
    """The matrix [v]x with [v]x w = v x w."""
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def so3_exp(omega: Array) -> Array:
    """Rotation of a rotation vector [3] in radians (Rodrigues)."""
    theta = float(np.linalg.norm(omega))
    K = skew(omega)
    if theta < 1e-8:
        return np.eye(3) + K + 0.5 * K @ K
    return np.eye(3) + np.sin(theta) / theta * K + (1 - np.cos(theta)) / theta**2 * K @ K


def so3_log(R: Array) -> Array:
    """Rotation vector [3] in radians of a rotation matrix, well behaved up to pi."""
    q = quaternion_from_rotation(R)
    if q[3] < 0:
        q = -q
    s = float(np.linalg.norm(q[:3]))
    if s < 1e-12:
        return 2.0 * q[:3]
    return 2.0 * np.arctan2(s, q[3]) / s * q[:3]


def se3_exp(xi: Array) -> Array:
    """Transform of a twist [6] (translation part first, then rotation vector)."""
    rho, omega = xi[:3], xi[3:]
    theta = float(np.linalg.norm(omega))
    K = skew(omega)
    if theta < 1e-8:
        V = np.eye(3) + 0.5 * K + K @ K / 6.0
    else:
        V = np.eye(3) + (1 - np.cos(theta)) / theta**2 * K + (theta - np.sin(theta)) / theta**3 * K @ K
    return pose(so3_exp(omega), V @ rho)


def interpolated(A: Array, B: Array, share: float) -> Array:
    """The pose at this share of the way from pose A to pose B: straight on, turning evenly."""
    turn = so3_exp(share * so3_log(A[:3, :3].T @ B[:3, :3]))
    return pose(A[:3, :3] @ turn, (1 - share) * A[:3, 3] + share * B[:3, 3])


def rotation_angle(R: Array) -> float:
    """Angle of a rotation matrix in radians, 0 to pi."""
    return float(np.linalg.norm(so3_log(R)))


def rotation_angles(R: Array) -> Array:
    """Angles [N] of rotation matrices [N,3,3] in radians, 0 to pi, exact for small ones too."""
    axis = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], axis=-1)
    angles: Array = np.arctan2(np.linalg.norm(axis, axis=1) / 2, (np.trace(R, axis1=1, axis2=2) - 1) / 2)
    return angles


def quaternion_from_rotation(R: Array) -> Array:
    """Unit quaternion (x, y, z, w) of a rotation matrix; the largest component is computed first (Shepperd)."""
    m = np.asarray(R, dtype=np.float64)
    diagonal = np.array([m[0, 0], m[1, 1], m[2, 2], m[0, 0] + m[1, 1] + m[2, 2]])
    i = int(np.argmax(diagonal))
    q = np.empty(4)
    if i == 3:
        q[:] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + diagonal[3]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1 - diagonal[3] + 2 * m[i, i]
        q[j] = m[j, i] + m[i, j]
        q[k] = m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    return q / np.linalg.norm(q)


def rotation_from_quaternion(q: Array) -> Array:
    """Rotation matrix of a quaternion (x, y, z, w), normalised first. Raises ValueError for a zero or non-finite one."""
    q = np.asarray(q, dtype=np.float64)
    norm = float(np.linalg.norm(q))
    if not np.isfinite(norm) or norm < 1e-9:
        raise ValueError(f"not a rotation: quaternion {q.tolist()}")
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def similarity(scale: float, rotation: Array, translation: Array) -> Array:
    """The 4x4 Sim(3) matrix [s R, t]; `transform` applies it to points."""
    return pose(scale * rotation, translation)


def scale_of(S: Array) -> float:
    """The scale s of a similarity [s R, t]."""
    return float(np.cbrt(np.linalg.det(S[:3, :3])))


def apply_similarity(S: Array, T: Array) -> Array:
    """Pose T seen after the similarity S = [s R, t]: centre scaled and moved, rotation turned, no scale left in it."""
    return pose(S[:3, :3] @ T[:3, :3] / scale_of(S), transform(S, T[:3, 3]))


def inverse_similarity(S: Array) -> Array:
    """The similarity back."""
    back = np.asarray(np.linalg.inv(S[:3, :3]), dtype=np.float64)
    return pose(back, -back @ S[:3, 3])
