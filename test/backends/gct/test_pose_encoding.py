# SPDX-License-Identifier: Apache-2.0
"""The nine numbers of a frame, against the reference and against geometry."""

import numpy as np
import pytest

from recon3d_ros.backends.gct.pose_encoding import camera, decode, encode, unproject
from recon3d_ros.core.geometry import inverse, is_pose, pose, so3_exp, transform

HEIGHT, WIDTH = 294, 518


def some_encoding(rng, n=1):
    T = np.array([pose(so3_exp(rng.normal(0, 1.5, 3)), rng.normal(0, 5, 3)) for _ in range(n)])
    K = np.tile(np.diag([1.0, 1.0, 1.0]), (n, 1, 1))
    K[:, 0, 0], K[:, 1, 1] = rng.uniform(200, 800, (2, n))
    K[:, 0, 2], K[:, 1, 2] = WIDTH / 2, HEIGHT / 2
    return T, K, encode(T, K, HEIGHT, WIDTH)


@pytest.mark.parametrize("size", [(378, 518), (56, 84)])
def test_poses_and_intrinsics_equal_the_reference(vectors, size):
    v = vectors.load("08_pose_encoding")
    name = f"{size[0]}x{size[1]}"
    T, K = decode(v["pose_enc"].numpy(), *size)
    assert np.abs(T[..., :3, :] - v[f"RT_{name}"].numpy()).max() < 2e-5
    # Focal lengths go up to 1230 px, where float32 itself is no finer than 6e-5.
    assert np.allclose(K, v[f"K_{name}"].numpy(), rtol=1e-6, atol=2e-5)
    assert np.abs(encode(T, K, *size) - v[f"enc_back_{name}"].numpy()).max() < 2e-5


def test_inverse_poses_equal_the_reference(vectors):
    v = vectors.load("08_pose_encoding")
    T, _ = decode(v["pose_enc"].numpy(), 56, 84)
    inverses = np.array([inverse(one) for one in T.reshape(-1, 4, 4)]).reshape(T.shape)
    assert np.abs(inverses - v["RT_inverse_4x4"].numpy()).max() < 2e-5


@pytest.mark.parametrize("names", ["quat_xyzw rotmat quat_back", "hard_quat hard_rotmat hard_quat_back"])
def test_rotations_of_any_angle_equal_the_reference(vectors, names):
    quaternion, rotation, back = (vectors.load("08_pose_encoding")[name].numpy() for name in names.split())
    angles = np.ones((*quaternion.shape[:-1], 2))
    T, K = decode(np.concatenate([0 * quaternion[..., :3], quaternion, angles], -1), HEIGHT, WIDTH)
    assert np.abs(T[..., :3, :3] - rotation).max() < 2e-5
    assert np.abs(encode(T, K, HEIGHT, WIDTH)[..., 3:7] - back).max() < 2e-5


def test_world_points_equal_the_reference(vectors):
    v = {name: tensor.numpy() for name, tensor in vectors.load("08b_unproject").items()}
    T, K = decode(v["pose_enc"][0], 20, 28)
    for i, depth in enumerate(v["depth"][..., 0]):
        assert np.abs(T[i, :3] - v["c2w"][i]).max() < 2e-5
        assert np.abs(unproject(depth, K[i], T[i]) - v["world_points"][i]).max() < 2e-5


def test_decoding_inverts_encoding():
    T, K, encoding = some_encoding(np.random.default_rng(0), 50)
    T_back, K_back = decode(encoding, HEIGHT, WIDTH)
    assert np.allclose(T_back, T, atol=1e-12)
    assert np.allclose(K_back, K)
    assert (encoding[:, 6] >= 0).all()


def test_a_quaternion_of_any_length_and_sign_is_the_same_rotation():
    _, _, encoding = some_encoding(np.random.default_rng(1))
    stretched = encoding.copy()
    stretched[:, 3:7] *= -3.7
    assert np.allclose(decode(stretched, HEIGHT, WIDTH)[0], decode(encoding, HEIGHT, WIDTH)[0])


@pytest.mark.parametrize("fov", [0.0, 1e-12, -0.3, np.pi, 4.0, np.nan, np.inf])
def test_an_unusable_field_of_view_gives_no_camera_and_no_infinity(fov):
    _, _, (encoding,) = some_encoding(np.random.default_rng(2))
    assert camera(encoding, HEIGHT, WIDTH) is not None
    for axis in (7, 8):
        broken = encoding.copy()
        broken[axis] = fov
        assert camera(broken, HEIGHT, WIDTH) is None
        T, K = decode(broken, HEIGHT, WIDTH)
        assert is_pose(T)
        assert np.isnan(K[8 - axis, 8 - axis]) and not np.isinf(K).any()


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_what_is_no_rotation_is_no_pose(quaternion):
    _, _, (encoding,) = some_encoding(np.random.default_rng(3))
    encoding[3:7] = quaternion
    assert not is_pose(decode(encoding, HEIGHT, WIDTH)[0])


def test_unprojected_points_are_seen_by_the_decoded_camera_at_their_pixels():
    rng = np.random.default_rng(4)
    T, K, (encoding,) = some_encoding(rng)
    depth = rng.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
    depth[3, 5] = np.nan
    points = unproject(depth, K[0], T[0])
    assert np.isnan(points[3, 5]).all() and np.isfinite(points).all(-1).sum() == depth.size - 1
    local = transform(inverse(T[0]), points.reshape(-1, 3).astype(np.float64))
    pixels = camera(encoding, HEIGHT, WIDTH).project(local).reshape(HEIGHT, WIDTH, 2)
    assert np.nanmax(np.abs(pixels - np.moveaxis(np.indices(depth.shape)[::-1], 0, -1))) < 2e-3
    assert np.allclose(local.reshape(HEIGHT, WIDTH, 3)[..., 2], depth, atol=1e-5, equal_nan=True)
