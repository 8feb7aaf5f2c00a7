# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402
"""Real nodes on real DDS inside the test process, a camera to feed them, and a backend that costs nothing."""

import os
import threading
import time
from collections import defaultdict

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("recon3d_ros.msg")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError
from recon3d_ros.core.geometry import body_from_optical, pose
from recon3d_ros.core.types import Tracking, Update
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import byte_array, header
from recon3d_ros.ros.environment import check_environment
from recon3d_ros.store.files import SHM

CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
IMAGE = np.full((24, 32, 3), (10, 20, 30), np.uint8)


class Sideways:
    """A backend that moves a tenth of a unit sideways a frame and makes every third frame a keyframe of a wall at 2."""

    capabilities = Capabilities()

    def __init__(self, config=None, delay=0.0, corrections=False):
        self.delay = delay
        self.corrections = corrections
        self.reset()

    def reset(self):
        self.count = 0

    def step(self, frame):
        if frame.image.shape != IMAGE.shape:
            raise FrameError("image size", "another size")
        time.sleep(self.delay)
        index, self.count = self.count, self.count + 1
        keyframe = index % 3 == 0
        return [
            Update(
                index,
                frame.stamp_ns,
                self.poses()[index],
                Tracking.TRACKING,
                is_keyframe=keyframe,
                reason="flow" if keyframe else "",
                camera=CAMERA if keyframe else None,
                depth=np.full((24, 32), 2.0, np.float32) if keyframe else None,
                colours=IMAGE if keyframe else None,
                corrections={0: self.poses()[0]} if self.corrections and index == 3 else {},
            )
        ]

    def finish(self):
        return []

    def poses(self):
        step = pose(np.eye(3), np.array([0.1, 0.0, 0.0]))
        T, out = body_from_optical(), {}
        for i in range(self.count):
            out[i] = T
            T = T @ step
        return out

    def saved(self):
        return 0, {"next_index": np.array(self.count)}

    def resume(self, arrays):
        self.count = int(arrays["next_index"])

    def statistics(self):
        return {}

    def close(self):
        pass


class Graph:
    """ROS in this process: nodes spin in the background until the end of the test."""

    backend = Sideways
    image = IMAGE
    camera = CAMERA

    def __init__(self):
        self.nodes = []
        self.executor = None

    def start(self, *ros_args):
        check_environment()
        rclpy.init(args=["test", "--ros-args", *ros_args] if ros_args else ["test"])
        self.executor = SingleThreadedExecutor()
        self.ended = Future()
        self.thread = threading.Thread(target=self.executor.spin_until_future_complete, args=(self.ended,))
        self.thread.start()

    def add(self, node):
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def probe(self, namespace=""):
        return self.add(Probe(namespace))

    @staticmethod
    def wait(condition, seconds=60.0):
        """True as soon as `condition()` is."""
        return wait_until(condition, seconds)

    def stop(self):
        if self.executor is None:
            return
        self.ended.set_result(None)
        self.thread.join()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown()


class Probe(Node):
    """Publishes what a camera would, and keeps what it hears."""

    def __init__(self, namespace=""):
        super().__init__("probe", namespace=namespace, use_global_arguments=False)
        self.heard = defaultdict(list)
        self.images = self.create_publisher(Image, "image", qos.PLAYED_IMAGES)
        self.infos = self.create_publisher(CameraInfo, "camera_info", qos.PLAYED)

    def listen(self, message, topic, profile=qos.PLAYED, raw=False):
        self.create_subscription(message, topic, self.heard[topic].append, profile, raw=raw)

    def connected(self, *publishers):
        """True once image, camera_info and the given publishers have a subscriber: what is sent before that is lost."""
        return all(p.get_subscription_count() for p in (self.images, self.infos, *publishers))

    def send_info(self, k=(30.0, 0.0, 15.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0)):
        self.infos.publish(CameraInfo(width=32, height=24, k=list(k), distortion_model="plumb_bob"))

    def send_image(self, stamp_ns, image=IMAGE, **changes):
        height, width = image.shape[:2]
        message = Image(header=header(stamp_ns, "cam"), height=height, width=width, encoding="rgb8")
        message.step, message.data = 3 * width, byte_array(image)
        for name, value in changes.items():
            setattr(message, name, value)
        self.images.publish(message)

    def leave(self, publisher):
        """Stop publishing. The executor does it itself: what vanishes under its hands ends its thread."""
        task = self.executor.create_task(self.destroy_publisher, publisher)
        assert wait_until(task.done)

    def transition(self, name, *transitions):
        """Lead a node through transitions of its life, as a manager does; True when all succeed."""
        asked = [ChangeState.Request(transition=Transition(id=number)) for number in transitions]
        return all(self.call(ChangeState, f"{name}/change_state", request).success for request in asked)

    def call(self, service, name, request):
        client = self.create_client(service, name)
        assert client.wait_for_service(5.0)
        future = client.call_async(request)
        wait_until(future.done)
        return future.result()


def wait_until(condition, seconds=10.0):
    """True as soon as `condition()` is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


@pytest.fixture
def graph():
    graph = Graph()
    yield graph
    graph.stop()


@pytest.fixture
def segments():
    """Gives the names of the files in shared memory that a process made."""
    return lambda pid: {name for name in os.listdir(SHM) if name.startswith(f"recon3d_{pid}_")}


@pytest.fixture
def start(graph):
    """Starts a node whose backend keeps the frames it gets."""

    def start(*args, backend="geometric", needs_depth=False):
        frames = []

        class Watching(graph.backend):
            capabilities = Capabilities(needs_depth=needs_depth)

            def step(self, frame):
                frames.append(frame)
                return super().step(frame)

        graph.start("-p", f"backend:={backend}", *args)
        probe = graph.probe()
        return probe, graph.add(ReconstructorNode(create=lambda *_: Watching())), frames

    return start
