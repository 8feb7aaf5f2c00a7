# SPDX-License-Identifier: Apache-2.0
"""Sensors beside the camera: poses of several kinds, poses and moving cameras on /tf, gravity, GPS."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu, NavSatFix, NavSatStatus

from recon3d_ros.backends.scaled import ScaledReconstructor
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError, MissingDependency
from recon3d_ros.core.geometry import body_from_optical, inverse, pose, so3_exp
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header, odometry_message, pose_message, pose_stamped, transform_stamped
from recon3d_ros.ros.messages import TFMessage, vehicle_odometry_type

STEP = 50_000_000
T_BODY_CAM = body_from_optical() @ pose(np.eye(3), np.array([0.0, 0.1, 0.0]))


def moved(x, yaw=0.0):
    return pose(so3_exp(np.array([0.0, 0.0, yaw])), np.array([x, 2.0, 3.0]))


def mount(graph, probe, node, T=T_BODY_CAM, parent="base_link"):
    """Says where the camera sits, until the node knows."""
    statics = probe.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
    statics.publish(TFMessage(transforms=[transform_stamped(T, 0, parent, "cam")]))
    assert graph.wait(lambda: node._aiding.transforms.lookup(parent, "cam") is not None)


def is_known(node, target, source, T):
    known = node._aiding.transforms.lookup(target, source)
    return known is not None and np.allclose(known, T)


def with_covariance(T, stamp):
    message = PoseWithCovarianceStamped(header=header(stamp, "map"))
    message.pose.pose = pose_message(T)
    return message


@pytest.mark.parametrize(
    "kind, message",
    [
        (PoseStamped, lambda T, stamp: pose_stamped(T, stamp, "map")),
        (PoseWithCovarianceStamped, with_covariance),
        (Odometry, lambda T, stamp: odometry_message(T, stamp, "odom", "")),
    ],
)
def test_poses_that_do_not_name_their_body_are_those_of_base_link(graph, start, kind, message):
    probe, node, frames = start("-p", "prior:=true", "-r", "odom:=/mavros/local_position/pose")
    poses = probe.create_publisher(kind, "/mavros/local_position/pose", qos_profile_sensor_data)
    mount(graph, probe, node)
    assert graph.wait(lambda: probe.connected(poses))
    probe.send_info()
    for stamp, x in ((STEP - 10_000_000, 1.0), (STEP + 10_000_000, 2.0)):
        poses.publish(message(moved(x), stamp))
    assert graph.wait(lambda: len(node._aiding.prior.poses) == 2)
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert np.allclose(frames[0].prior, moved(1.5) @ T_BODY_CAM)


def test_a_topic_of_another_type_is_no_odometry_and_nothing_breaks(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    others = probe.create_publisher(Imu, "odom", qos.PLAYED)
    assert graph.wait(probe.connected)
    probe.send_info()
    others.publish(Imu())
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].prior is None and node._aiding.counts["no odometry"] == 1
    assert others.get_subscription_count() == 0


def test_without_odometry_the_topics_that_could_be_it_are_named(graph, start, capfd):
    probe, _node, _frames = start("-p", "prior:=true", "-p", "input.wait:=0.2")
    probe.create_publisher(Odometry, "/vio/odometry", qos.PLAYED)
    said = []
    assert graph.wait(
        lambda: said.append(capfd.readouterr().err) or "-r odom:=/vio/odometry" in "".join(said)
    )
    assert "/reconstructor" not in "".join(said).partition("choose a topic with")[2].partition("\n")[0]


@pytest.fixture
def px4(graph, start):
    """A node that hears the odometry of PX4; gives what publishes it."""
    try:
        vehicle_odometry = vehicle_odometry_type()
    except MissingDependency as error:
        pytest.skip(str(error))
    topic = "/fmu/out/vehicle_odometry"
    probe, node, frames = start("-p", "prior:=true", "-r", f"odom:={topic}")
    publisher = probe.create_publisher(vehicle_odometry, topic, qos_profile_sensor_data)
    mount(graph, probe, node)
    assert graph.wait(lambda: probe.connected(publisher))

    def send(stamp_us, **changes):
        values = {"pose_frame": 1, "position": [3.0, 4.0, -10.0], "q": [1.0, 0.0, 0.0, 0.0]} | changes
        publisher.publish(vehicle_odometry(timestamp=stamp_us, timestamp_sample=stamp_us, **values))

    return probe, node, frames, send


def test_odometry_of_px4_is_turned_and_put_at_the_time_it_arrived(graph, px4):
    probe, node, frames, send = px4
    before = node.get_clock().now().nanoseconds
    send(5_000_000)
    assert graph.wait(lambda: len(node._aiding.prior.poses))
    after = node.get_clock().now().nanoseconds
    stamp, T = node._aiding.prior.poses.newest()
    assert before <= stamp <= after
    probe.send_info()
    probe.send_image(stamp)
    assert graph.wait(lambda: frames)
    assert np.allclose(frames[0].prior, T @ T_BODY_CAM) and np.allclose(T[:3, 3], (4.0, 3.0, 10.0))
    assert np.allclose(T[:3, 0], (0.0, 1.0, 0.0))  # looks north


def test_what_px4_does_not_know_is_counted_and_a_reset_forgets_what_was(graph, px4):
    _probe, node, _frames, send = px4
    prior, counts = node._aiding.prior, node._aiding.prior.counts
    send(5_000_000, reset_counter=7)
    assert graph.wait(lambda: len(prior.poses) == 1)
    send(5_010_000, reset_counter=7, position=[float("nan"), 0.0, 0.0])
    send(5_020_000, reset_counter=7, q=[float("nan"), 0.0, 0.0, 0.0])
    send(5_030_000, reset_counter=7, pose_frame=0)
    assert graph.wait(lambda: counts["odometry invalid"] == 2 and counts["odometry frame"] == 1)
    assert not counts["odometry before a reset"]
    send(5_500_000, reset_counter=8, position=[0.0, 0.0, 0.0])
    assert graph.wait(lambda: counts["odometry before a reset"] == 1)
    assert graph.wait(lambda: len(prior.poses) == 1)
    assert np.allclose(prior.poses.newest()[1][:3, 3], 0.0)


def test_without_odometry_the_prior_is_looked_up_on_tf_at_the_stamp_of_the_image(graph, start):
    probe, node, frames = start(
        "-p", "prior:=true", "-p", "input.prior_frame:=odom", "-p", "frames.base:=base_link"
    )
    transforms = probe.create_publisher(TFMessage, "/tf", qos.TF)
    probe.listen(TFMessage, "/tf", qos.TF)
    mount(graph, probe, node)
    assert graph.wait(lambda: probe.connected(transforms) and transforms.get_subscription_count() == 2)
    probe.send_info()
    probe.send_image(STEP)  # nothing is known yet: no prior, and no odom -> base_link of our own
    assert graph.wait(lambda: frames)
    for stamp, x, yaw in ((2 * STEP, 1.0, 0.0), (4 * STEP, 2.0, 0.6)):
        link = transform_stamped(moved(x, yaw), stamp, "odom", "base_link")
        transforms.publish(TFMessage(transforms=[link]))
    assert graph.wait(lambda: is_known(node, "odom", "base_link", moved(2.0, 0.6)))
    probe.send_image(3 * STEP)
    assert graph.wait(lambda: len(frames) == 2)
    assert frames[0].prior is None and node._aiding.counts["no transform from prior_frame"] == 1
    assert np.allclose(frames[1].prior, moved(1.5, 0.3) @ T_BODY_CAM)

    def parents():
        return [link.header.frame_id for message in list(probe.heard["/tf"]) for link in message.transforms]

    assert graph.wait(lambda: parents().count("map") == 2)
    assert parents().count("odom") == 2  # those sent above


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("-p", "input.prior_frame:=odom"), "prior:=true"),
        (("-p", "prior:=true", "-p", "input.prior_frame:=map"), "must not be frames.map"),
        (("-p", "input.camera:=/nowhere.yaml"), "cannot read camera file /nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_at_configure(start, arguments, reason):
    with pytest.raises(InputError, match=reason) as error:
        start(*arguments)
    assert "\n" not in str(error.value)


def test_a_camera_on_a_gimbal_is_where_tf_says_at_the_stamp_of_the_image(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    transforms = probe.create_publisher(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: probe.connected(odometry) and transforms.get_subscription_count())
    probe.send_info()

    def tilt(angle):
        return pose(so3_exp(np.array([0.0, angle, 0.0])), np.array([0.2, 0.0, -0.1])) @ body_from_optical()

    odometry.publish(odometry_message(moved(1.0), STEP, "odom", "base_link"))
    for stamp, angle in ((STEP - 40_000_000, 0.2), (STEP + 40_000_000, 0.6)):
        link = transform_stamped(tilt(angle), stamp, "base_link", "cam")
        transforms.publish(TFMessage(transforms=[link]))
    assert graph.wait(lambda: len(node._aiding.prior.poses) == 1)
    assert graph.wait(lambda: is_known(node, "base_link", "cam", tilt(0.6)))
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert np.allclose(frames[0].prior, moved(1.0) @ tilt(0.4))


def test_what_the_node_publishes_on_tf_does_not_come_back_as_knowledge(graph, start):
    probe, node, frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    transforms = probe.create_publisher(TFMessage, "/tf", qos.TF)
    assert graph.wait(lambda: probe.connected(odometry) and transforms.get_subscription_count())
    # The flight stack has odom -> base_link there, and without a prior this node has odom -> cam.
    transforms.publish(TFMessage(transforms=[transform_stamped(moved(1.0), STEP, "odom", "base_link")]))
    transforms.publish(TFMessage(transforms=[transform_stamped(moved(1.0), STEP, "odom", "cam")]))
    probe.send_info()
    odometry.publish(odometry_message(moved(1.0), STEP, "odom", "base_link"))
    assert graph.wait(lambda: len(node._aiding.prior.poses))
    for i in (1, 2):
        probe.send_image(i * STEP)
        assert graph.wait(lambda: len(frames) == i)  # noqa: B023
    assert frames[1].prior is None and node._aiding.counts["odometry without transform"] == 2


def imu(stamp, force=(0.0, 0.0, 9.81), frame="imu_link"):
    message = Imu(header=header(stamp, frame))
    message.linear_acceleration.x, message.linear_acceleration.y, message.linear_acceleration.z = force
    message.orientation_covariance[0] = -1.0
    return message


def rest(graph, probe, node, count, step):
    """Readings of an IMU that does not move, from STEP on; a few at a time, since best effort may lose some of many."""
    publisher, readings = probe.create_publisher(Imu, "imu", qos.PLAYED), node._aiding._gravity.readings
    assert graph.wait(lambda: probe.connected(publisher))
    for i in range(count):
        publisher.publish(imu(STEP + i * step))
        assert i % 20 or graph.wait(lambda: len(readings) == i + 1)  # noqa: B023
    assert graph.wait(lambda: len(readings) == count)


def test_the_imu_gives_gravity_in_the_axes_of_the_camera(graph, start):
    probe, node, frames = start()
    # The camera looks straight down on an airframe that is level: against gravity is against its viewing direction.
    T = pose(so3_exp(np.array([np.pi, 0.0, 0.0])), np.zeros(3))
    mount(graph, probe, node, T, "imu_link")
    rest(graph, probe, node, 120, 10_000_000)
    gravity = node._aiding._gravity
    probe.send_info()
    probe.send_image(STEP + 1_190_000_000)
    assert graph.wait(lambda: frames)
    assert np.allclose(frames[0].up, (0.0, 0.0, -1.0), atol=1e-6) and not gravity.counts


def test_an_imu_that_nothing_links_to_the_camera_is_not_used(graph, start):
    probe, node, frames = start()
    broken = imu(2 * STEP, force=(float("nan"), 0.0, 0.0))
    readings = probe.create_publisher(Imu, "imu", qos.PLAYED)
    assert graph.wait(lambda: probe.connected(readings))
    for message in (imu(STEP), imu(STEP), imu(0), broken):
        readings.publish(message)
    gravity = node._aiding._gravity
    assert graph.wait(
        lambda: gravity.counts == {"imu backwards": 1, "imu without stamp": 1, "imu invalid": 1}
    )
    probe.send_info()
    probe.send_image(STEP)
    assert graph.wait(lambda: frames)
    assert frames[0].up is None and gravity.counts["imu without transform"] == 1


def test_gps_becomes_metres_from_the_first_fix_at_the_stamp_of_the_image(graph, start):
    probe, node, frames = start()
    fixes = probe.create_publisher(NavSatFix, "fix", qos_profile_sensor_data)
    assert graph.wait(lambda: probe.connected(fixes))
    probe.send_info()

    def send(stamp, status=NavSatStatus.STATUS_FIX, latitude=47.0, altitude=400.0):
        message = NavSatFix(latitude=latitude, longitude=8.0, altitude=altitude, header=header(stamp, "gps"))
        message.status.status = status
        fixes.publish(message)

    send(STEP, NavSatStatus.STATUS_NO_FIX)
    send(STEP, latitude=float("nan"))
    send(STEP)
    send(5 * STEP, altitude=404.0)
    position = node._aiding._position
    assert graph.wait(lambda: len(position.positions) == 2)
    probe.send_image(3 * STEP)
    probe.send_image(6 * STEP)
    probe.send_image(20 * STEP)
    assert graph.wait(lambda: len(frames) == 3)
    assert position.counts == {"no fix": 2}
    assert np.allclose(frames[0].position, (0.0, 0.0, 2.0), atol=1e-6)
    assert np.allclose(frames[1].position, (0.0, 0.0, 5.0), atol=1e-6)
    assert frames[2].position is None


def test_a_node_that_is_active_again_listens_again(graph, start):
    probe, node, _frames = start("-p", "prior:=true")
    odometry = probe.create_publisher(Odometry, "odom", qos.PLAYED)
    assert graph.wait(odometry.get_subscription_count)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        assert probe.transition("/reconstructor", transition)
        assert graph.wait(lambda: odometry.get_subscription_count() == node.is_active)
    odometry.publish(odometry_message(moved(1.0), STEP, "odom", "base_link"))
    assert graph.wait(lambda: len(node._aiding.prior.poses))


def test_sensors_that_are_switched_off_are_not_listened_to(graph, start):
    probe, _node, _frames = start("-p", "scale.gps:=false", "-p", "scale.imu:=false")
    others = [
        probe.create_publisher(kind, topic, qos.PLAYED)
        for kind, topic in ((NavSatFix, "fix"), (Imu, "imu"), (Odometry, "odom"))
    ]
    assert graph.wait(probe.connected)
    assert not any(publisher.get_subscription_count() for publisher in others)


def test_a_map_is_level_once_the_imu_has_said_where_up_is(graph):
    graph.start("-p", "backend:=geometric")
    probe = graph.probe()
    # The camera rolls to the left by 0.2 rad: its map, begun by what it sees, is tilted by that.
    T_cam_imu = inverse(pose(so3_exp(np.array([0.2, 0.0, 0.0])), np.zeros(3)) @ body_from_optical())
    scaled = ScaledReconstructor(graph.backend(), Config())
    node = graph.add(ReconstructorNode(create=lambda *_: scaled))
    mount(graph, probe, node, inverse(T_cam_imu), "imu_link")
    rest(graph, probe, node, 280, 50_000_000)
    probe.send_info()
    for i in range(1, 14):
        probe.send_image(i * 1_000_000_000)
        assert graph.wait(lambda: node.run.state().frames == i)  # noqa: B023
    assert node.run.state().gravity == "imu"
    T_map_cam = scaled.poses()[12]
    assert np.allclose(T_map_cam[:3, :3] @ T_cam_imu[:3, :3] @ (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), atol=1e-6)
