# SPDX-License-Identifier: Apache-2.0
"""The keyframe decision and the flow it rests on."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import KeyframeParams
from recon3d_ros.core.geometry import pose, so3_exp
from recon3d_ros.keyframing.gate import KeyframeGate, induced_flow

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
