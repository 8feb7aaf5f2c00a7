# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import fit_camera, load_calibration, load_camera
from recon3d_ros.core.errors import InputError

ROS = """
image_width: 640
image_height: 480
camera_name: front
camera_matrix: {{rows: 3, cols: 3, data: [{fx}, 0.0, 320.5, 0.0, 511.0, 240.5, 0.0, 0.0, 1.0]}}
distortion_model: {model}
distortion_coefficients: {{rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.3]}}
rectification_matrix: {{rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
"""
KALIBR = """
cam0:
  camera_model: {camera}
  distortion_coeffs: [0.09, -0.17, -0.001, 0.002]
  distortion_model: {distortion}
  intrinsics: [927.3, 927.2, 647.1, 354.4]
  resolution: [1280, 720]
  rostopic: /cam0/image_raw
"""


def written(tmp_path, text, name="camera.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_yaml_of_camera_calibration_is_read(tmp_path):
    camera = load_camera(written(tmp_path, ROS.format(fx=510.0, model="plumb_bob")))
    assert camera == Camera(640, 480, 510.0, 511.0, 320.5, 240.5, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.3))


@pytest.mark.parametrize(("name", "model"), [("radtan", "plumb_bob"), ("equidistant", "equidistant")])
def test_a_kalibr_chain_gives_its_first_camera(tmp_path, name, model):
    camera = load_camera(written(tmp_path, KALIBR.format(camera="pinhole", distortion=name)))
    assert camera.model == model
    assert camera.size == (1280, 720)
    assert camera.distortion[:4] == (0.09, -0.17, -0.001, 0.002)


@pytest.mark.parametrize("fx", ["0.0", ".nan"])
def test_an_uncalibrated_file_is_refused_by_name(tmp_path, fx):
    path = written(tmp_path, ROS.format(fx=fx, model="plumb_bob"))
    with pytest.raises(InputError, match=r"camera\.yaml: .*calibrat"):
        load_camera(path)


@pytest.mark.parametrize(
    "text",
    [
        ROS.format(fx=510.0, model="wavy"),
        KALIBR.format(camera="omni", distortion="radtan"),
        "image_width: 640\ncamera_matrix: {data: [1, 2]}\n",
        "a: b: c",
        "just text",
        "{}",
    ],
)
def test_files_that_give_no_camera_are_input_errors_of_one_line(tmp_path, text):
    with pytest.raises(InputError, match=r"camera\.yaml") as error:
        load_camera(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="nothing"):
        load_camera(tmp_path / "nothing.yaml")


def calib(**changes):
    values = {
        "width": 64,
        "height": 48,
        "camera_model": "pinhole",
        "fx": 50.0,
        "fy": 51.0,
        "cx": 32.0,
        "cy": 24.0,
    }
    return json.dumps(values | {"distortion": None} | changes)


def test_a_calib_json_holds_both_cameras_and_the_scale_of_depth(tmp_path):
    depth = {"depth_fx": 58.0, "depth_fy": 58.0, "depth_cx": 32.0, "depth_cy": 24.0}
    text = calib(depth_scale=5000.0, fps=15, poses_of="depth camera", **depth)
    found = load_calibration(written(tmp_path, text, "calib.json"))
    assert found.camera == Camera(64, 48, 50.0, 51.0, 32.0, 24.0)
    assert found.depth_camera == Camera(64, 48, 58.0, 58.0, 32.0, 24.0)
    assert (found.depth_scale, found.fps, found.poses_of) == (5000.0, 15.0, "depth camera")


def test_a_calib_json_without_intrinsics_gives_no_camera(tmp_path):
    path = written(
        tmp_path, '{"width": 64, "height": 48, "camera_model": "unknown", "fps": null}', "calib.json"
    )
    found = load_calibration(path)
    assert found.camera is None
    assert found.fps == 0


def test_unknown_distortion_counts_as_none_and_as_an_estimate(tmp_path):
    camera = load_camera(written(tmp_path, calib(distortion="unknown; not calibrated"), "calib.json"))
    assert camera == Camera(64, 48, 50.0, 51.0, 32.0, 24.0, estimated=True)


def test_radtan_of_a_calib_json_is_plumb_bob(tmp_path):
    text = calib(camera_model="radtan", distortion=[0.1, 0.2, 0.0, 0.0, 0.0])
    assert load_camera(written(tmp_path, text, "calib.json")).model == "plumb_bob"


def test_a_camera_is_scaled_to_images_of_the_same_shape_and_says_so(caplog):
    camera = Camera(1280, 720, 927.3, 927.2, 647.1, 354.4)
    with caplog.at_level(logging.INFO):
        scaled = fit_camera(camera, 854, 480)
    assert scaled.size == (854, 480)
    assert scaled.fx == pytest.approx(618.69, abs=0.01)
    assert "scaled" in caplog.text


def test_a_camera_of_another_shape_is_refused():
    with pytest.raises(InputError, match="640x480"):
        fit_camera(Camera(1280, 720, 900.0, 900.0, 640.0, 360.0), 640, 480)
