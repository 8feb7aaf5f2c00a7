# SPDX-License-Identifier: Apache-2.0
"""The reconstructor on real topics: what goes out, what is counted, what is said when nothing comes."""

import dataclasses

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

from recon3d_ros.core.geometry import R_BODY_OPTICAL, pose
from recon3d_ros.core.messages import pose_from_message, stamp_ns
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import transform_stamped
from recon3d_ros.ros.messages import Keyframe, Status, TFMessage

STEP = 50_000_000


@pytest.fixture
def start(graph):
    def start(*args, **options):
        graph.start("-p", "backend:=geometric", *args)
        probe = graph.probe()
        create = options.pop("create", lambda *_: graph.backend())
        node = graph.add(ReconstructorNode(create=create, **options))
        assert graph.wait(probe.connected)
        return probe, node

    return start


def fly(graph, probe, node, count, first=1):
    """Send `count` images and wait for their poses."""
    before = node.run.state().frames
    for i in range(first, first + count):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: node.run.state().frames == before + count)


def test_images_become_poses_transforms_keyframes_and_clouds(graph, start):
    probe, node = start()
    for message, topic in (
        (PoseStamped, "reconstructor/pose"),
        (Odometry, "reconstructor/odometry"),
        (TFMessage, "/tf"),
        (PointCloud2, "reconstructor/cloud"),
        (Keyframe, "reconstructor/keyframe"),
        (Status, "reconstructor/status"),
    ):
        probe.listen(message, topic)
    assert graph.wait(lambda: node.count_subscribers("/tf") == 1)
    probe.send_info()
    fly(graph, probe, node, 4)
    counts = {"/tf": 4, "pose": 4, "odometry": 4, "keyframe": 2, "cloud": 2}
    topics = {name if name == "/tf" else f"reconstructor/{name}": n for name, n in counts.items()}
    assert graph.wait(lambda: all(len(probe.heard[topic]) == n for topic, n in topics.items()))
    assert [stamp_ns(m) for m in probe.heard["reconstructor/pose"]] == [STEP, 2 * STEP, 3 * STEP, 4 * STEP]
    last = probe.heard["reconstructor/pose"][-1]
    assert last.header.frame_id == "map"
    assert np.allclose(pose_from_message(last.pose)[:3, 3], R_BODY_OPTICAL @ (0.3, 0, 0))
    links = [(t.header.frame_id, t.child_frame_id, stamp_ns(t)) for t in probe.heard["/tf"][0].transforms]
    assert links == [("map", "odom", STEP), ("odom", "cam", STEP)]
    assert probe.heard["reconstructor/odometry"][0].child_frame_id == "cam"
    cloud = probe.heard["reconstructor/cloud"][0]
    assert cloud.header.frame_id == "map" and cloud.width == 12 * 16  # stride 2
    notice = probe.heard["reconstructor/keyframe"][1]
    assert (notice.id, notice.sequence, notice.point_count) == (3, 1, 24 * 32)
    assert notice.shm_name and list(notice.intrinsics) == [30.0, 30.0, 15.5, 11.5]
    assert graph.wait(
        lambda: any(s.frames == 4 and s.tracked == 4 for s in probe.heard["reconstructor/status"])
    )
    assert node.outputs.published["/tf"] == 4


def test_images_wait_for_the_camera_info_and_none_is_lost(graph, start):
    probe, node = start()
    for i in range(1, 6):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: node.input.received == 5)
    assert node.run.state().frames == 0
    probe.send_info()
    assert graph.wait(lambda: node.run.state().frames == 5)
    assert not node.input.counts


def test_without_camera_info_the_node_names_the_topics_it_waits_for(graph, start):
    probe, node = start("-p", "input.wait:=0.3", "-p", "input.queue:=2")
    probe.leave(probe.infos)
    for i in range(1, 5):
        probe.send_image(i * STEP)
    # It says nothing for as long as something arrived a moment ago.
    assert graph.wait(lambda: "did not receive" in (node.input.silence() or ""))
    assert graph.wait(lambda: node.input.counts["no camera_info"] == 2)
    assert graph.wait(lambda: "/camera_info: no publisher" in (node.input.silence() or ""))
    publisher = "/image: /probe (sensor_msgs/msg/Image, reliable, volatile)"
    assert graph.wait(lambda: publisher in (node.input.silence() or ""))


def test_garbage_is_counted_and_the_flight_goes_on(graph, start):
    probe, node = start()
    nan = float("nan")
    probe.send_info(k=(nan, 0.0, 15.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0))
    probe.send_info()
    probe.send_image(0)
    probe.send_image(1 * STEP, encoding="h264")
    probe.send_image(2 * STEP, step=7)
    probe.send_image(3 * STEP, image=np.zeros((10, 10, 3), np.uint8))
    probe.send_image(4 * STEP)
    probe.send_image(4 * STEP)
    probe.send_image(3 * STEP)
    probe.send_image(5 * STEP)
    assert graph.wait(lambda: node.run.state().frames == 2)
    assert node.input.counts == {"camera_info invalid": 1, "image without stamp": 1}
    assert node.run.drops.keys() >= {
        "encoding",
        "damaged message",
        "image size",
        "stamp repeated",
        "stamp backwards",
    }


