# SPDX-License-Identifier: Apache-2.0
"""What a process sets before rclpy starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recon3d_ros.ros import environment

# Two processes: HD images at 20 Hz from one to the other, which prints how many came.
SENDER = """
import array, time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from recon3d_ros.ros.environment import check_environment

check_environment()
rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
image = Image(width=1280, height=720, encoding="rgb8", step=3840, data=array.array("B", bytes(3840 * 720)))
deadline = time.monotonic() + 20
while not publisher.get_subscription_count() and time.monotonic() < deadline:
    time.sleep(0.05)
time.sleep(0.2)
for _ in range(40):
    publisher.publish(image)
    time.sleep(0.05)
time.sleep(0.5)
rclpy.shutdown()
"""
RECEIVER = """
import sys, time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from recon3d_ros.ros.environment import check_environment

check_environment()
rclpy.init()
node = rclpy.create_node("receiver")
received = []
node.create_subscription(Image, "image", lambda message: received.append(len(message.data)), qos_profile_sensor_data)
deadline = time.monotonic() + 20
while len(received) < 40 and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.1)
    if received and not node.count_publishers("image"):
        break
print(len(received))
rclpy.shutdown()
"""


def test_the_shared_files_belong_to_the_package_that_runs() -> None:
    share = environment.share_directory()
    assert (share / "config" / "fastdds.xml").is_file()
    assert (share / "package.xml").is_file()


def test_an_installed_package_finds_its_share_folder_without_a_ros_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "python3.12" / "site-packages" / "recon3d_ros"
    share = tmp_path / "share" / "recon3d_ros"
    for folder in (package, share / "config"):
        folder.mkdir(parents=True)
    (share / "package.xml").touch()
    monkeypatch.setattr(environment.recon3d_ros, "__file__", str(package / "__init__.py"))
    assert environment.share_directory() == share


def test_unset_variables_get_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    environment.check_environment()
    assert os.environ["AMENT_PREFIX_PATH"] == sys.prefix
    assert Path(os.environ["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_a_small_shared_memory_keeps_the_default_transport_and_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    environment.check_environment()
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in os.environ
    assert "64 MB free" in caplog.text and "--shm-size" in caplog.text


def test_variables_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"AMENT_PREFIX_PATH": "/ws/install", "FASTDDS_DEFAULT_PROFILES_FILE": "/ws/mine.xml"}
    monkeypatch.setattr(os, "environ", dict(mine))
    environment.check_environment()
    assert os.environ == mine


def test_wheels_beside_a_sourced_ros_are_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ros_wheels_bootstrapper")
    monkeypatch.setattr(os, "environ", {"LD_LIBRARY_PATH": "/venv/lib:/opt/ros/jazzy/lib"})
    warning = environment.mixed_installations()
    assert warning is not None and "/opt/ros/jazzy is sourced" in warning and "\n" not in warning


def test_wheels_alone_are_no_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"LD_LIBRARY_PATH": "/venv/lib"})
    assert environment.mixed_installations() is None


def test_hd_images_arrive_best_effort_with_the_shipped_transport_profile() -> None:
    """With the default transport most of them, often all, are lost."""
    if shutil.disk_usage("/dev/shm").free < environment.SHARED_MEMORY_NEEDED:
        pytest.skip("/dev/shm is too small here")
    pytest.importorskip("rclpy")
    env = {key: value for key, value in os.environ.items() if key != "FASTDDS_DEFAULT_PROFILES_FILE"}
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], env=env, stdout=subprocess.PIPE, text=True)
    sender = subprocess.Popen([sys.executable, "-c", SENDER], env=env)
    try:
        output, _ = receiver.communicate(timeout=60)
        sender.wait(30)
    finally:
        receiver.kill()
        sender.kill()
    assert int(output) >= 20
