# SPDX-License-Identifier: Apache-2.0
"""The player: what is stored is what arrives, it waits for listeners, and it says why it does not play."""

import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.image_messages import decode_image_message
from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.core.types import Frame
from recon3d_ros.nodes.replay import Player
from recon3d_ros.ros import qos
from recon3d_ros.runtime.bag_writer import write_bag


@pytest.fixture
def bag(tmp_path, graph):
    frames = [Frame(10**9 + i * 50_000_000, graph.image, graph.camera, frame_id="cam") for i in range(6)]
    write_bag(tmp_path / "bag", frames)
    return tmp_path / "bag"


def test_the_stored_bytes_arrive_in_their_rhythm_with_a_clock(graph, bag):
    graph.start()
    player, probe = graph.add(Player(bag, rate=2.0, patience=5.0)), graph.probe()
    probe.listen(Image, "/camera/image_raw", qos.PLAYED_IMAGES)
    probe.listen(CameraInfo, "/camera/camera_info", raw=True)
    probe.listen(Clock, "/clock", QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT))
    seen = []
    assert player.play(seen.append)
    images, infos = probe.heard["/camera/image_raw"], probe.heard["/camera/camera_info"]
    assert graph.wait(lambda: len(images) == 6 and len(infos) == 6)
    assert [stamp_ns(m) for m in images] == [10**9 + i * 50_000_000 for i in range(6)]
    assert (decode_image_message(images[3]) == graph.image).all()
    assert infos[0] in next(bag.glob("*.mcap")).read_bytes()
    last = 10**9 + 250_000_000

    def clock():
        return [m.clock.sec * 10**9 + m.clock.nanosec for m in probe.heard["/clock"]]

    assert graph.wait(lambda: clock()[-1:] == [last])
    assert clock() == sorted(clock()) and len(clock()) > 6
    assert seen[-1] == pytest.approx(0.25)


def test_nobody_listening_is_said_with_the_remedy(graph, bag, capfd):
    graph.start()
    player = graph.add(Player(bag, rate=1.0, patience=0.2))
    assert not player.play(lambda _: None)
    assert "nobody subscribed to /camera/camera_info, /camera/image_raw" in capfd.readouterr().err


def test_a_player_that_is_halted_ends_at_once(graph, bag):
    graph.start()
    player, probe = graph.add(Player(bag, rate=0.001, patience=5.0)), graph.probe()
    probe.listen(Image, "/camera/image_raw")
    probe.listen(CameraInfo, "/camera/camera_info")
    assert not player.play(lambda _: player.halt())
    assert len(probe.heard["/camera/image_raw"]) <= 1


def test_what_is_no_bag_is_refused(graph, tmp_path):
    graph.start()
    (tmp_path / "metadata.yaml").write_text("nonsense")
    with pytest.raises(InputError, match="cannot read bag"):
        Player(tmp_path, 1.0, 1.0)
