# SPDX-License-Identifier: Apache-2.0
"""The keyframe decision and the flow it rests on."""

import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import KeyframeParams
from recon3d_ros.core.geometry import pose, so3_exp
from recon3d_ros.keyframing.gate import KeyframeGate, induced_flow
from recon3d_ros.keyframing.sharpness import Sharpness

CAMERA = Camera(640, 480, 500, 500, 319.5, 239.5)
PLANE = np.full((480, 640), 5.0, np.float32)


def test_the_first_frame_is_a_keyframe_whatever_it_shows():
    gate = KeyframeGate(KeyframeParams())
    assert gate.decide(0.0) == "first"
    assert gate.decide(0.0) == ""
    gate.reset()
    assert gate.decide(0.0) == "first"


@pytest.mark.parametrize(
    ("flow", "alive", "reason"),
    [(0.05, 1.0, ""), (0.06, 1.0, "flow"), (float("inf"), 1.0, "nothing visible"), (0.01, 0.5, "view lost")],
)
def test_the_reason_is_what_happened(flow, alive, reason):
    gate = KeyframeGate(KeyframeParams())
    gate.decide(0.0)
    assert gate.decide(flow, alive) == reason


def test_a_slow_camera_gets_a_keyframe_after_the_gap_and_a_resting_one_never():
    params = KeyframeParams(max_gap=5)
    moving, resting = KeyframeGate(params), KeyframeGate(params)
    assert [moving.decide(0.01) for _ in range(7)] == ["first", "", "", "", "", "gap", ""]
    assert [resting.decide(0.0) for _ in range(7)] == ["first"] + [""] * 6


def test_flow_of_a_sideways_motion_is_focal_length_times_motion_over_depth():
    flow, alive = induced_flow(PLANE, CAMERA, pose(np.eye(3), np.array([-0.5, 0, 0])))
    assert flow == pytest.approx(500 * 0.5 / 5.0 / 640, rel=1e-9)
    assert alive == pytest.approx(1 - 50 / 640, abs=0.02)


def test_flow_needs_depth_that_stays_in_view():
    assert induced_flow(np.full((480, 640), np.nan, np.float32), CAMERA, np.eye(4)) == (float("inf"), 0.0)
    turned = pose(so3_exp(np.array([0, 2.0, 0])), np.zeros(3))
    assert induced_flow(PLANE, CAMERA, turned) == (float("inf"), 0.0)


def test_a_keyframe_that_is_due_on_a_blurred_frame_waits_for_a_sharper_one_but_not_long():
    blurred = [KeyframeGate(KeyframeParams(min_sharpness=0.6)) for _ in range(2)]
    for gate in blurred:
        assert gate.decide(0.0, sharpness=0.1) == "first"
    assert [blurred[0].decide(0.1, sharpness=s) for s in (0.5, 0.9, 0.9)] == ["", "flow", "flow"]
    assert [blurred[1].decide(0.1, sharpness=0.5) for _ in range(6)] == ["", "", "flow", "", "", "flow"]
    assert [gate.put_off for gate in blurred] == [1, 2]
    off = KeyframeGate(KeyframeParams())
    assert [off.decide(0.1, sharpness=0.0) for _ in range(2)] == ["first", "flow"]


def test_sharpness_falls_with_blur():
    image = np.random.default_rng(0).integers(0, 255, (120, 160), dtype=np.uint8)
    sharpness = Sharpness()
    assert [sharpness.relative(image) for _ in range(6)] == [1.0] * 6
    assert sharpness.relative(cv2.GaussianBlur(image, (0, 0), 2.0)) < 0.2
    assert sharpness.relative(np.zeros_like(image)) == 0.0
    assert Sharpness().relative(np.zeros_like(image)) == 1.0
