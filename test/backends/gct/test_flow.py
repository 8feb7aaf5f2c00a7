# SPDX-License-Identifier: Apache-2.0
"""Flow by the network's own depth and poses, against the reference and against geometry."""

import warnings

import numpy as np
import pytest

from recon3d_ros.backends.gct.flow import Motion, flow_magnitude
from recon3d_ros.backends.gct.pose_encoding import camera, encode
from recon3d_ros.core.geometry import pose, so3_exp

HEIGHT, WIDTH, FOCAL = 294, 518, 400.0
PLANE = np.full((HEIGHT, WIDTH), 5.0, np.float32)
UNSEEN = Motion(float("inf"), 0.0)


def encoded(x=0.0, z=0.0, yaw=0.0):
    """A camera moved to the right by x and forward by z, then turned about its y axis by `yaw` radians."""
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return encode(pose(so3_exp(np.array([0, yaw, 0])), np.array([x, 0, z])), K, HEIGHT, WIDTH)


def reference_flow(vectors, case):
    v, name = vectors.load("09_flow"), case["name"]
    depth, now, keyframe = (v[f"{name}.{part}"][:, 0].numpy() for part in ("depth", "cur", "kf"))
    # The reference takes one mean over a batch; all its pixels count in the one case that has one.
    return np.mean(
        [
            flow_magnitude(depth[i, ..., 0], now[i], keyframe[i], case["stride"]).flow
            for i in range(len(depth))
        ]
    )


def test_flow_equals_the_reference(vectors):
    cases = vectors.meta("09_flow")["cases"]
    for case in cases:
        expected = float(case["intended_value"])
        # Without motion the reference is left with the rounding of float32.
        assert reference_flow(vectors, case) == pytest.approx(expected, rel=1e-3, abs=1e-5), case["name"]
    assert len(cases) == 14


@pytest.mark.parametrize("name", ["all_behind_keyframe", "all_invalid_depth"])
def test_d9_nothing_visible_is_infinite_flow_and_not_zero(vectors, name):
    (case,) = (case for case in vectors.meta("09_flow")["cases"] if case["name"] == name)
    assert case["reference_value"] == 0.0
    assert reference_flow(vectors, case) == float("inf")


def test_sideways_motion_in_front_of_a_plane_is_focal_length_times_motion_over_depth():
    motion = flow_magnitude(PLANE, encoded(x=0.5), encoded())
    assert motion.flow == pytest.approx(FOCAL * 0.5 / 5.0, rel=1e-9)
    assert motion.visible == pytest.approx(1 - 40 / WIDTH, abs=0.02)


def test_flow_is_taken_with_the_keyframe_s_own_focal_length():
    narrow = encoded()
    narrow[7:9] = 2 * np.arctan(np.tan(narrow[7:9] / 2) / 2)
    u, v = np.meshgrid(np.arange(0, WIDTH, 8), np.arange(0, HEIGHT, 8))
    from_centre = np.hypot(u - WIDTH / 2, v - HEIGHT / 2)
    assert flow_magnitude(PLANE, encoded(), narrow).flow == pytest.approx(from_centre.mean(), rel=1e-9)


def test_a_camera_at_rest_sees_no_flow_and_all_of_the_keyframe():
    motion = flow_magnitude(PLANE, encoded(x=2, yaw=0.3), encoded(x=2, yaw=0.3))
    assert motion.flow == pytest.approx(0.0, abs=1e-9)
    assert motion.visible == 1.0


def test_depth_sent_strided_gives_the_same_motion():
    depth = np.random.default_rng(0).uniform(2, 9, (HEIGHT, WIDTH)).astype(np.float32)
    pair = encoded(x=0.3, z=0.2, yaw=0.1), encoded()
    whole = flow_magnitude(depth, *pair, stride=8)
    assert flow_magnitude(depth[::8, ::8], *pair, stride=8, size=(HEIGHT, WIDTH)) == whole


def test_pixels_without_depth_count_neither_for_flow_nor_for_what_is_visible():
    holes = PLANE.copy()
    holes[:, : WIDTH // 2], holes[: HEIGHT // 2] = np.nan, 0.0
    motion = flow_magnitude(holes, encoded(x=0.1), encoded())
    assert motion.flow == pytest.approx(FOCAL * 0.1 / 5.0)
    assert motion.visible == pytest.approx(1 - 8 / (WIDTH / 2), abs=0.03)


def test_the_cap_bounds_what_a_point_near_the_keyframe_s_image_plane_contributes():
    # Seen from two metres behind the keyframe, the left column lies a millimetre in front of it.
    depth = np.full((HEIGHT, WIDTH), 12.0, np.float32)
    depth[:, 0] = 2.001
    pair = encoded(z=-2.0), encoded()
    diagonal = np.hypot(HEIGHT, WIDTH)
    free, capped = flow_magnitude(depth, *pair), flow_magnitude(depth, *pair, cap=2.0)
    rest = flow_magnitude(depth[:, 8:], *pair, cap=2.0)
    assert free.flow > 10 * diagonal > capped.flow
    columns = len(range(0, WIDTH, 8))
    assert capped.flow <= rest.flow + 2 * diagonal / columns + 10
    assert capped.visible == free.visible


@pytest.mark.parametrize("index", [0, 3, 7, 8])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_d9_a_broken_pose_or_field_of_view_is_infinite_flow(index, value):
    broken = encoded()
    broken[index] = value
    assert flow_magnitude(PLANE, broken, encoded()) == UNSEEN
    assert flow_magnitude(PLANE, encoded(), broken) == UNSEEN


def test_d9_a_field_of_view_of_zero_is_infinite_flow():
    closed = encoded()
    closed[7:9] = 0
    assert flow_magnitude(PLANE, closed, encoded()) == UNSEEN
    assert flow_magnitude(PLANE, encoded(), closed) == UNSEEN


def test_d9_infinite_depth_is_infinite_flow_without_a_warning():
    depth = PLANE.copy()
    depth[8, 8] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flow_magnitude(depth, encoded(x=0.1), encoded()) == UNSEEN


def test_d9_a_camera_that_turned_away_sees_nothing_of_the_keyframe():
    assert flow_magnitude(PLANE, encoded(yaw=np.pi), encoded()) == UNSEEN


def test_what_is_visible_is_what_lands_in_the_keyframe_s_image():
    motion = flow_magnitude(PLANE, encoded(yaw=0.5), encoded())
    look = camera(encoded(), HEIGHT, WIDTH)
    u, v = np.meshgrid(np.arange(0, WIDTH, 8.0), np.arange(0, HEIGHT, 8.0))
    rays = np.column_stack([look.unproject(np.stack([u, v], -1)), np.ones(u.size)])
    seen = look.project(5 * rays @ so3_exp(np.array([0, 0.5, 0])).T)
    inside = ((seen > -0.5) & (seen < (WIDTH - 0.5, HEIGHT - 0.5))).all(-1)
    assert motion.visible == pytest.approx(inside.mean())
    assert 0.2 < motion.visible < 0.8