def test_a_backend_that_is_too_slow_costs_the_oldest_frames_and_they_are_counted(graph, start):
    probe, node = start("-p", "input.queue:=2", create=lambda *_: graph.backend(delay=0.2))
    probe.send_info()
    for i in range(1, 9):
        probe.send_image(i * STEP)
    assert graph.wait(lambda: node.run.drops["worker behind"] + node.run.state().frames == 8)
    assert node.run.drops["worker behind"] >= 4
    assert node.run.pipeline.trajectory().stamps_ns[-1] == 8 * STEP


def test_the_body_frame_needs_its_transform_and_is_never_taken_for_the_camera(graph, start):
    probe, node = start("-p", "frames.base:=base_link")
    probe.listen(TFMessage, "/tf")
    statics = probe.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
    assert graph.wait(lambda: node.count_subscribers("/tf") == 2)  # its own, too
    probe.send_info()
    fly(graph, probe, node, 2)
    assert node.outputs.published["/tf"] == 0
    T_base_cam = pose(R_BODY_OPTICAL, np.array([0.1, 0.0, -0.05]))
    statics.publish(TFMessage(transforms=[transform_stamped(T_base_cam, 0, "base_link", "cam")]))
    assert graph.wait(lambda: node._aiding.transforms.lookup("base_link", "cam") is not None)
    fly(graph, probe, node, 1, first=3)
    assert graph.wait(lambda: probe.heard["/tf"])
    T_map_odom, T_odom_base = (pose_from_message(t.transform) for t in probe.heard["/tf"][0].transforms)
    T_map_cam = node.run.pipeline.trajectory().poses[-1]
    assert np.allclose(T_map_odom @ T_odom_base @ T_base_cam, T_map_cam)


def test_reset_pause_and_save(graph, start, tmp_path):
    probe, node = start("-p", f"output:={tmp_path}")
    probe.listen(Keyframe, "reconstructor/keyframe")
    probe.listen(Path, "reconstructor/path", qos.LATCHED)
    assert graph.wait(lambda: node.count_subscribers("/reconstructor/keyframe") == 1)
    probe.send_info()
    fly(graph, probe, node, 4)
    assert probe.call(Trigger, "/reconstructor/save_map", Trigger.Request()).success
    assert (tmp_path / "trajectory.txt").read_text().count("\n") == 5
    assert probe.call(Trigger, "/reconstructor/reset", Trigger.Request()).success
    assert graph.wait(lambda: probe.heard["reconstructor/keyframe"][-1].action == Keyframe.REMOVE)
    assert probe.heard["reconstructor/keyframe"][-1].sequence == 0
    fly(graph, probe, node, 1, first=1)
    assert probe.call(SetBool, "/reconstructor/pause", SetBool.Request(data=True)).success
    probe.send_image(9 * STEP)
    assert graph.wait(lambda: node._counts["paused"] == 1)
    assert node.run.state().frames == 1
    assert graph.wait(lambda: probe.heard["reconstructor/path"])


def test_keyframes_that_come_all_at_once_at_the_end_are_all_announced(graph, start):
    class Late(graph.backend):
        def step(self, frame):
            (update,) = super().step(frame)
            seen = {
                "depth": np.full((24, 32), 2.0, np.float32),
                "camera": graph.camera,
                "colours": graph.image,
            }
            self.owed.append(dataclasses.replace(update, is_keyframe=True, revises=True, **seen))
            return [dataclasses.replace(update, is_keyframe=False, depth=None, camera=None, colours=None)]

        def reset(self):
            super().reset()
            self.owed = []

        def finish(self):
            return self.owed

    probe, node = start(create=lambda *_: Late())
    probe.listen(Keyframe, "reconstructor/keyframe", qos.NOTICES)
    assert graph.wait(lambda: node.count_subscribers("/reconstructor/keyframe") == 1)
    probe.send_info()
    for i in range(1, 13):
        fly(graph, probe, node, 1, first=i)
    node.finish()
    assert graph.wait(lambda: [m.id for m in probe.heard["reconstructor/keyframe"]] == list(range(12)))


def test_corrections_are_announced(graph, start):
    probe, node = start(create=lambda *_: graph.backend(corrections=True))
    probe.listen(Keyframe, "reconstructor/keyframe")
    assert graph.wait(lambda: node.count_subscribers("/reconstructor/keyframe") == 1)
    probe.send_info()
    fly(graph, probe, node, 4)
    assert graph.wait(lambda: len(probe.heard["reconstructor/keyframe"]) == 3)
    actions = [(m.action, m.id) for m in probe.heard["reconstructor/keyframe"]]
    assert actions == [(Keyframe.ADD, 0), (Keyframe.UPDATE, 0), (Keyframe.ADD, 3)]
