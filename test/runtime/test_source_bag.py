# SPDX-License-Identifier: Apache-2.0
"""Bags are written here by rosbags, as a recorder would."""

import cv2
import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import R_BODY_OPTICAL, quaternion_from_rotation
from recon3d_ros.runtime.sources import open_source

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

STORE = typesys.get_typestore(typesys.Stores.LATEST)
T = STORE.types
W, H = 32, 24
START = 1_700_000_000_000_000_000
STEP = 100_000_000


def header(stamp, frame="camera_optical"):
    time = T["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return T["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def image(stamp, value=0, encoding="rgb8", frame="camera_optical", size=(W, H)):
    dtype, channels = {"rgb8": ("u1", 3), "mono8": ("u1", 1), "16UC1": ("<u2", 1), "h264": ("u1", 1)}[
        encoding
    ]
    pixels = np.full((size[1], size[0], channels), value, dtype)
    return T["sensor_msgs/msg/Image"](
        header=header(stamp, frame),
        height=size[1],
        width=size[0],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=pixels.view(np.uint8).ravel(),
    )


def compressed(stamp, value=0):
    data = cv2.imencode(".png", np.full((H, W, 3), value, np.uint8))[1].ravel()
    return T["sensor_msgs/msg/CompressedImage"](
        header=header(stamp), format="bgr8; png compressed bgr8", data=data
    )


def info(stamp, focal=30.0, size=(W, H), model="plumb_bob"):
    k = np.array([focal, 0, 16, 0, focal, 12, 0, 0, 1 if focal else 0], float)
    return T["sensor_msgs/msg/CameraInfo"](
        header=header(stamp),
        height=size[1],
        width=size[0],
        distortion_model=model,
        d=np.zeros(5) if model == "plumb_bob" else np.ones(5),
        k=k,
        r=np.eye(3).ravel(),
        p=np.array([focal + 5, 0, 16, 0, 0, focal + 5, 12, 0, 0, 0, 1, 0], float),
        binning_x=0,
        binning_y=0,
        roi=T["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def vector(name, *values):
    return T[f"geometry_msgs/msg/{name}"](**dict(zip("xyzw", map(float, values), strict=False)))


def odometry(stamp, x, child="base_link"):
    pose = T["geometry_msgs/msg/Pose"](
        position=vector("Point", x, 0, 0), orientation=vector("Quaternion", 0, 0, 0, 1)
    )
    twist = T["geometry_msgs/msg/Twist"](
        linear=vector("Vector3", 0, 0, 0), angular=vector("Vector3", 0, 0, 0)
    )
    return T["nav_msgs/msg/Odometry"](
        header=header(stamp, "odom"),
        child_frame_id=child,
        pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        twist=T["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=np.zeros(36)),
    )


def mounting():
    """/tf_static: the camera 0.2 m ahead of the body, with a link between."""
    q = quaternion_from_rotation(R_BODY_OPTICAL)
    links = [
        ("base_link", "camera_link", (0.2, 0, 0), (0, 0, 0, 1)),
        ("camera_link", "camera_optical", (0, 0, 0), q),
    ]
    return T["tf2_msgs/msg/TFMessage"](
        transforms=[
            T["geometry_msgs/msg/TransformStamped"](
                header=header(START, parent),
                child_frame_id=child,
                transform=T["geometry_msgs/msg/Transform"](
                    translation=vector("Vector3", *t), rotation=vector("Quaternion", *r)
                ),
            )
            for parent, child, t, r in links
        ]
    )


def write(path, topics, storage="mcap"):
    """topics: {name: [(log time, message or raw bytes with its type)]}."""
    plugin = {"mcap": rosbag2.StoragePlugin.MCAP, "sqlite3": rosbag2.StoragePlugin.SQLITE3}[storage]
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as writer:
        events = []
        for name, messages in topics.items():
            kind = messages[0][1].__msgtype__
            connection = writer.add_connection(name, kind, typestore=STORE)
            events += [(time, i, connection, message) for i, (time, message) in enumerate(messages)]
        for time, _, connection, message in sorted(events, key=lambda e: (e[0], e[2].topic, e[1])):
            data = (
                message if isinstance(message, bytes) else STORE.serialize_cdr(message, message.__msgtype__)
            )
            writer.write(connection, time, data)
    return path


def stamps(n=5):
    return [START + i * STEP for i in range(n)]


def images(make=image, n=5, **options):
    return [(t, make(t, 20 * i, **options)) for i, t in enumerate(stamps(n))]


def flight(**more):
    """A camera with its info, which comes late and once."""
    return {"/cam/image_raw": images(), "/cam/camera_info": [(START + 3 * STEP, info(START))], **more}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("single_file", [False, True])
def test_a_bag_gives_its_images_with_the_camera_from_the_first_frame_on(tmp_path, storage, single_file):
    path = write(tmp_path / "bag", flight(), storage)
    if single_file:
        path = next(f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
    source = open_source(path)
    assert (source.kind, source.length, source.has_depth) == ("rosbag2", 5, False)
    assert "/cam/image_raw (the only colour image topic)" in source.describe()
    for _ in range(2):
        frames = list(source)
        assert [f.stamp_ns for f in frames] == stamps()
        assert [int(f.image[0, 0, 0]) for f in frames] == [0, 20, 40, 60, 80]
        assert all(f.camera == Camera(W, H, 30.0, 30.0, 16.0, 12.0) for f in frames)
        assert frames[0].frame_id == "camera_optical"


def test_a_folder_without_metadata_is_read_by_its_only_file(tmp_path):
    path = write(tmp_path / "bag", flight())
    (path / "metadata.yaml").unlink()
    assert open_source(path).length == 5


def test_compressed_images_serve_and_raw_ones_go_before_them(tmp_path):
    path = write(tmp_path / "a", {"/cam/image_raw/compressed": images(compressed)})
    assert [int(f.image[0, 0, 0]) for f in open_source(path)] == [0, 20, 40, 60, 80]
    path = write(tmp_path / "b", flight(**{"/cam/image_raw/compressed": images(compressed)}))
    assert "on /cam/image_raw (" in open_source(path).describe()
    source = open_source(path, image_topic="/cam/image_raw/compressed")
    assert next(iter(source)).camera is not None


def test_a_base_topic_that_was_recorded_compressed_is_found(tmp_path):
    path = write(tmp_path / "bag", {"/cam/image_raw/compressed": images(compressed)})
    assert open_source(path, image_topic="cam/image_raw").length == 5


def test_the_colour_camera_is_chosen_among_grey_ones(tmp_path):
    path = write(tmp_path / "bag", flight(**{"/infra/image": images(encoding="mono8")}))
    assert "/cam/image_raw" in open_source(path).describe()


def test_several_or_no_image_topics_are_input_errors_that_list_what_is_there(tmp_path):
    path = write(tmp_path / "two", flight(**{"/other/image_raw": images()}))
    with pytest.raises(InputError, match=r"--image-topic: /cam/image_raw, /other/image_raw"):
        open_source(path)
    assert open_source(path, image_topic="/other/image_raw").length == 5
    with pytest.raises(InputError, match="no image topic /third"):
        open_source(path, image_topic="/third")
    path = write(tmp_path / "none", {"/cam/camera_info": [(START, info(START))]})
    with pytest.raises(InputError, match=r"/cam/camera_info \(sensor_msgs/msg/CameraInfo\)"):
        open_source(path)


def depth(offset=0, n=5, late=0, **options):
    return [(t + late, image(t + offset, 1000 + i, "16UC1", **options)) for i, t in enumerate(stamps(n))]


def test_depth_comes_with_its_image_also_when_recorded_later(tmp_path):
    topics = flight(**{"/cam/aligned_depth/image_raw": depth(offset=5_000_000, late=2 * STEP)})
    source = open_source(write(tmp_path / "bag", topics))
    assert source.has_depth
    frames = list(source)
    np.testing.assert_allclose([f.depth[0, 0] for f in frames], [1.0, 1.001, 1.002, 1.003, 1.004])
    assert all(f.depth_camera is None for f in frames)
    assert not open_source(tmp_path / "bag", depth_topic="none").has_depth


def test_depth_with_a_camera_of_its_own_keeps_it(tmp_path):
    own = info(START, 20.0, (16, 12))
    topics = flight(**{"/depth/image_rect_raw": depth(size=(16, 12)), "/depth/camera_info": [(START, own)]})
    frame = next(iter(open_source(write(tmp_path / "bag", topics))))
    # A rectified topic: the matrix is P.
    assert frame.depth_camera == Camera(16, 12, 25.0, 25.0, 16.0, 12.0)


def test_depth_with_the_same_camera_scaled_is_registered(tmp_path):
    half = Camera(W, H, 30.0, 30.0, 16.0, 12.0).resized(16, 12)
    own = info(START, half.fx, (16, 12))
    own.k[[2, 5]] = half.cx, half.cy
    topics = flight(**{"/depth/image": depth(size=(16, 12)), "/depth/camera_info": [(START, own)]})
    assert next(iter(open_source(write(tmp_path / "bag", topics)))).depth_camera is None


def test_of_several_depth_topics_the_registered_one_is_taken(tmp_path):
    topics = flight(
        **{"/cam/aligned_depth_to_color/image_raw": depth(), "/cam/depth/image_rect_raw": depth()}
    )
    path = write(tmp_path / "a", topics)
    assert "/cam/aligned_depth_to_color/image_raw (registered" in open_source(path).describe()
    path = write(tmp_path / "b", flight(**{"/a/depth": depth(), "/b/depth": depth()}))
    with pytest.raises(InputError, match=r"--depth-topic: /a/depth, /b/depth"):
        open_source(path)


def test_damaged_messages_are_counted_and_passed_over(tmp_path):
    topics = flight()
    broken = image(START + STEP, 20)
    broken.data = broken.data[:10]
    topics["/cam/image_raw"][1] = (START + STEP, broken)
    topics["/cam/image_raw"][3] = (START + 3 * STEP, b"\x00\x01\x00\x00\xff\xff")
    source = open_source(write(tmp_path / "bag", topics))
    assert [f.stamp_ns for f in source] == [stamps()[i] for i in (0, 2, 4)]
    assert sum(source.skipped.values()) == 2


def test_video_inside_image_messages_is_refused_with_a_hint(tmp_path):
    path = write(tmp_path / "bag", {"/cam/image_raw": images(encoding="h264")})
    with pytest.raises(InputError, match="let the driver decode"):
        open_source(path)


def test_a_stamp_never_filled_in_is_replaced_by_the_time_of_recording(tmp_path):
    path = write(tmp_path / "bag", {"/cam/image_raw": [(t, image(0)) for t in stamps()]})
    assert [f.stamp_ns for f in open_source(path)] == stamps()


def test_an_uncalibrated_or_missing_info_leaves_the_camera_open(tmp_path):
    topics = {"/cam/image_raw": images(), "/cam/camera_info": [(START, info(START, 0.0))]}
    source = open_source(write(tmp_path / "a", topics))
    assert next(iter(source)).camera is None
    assert "no camera known" in source.describe()
    assert next(iter(open_source(write(tmp_path / "b", {"/cam/image_raw": images()})))).camera is None


def test_an_unknown_distortion_model_is_an_input_error_unless_a_camera_is_given(tmp_path):
    topics = {"/cam/image_raw": images(), "/cam/camera_info": [(START, info(START, model="wavy"))]}
    path = write(tmp_path / "bag", topics)
    with pytest.raises(InputError, match="wavy"):
        open_source(path)
    given = Camera(2 * W, 2 * H, 40.0, 40.0, 32.0, 24.0)
    assert next(iter(open_source(path, camera=given))).camera == given.resized(W, H)


def test_odometry_becomes_the_pose_of_the_camera(tmp_path):
    # 40 ms off the images' stamps, between which it is interpolated.
    poses = [
        (t, odometry(t, (t - START) * 1e-9)) for t in range(START - 40_000_000, START + 6 * STEP, 50_000_000)
    ]
    topics = flight(**{"/odom": poses, "/tf_static": [(START, mounting())]})
    path = write(tmp_path / "bag", topics)
    assert all(f.prior is None for f in open_source(path))
    source = open_source(path, prior=True)
    for frame in source:
        np.testing.assert_allclose(
            frame.prior[:3, 3], [0.2 + (frame.stamp_ns - START) * 1e-9, 0, 0], atol=1e-9
        )
        np.testing.assert_allclose(frame.prior[:3, :3], R_BODY_OPTICAL, atol=1e-9)
    assert "/odom" in source.describe()


def test_odometry_of_a_body_that_is_not_linked_to_the_camera_is_an_input_error(tmp_path):
    topics = flight(**{"/odom": [(START, odometry(START, 0.0))]})
    with pytest.raises(InputError, match="record /tf_static"):
        open_source(write(tmp_path / "bag", topics), prior=True)
    with pytest.raises(InputError, match="no odometry"):
        open_source(write(tmp_path / "none", flight()), prior=True)


@pytest.mark.parametrize("name", ["cut.mcap", "cut.db3", "empty.mcap"])
def test_a_file_that_is_no_bag_is_an_input_error_of_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"\x89MCAP0\r\n broken" * 10)
    with pytest.raises(InputError, match="cannot read bag") as error:
        open_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_recording_that_broke_off_is_an_input_error_that_names_the_mend(tmp_path):
    path = write(tmp_path / "bag", flight())
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="mcap recover"):
        open_source(path)
