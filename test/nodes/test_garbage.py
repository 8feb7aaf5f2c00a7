# SPDX-License-Identifier: Apache-2.0
"""Broken messages on every input: nothing crashes, everything is counted, and what is good goes on."""

import random
import time
from array import array
from collections import Counter

import numpy as np
import pytest
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix

from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header
from recon3d_ros.ros.messages import TFMessage

NAN = float("nan")
WEIRD = (NAN, float("inf"), -float("inf"), 0.0, -1.0, 1e300)


class Garbage:
    """Publishes what is wrong in one or several ways, the same for the same seed."""

    def __init__(self, probe, seed=1):
        self.random = random.Random(seed)
        self.sent = Counter()
        self.publishers = {
            kind: probe.create_publisher(
                message, topic, qos.TF_STATIC if topic == "/tf_static" else qos.PLAYED
            )
            for kind, message, topic in (
                ("depth", Image, "depth"),
                ("odometry", Odometry, "odom"),
                ("imu", Imu, "imu"),
                ("fix", NavSatFix, "fix"),
                ("tf", TFMessage, "/tf"),
                ("tf_static", TFMessage, "/tf_static"),
            )
        }
        self.publishers |= {"image": probe.images, "camera_info": probe.infos}

    def send(self):
        for kind, publisher in self.publishers.items():
            publisher.publish(getattr(self, f"_{kind}")())
            self.sent[kind] += 1

    def _pick(self, *values):
        return self.random.choice(values)

    def _number(self):
        return self._pick(*WEIRD)

    def _header(self):
        stamp = self._pick(0, -1, 1, 10**9, self.random.randrange(1, 2 * 10**9))
        made = header(max(stamp, 0), self._pick("", "cam", "/", "base_link", "x" * 300, "ä/ö"))
        if stamp < 0:
            made.stamp.sec = -5
        return made

    def _image(self):
        encoding = self._pick(
            "rgb8", "bgr8", "mono16", "nv21", "yuv422", "bayer_rggb8", "32FC1", "h264", "", "?"
        )
        message = Image(header=self._header(), encoding=encoding, is_bigendian=self._pick(0, 1, 7))
        message.height, message.width = (self._pick(0, 1, 24, 2**31) for _ in range(2))
        message.step = self._pick(0, 1, 96, 2**32 - 1)
        message.data = array("B", bytes(self._pick(0, 1, 24 * 96 - 1, 24 * 96)))
        return message

    def _depth(self):
        message = self._image()
        message.encoding = self._pick("16UC1", "32FC1", "rgb8", "")
        return message

    def _camera_info(self):
        message = CameraInfo(header=self._header(), distortion_model=self._pick("", "plumb_bob", "fisheye9"))
        message.width, message.height = self._pick(0, 32, 31), self._pick(0, 24, 2**32 - 1)
        message.k = [self._number() for _ in range(9)]
        message.d = [self._number() for _ in range(self._pick(0, 3, 5, 20))]
        message.binning_x, message.roi.width = self._pick(0, 1, 1000), self._pick(0, 7, 2**31)
        return message

    def _vector(self, kind=Vector3):
        return kind(x=self._number(), y=self._number(), z=self._number())

    def _rotation(self):
        return Quaternion(x=self._number(), y=self._number(), z=self._number(), w=self._number())

    def _odometry(self):
        message = Odometry(header=self._header(), child_frame_id=self._pick("", "base_link", "cam"))
        message.pose.pose.position = self._vector(Point)
        message.pose.pose.orientation = self._rotation()
        return message

    def _imu(self):
        message = Imu(header=self._header(), orientation=self._rotation())
        message.angular_velocity, message.linear_acceleration = self._vector(), self._vector()
        message.linear_acceleration_covariance[0] = self._pick(0.0, -1.0, NAN)
        return message

    def _fix(self):
        message = NavSatFix(header=self._header(), latitude=self._number(), longitude=self._number())
        message.altitude, message.status.status = self._number(), self._pick(-128, -1, 0, 2)
        return message

    def _tf(self):
        link = TransformStamped(
            header=self._header(), child_frame_id=self._pick("", "cam", "base_link", "map")
        )
        link.transform.translation, link.transform.rotation = self._vector(), self._rotation()
        return TFMessage(transforms=[link] * self._pick(0, 1, 3))

    _tf_static = _tf


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_garbage_on_every_input_is_counted_and_the_flight_goes_on(graph, start, seconds):
    probe, node, frames = start(
        "-p", "prior:=true", "-p", "frames.base:=base_link", backend="rgbd", needs_depth=True
    )
    garbage = Garbage(probe)
    assert graph.wait(lambda: probe.connected(*garbage.publishers.values()))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        garbage.send()
        time.sleep(0.005)
    assert not node.run.drops["internal error"] and node.run.refused is None and node.is_active

    def given_up():
        return sum((node._drops() + node.run.drops).values())

    assert graph.wait(
        lambda: node.input.received == garbage.sent["image"] or given_up() > garbage.sent["image"]
    )
    counts = node._drops() + node.run.drops
    for reason in ("camera_info invalid", "image without stamp", "depth without stamp", "odometry invalid"):
        assert counts[reason], reason
    for reason in ("imu invalid", "no fix", "transform invalid"):
        assert counts[reason], reason

    # What is good afterwards is taken as ever.
    before, stamp = len(frames), 10**10
    probe.send_info()

    def is_taken():
        nonlocal stamp
        stamp += 50_000_000
        probe.send_image(stamp)
        depth = Image(header=header(stamp, "cam"), height=24, width=32, encoding="32FC1", step=128)
        depth.data = array("B", np.full((24, 32), 2.0, np.float32).tobytes())
        garbage.publishers["depth"].publish(depth)
        return any(frame.depth is not None for frame in frames[before:])

    assert graph.wait(is_taken)
    assert frames[-1].camera.fx == 30.0
