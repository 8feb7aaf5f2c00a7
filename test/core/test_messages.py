# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace as Message

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.messages import (
    base_topic,
    camera_from_info,
    camera_info_topic,
    is_rectified,
    pose_from_message,
    stamp_ns,
)


def info(**changes):
    values = {
        "width": 640,
        "height": 480,
        "distortion_model": "plumb_bob",
        "d": [0.1, -0.2, 0.001, 0.002, 0.3],
        "k": [500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0],
        "p": [450.0, 0.0, 310.0, 0.0, 0.0, 451.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": Message(x_offset=0, y_offset=0, width=0, height=0),
    }
    return Message(**(values | changes))


def test_a_camera_info_gives_the_camera_of_the_raw_image():
    assert camera_from_info(info()) == Camera(
        640, 480, 500.0, 501.0, 320.0, 240.0, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.3)
    )


def test_rectified_images_have_the_camera_of_p():
    assert camera_from_info(info(), rectified=True) == Camera(640, 480, 450.0, 451.0, 310.0, 230.0)


def test_an_uncalibrated_info_gives_no_camera():
    assert camera_from_info(info(k=[0.0] * 9)) is None


def test_no_coefficients_mean_no_distortion_whatever_the_model():
    for model in ("plumb_bob", "", "equidistant"):
        assert camera_from_info(info(d=[], distortion_model=model)) == Camera(
            640, 480, 500.0, 501.0, 320.0, 240.0
        )


def test_an_unknown_distortion_model_is_refused_aloud():
    with pytest.raises(InputError, match="wavy"):
        camera_from_info(info(distortion_model="wavy"))


def test_binning_and_region_of_interest_describe_the_image_that_arrives():
    whole = info(d=[])
    window = info(
        d=[], binning_x=2, binning_y=2, roi=Message(x_offset=100, y_offset=50, width=400, height=300)
    )
    binned, full = camera_from_info(window), camera_from_info(whole)
    assert binned.size == (200, 150)
    point = np.array([[0.1, -0.05, 1.0]])
    u, v = full.project(point)[0]
    # The centre of a binned pixel lies between those of the pixels it was made from.
    np.testing.assert_allclose(binned.project(point)[0], [(u - 100 - 0.5) / 2, (v - 50 - 0.5) / 2])


def test_values_may_be_arrays():
    message = info()
    message.k, message.p, message.d = np.array(message.k), np.array(message.p), np.array(message.d)
    assert camera_from_info(message) == camera_from_info(info())


def test_topics_lose_the_name_of_their_transport():
    assert base_topic("/cam/image_raw/compressed") == "/cam/image_raw"
    assert base_topic("/cam/image_raw") == "/cam/image_raw"
    assert camera_info_topic("/cam/depth/image_rect_raw/compressedDepth") == "/cam/depth/camera_info"
    assert camera_info_topic("/image") == "/camera_info"


def test_rectified_topics_are_known_by_their_name():
    assert all(
        is_rectified(t) for t in ("/a/image_rect", "/a/image_rect_color", "/a/image_rect_raw/compressed")
    )
    assert not any(is_rectified(t) for t in ("/a/image_raw", "/direct/image", "/rect/image_raw"))


def test_a_stamp_is_whole_nanoseconds():
    message = Message(header=Message(stamp=Message(sec=1700000000, nanosec=123456789)))
    assert stamp_ns(message) == 1700000000123456789


def pose_message(q, position=(1.0, 2.0, 3.0)):
    return Message(
        position=Message(**dict(zip("xyz", position, strict=True))),
        orientation=Message(**dict(zip("xyzw", q, strict=True))),
    )


def test_a_pose_message_gives_a_transform():
    T = pose_from_message(pose_message((0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))))
    np.testing.assert_allclose(T @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


@pytest.mark.parametrize(
    "message",
    [
        pose_message((0.0, 0.0, 0.0, 0.0)),
        pose_message((np.nan, 0.0, 0.0, 1.0)),
        pose_message((0.0, 0.0, 0.0, 1.0), (np.inf, 0.0, 0.0)),
    ],
)
def test_a_pose_that_is_none_is_refused(message):
    with pytest.raises(FrameError) as error:
        pose_from_message(message)
    assert error.value.reason == "prior"
