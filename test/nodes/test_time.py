# SPDX-License-Identifier: Apache-2.0
"""Time that goes back: what each policy keeps, what of the time before still arrives, and a bag played five times."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rosgraph_msgs.msg import Clock

from recon3d_ros.core.geometry import pose
from recon3d_ros.core.messages import stamp_ns
from recon3d_ros.core.trajectory import read_tum
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.nodes.replay import Player
from recon3d_ros.ros import qos
from recon3d_ros.ros.convert import header, transform_stamped
from recon3d_ros.ros.messages import Keyframe, TFMessage
from recon3d_ros.runtime.bag_writer import write_bag
from recon3d_ros.runtime.results import save
from recon3d_ros.synth.flight import FlightOptions, SyntheticFlight, camera_of

STEP = 50_000_000
START = 100 * 10**9
LOOPS = 5


class Setup:
    """Reconstructor and mesher in one process, on the time of the probe."""

    def __init__(self, graph, policy, *args, create=None):
        graph.start(
            "-p", "backend:=geometric", "-p", "use_sim_time:=true", "-p", f"on_time_jump:={policy}",
            "-p", "mesh.voxel_size:=0.05", *args,
        )  # fmt: skip
        self.graph, self.probe = graph, graph.probe()
        self.mesher = graph.add(MesherNode(follow=False))
        self.node = graph.add(ReconstructorNode(self.mesher, create=create or (lambda *_: graph.backend())))
        self.clock = self.probe.create_publisher(Clock, "/clock", qos.CLOCK)
        assert graph.wait(lambda: self.probe.connected(self.clock))
        self.set_time(START)
        self.probe.send_info()

    def set_time(self, now_ns):
        """Tick until the node has heard of it."""

        def told():
            self.clock.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))
            return self.node.get_clock().now().nanoseconds == now_ns

        assert self.graph.wait(told)

    def fly(self, count=4):
        """Images at START, START + STEP, ..., until all of them are answered."""
        before = sum(self.node.run.pipeline.metrics.drops.values()) + len(self.node.run.latency_ms)
        for i in range(count):
            self.probe.send_image(START + i * STEP)
        self.until(lambda: len(self.node.run.latency_ms) == before + count)

    def until(self, condition):
        assert self.graph.wait(condition)

    def jump(self):
        """The clock goes on by ten seconds, and back to the start."""
        jumps = self.node._jumps.count
        self.set_time(START + 10 * 10**9)
        self.set_time(START)
        self.until(lambda: self.node._jumps.count == jumps + 1)


def test_reset_forgets_the_map_and_begins_anew(graph):
    setup = Setup(graph, "reset")
    setup.fly()
    setup.until(lambda: setup.mesher.loop.mesher.keyframes == 2)
    setup.jump()
    setup.until(lambda: setup.node.run.state().frames == 0 and setup.mesher.loop.mesher.keyframes == 0)
    setup.fly()
    state = setup.node.run.state()
    assert (state.frames, state.keyframes) == (4, 2)
    assert list(setup.node.run.pipeline.trajectories()) == [0]
    assert not setup.node.run.drops


def test_continue_keeps_the_map_and_accepts_the_stamps_once_more(graph, tmp_path):
    setup = Setup(graph, "continue")
    for message, topic in ((PoseStamped, "reconstructor/pose"), (TFMessage, "/tf")):
        setup.probe.listen(message, topic)
    setup.probe.listen(Path, "reconstructor/path", qos.LATCHED)
    setup.until(
        lambda: all(
            setup.node.count_subscribers(t) for t in ("/tf", "/reconstructor/pose", "/reconstructor/path")
        )
    )
    setup.fly()
    setup.jump()
    setup.fly()
    setup.until(lambda: setup.mesher.loop.mesher.keyframes == 3)
    pipeline, state = setup.node.run.pipeline, setup.node.run.state()
    assert (state.frames, list(pipeline.keyframes)) == (8, [0, 3, 6]) and not setup.node.run.drops
    setup.until(lambda: all(len(setup.probe.heard[t]) == 8 for t in ("/tf", "reconstructor/pose")))
    stamps = [stamp_ns(m) for m in setup.probe.heard["reconstructor/pose"]]
    assert stamps == 2 * [START + i * STEP for i in range(4)]
    setup.until(lambda: [len(m.poses) for m in setup.probe.heard["reconstructor/path"][-1:]] == [8])
    assert save(setup.node.results(), tmp_path) == []
    saved = read_tum(tmp_path / "trajectory.txt")
    assert saved.stamps_ns.tolist() == stamps[4:]
    assert np.allclose(saved.poses, [pipeline.poses()[i] for i in range(4, 8)])
    positions = [line.split(",")[4:] for line in (tmp_path / "keyframes.csv").read_text().splitlines()[1:]]
    assert np.allclose(np.array(positions, float), [pipeline.poses()[i][:3, 3] for i in (0, 3, 6)], atol=1e-5)


def test_new_map_keeps_the_maps_so_far_and_glues_nothing(graph, tmp_path):
    setup = Setup(graph, "new_map")
    setup.probe.listen(Keyframe, "reconstructor/keyframe")
    setup.until(lambda: setup.node.count_subscribers("/reconstructor/keyframe") == 1)
    setup.fly()
    setup.until(lambda: setup.mesher.loop.mesher.keyframes == 2)
    setup.jump()
    setup.until(lambda: setup.mesher.loop.mesher.keyframes == 0)
    setup.fly(5)
    setup.until(lambda: setup.mesher.loop.mesher.keyframes == 2)
    setup.until(lambda: len(setup.probe.heard["reconstructor/keyframe"]) == 5)
    notices = [(m.action, m.id, m.sequence) for m in setup.probe.heard["reconstructor/keyframe"]]
    assert notices == [
        (Keyframe.ADD, 0, 0), (Keyframe.ADD, 3, 1),
        (Keyframe.REMOVE, 0, 0), (Keyframe.ADD, 4, 1), (Keyframe.ADD, 7, 2),
    ]  # fmt: skip
    assert {n: len(t) for n, t in setup.node.run.pipeline.trajectories().items()} == {1: 5, 0: 4}
    assert save(setup.node.results(), tmp_path) == []
    assert len(read_tum(tmp_path / "trajectory.txt")) == 5
    assert len(read_tum(tmp_path / "trajectory_map0.txt")) == 4


def test_what_was_sent_before_the_jump_and_arrives_after_it_does_no_harm(graph):
    setup = Setup(graph, "reset")
    setup.fly()
    setup.jump()
    setup.probe.send_image(START + 10 * 10**9 - STEP)
    setup.until(lambda: setup.node.input.counts["image from before time jumped"] == 1)
    setup.fly()
    assert setup.node.run.state().frames == 4 and not setup.node.run.drops


def test_a_gimbal_that_moved_before_the_jump_does_not_stand_for_now(graph):
    setup = Setup(graph, "continue", "-p", "frames.base:=base_link")
    tf = setup.probe.create_publisher(TFMessage, "/tf", qos.TF)
    transforms = setup.node._aiding.transforms
    setup.until(lambda: setup.node.count_publishers("/tf") == 2 and setup.node.count_subscribers("/tf") == 1)
    setup.until(tf.get_subscription_count)

    def at(stamp):
        return transforms.lookup("base_link", "cam", stamp, STEP)

    def send(stamp, x):
        tf.publish(
            TFMessage(
                transforms=[
                    transform_stamped(pose(np.eye(3), np.array([x, 0.0, 0.0])), stamp, "base_link", "cam")
                ]
            )
        )

    send(START, 1.0)
    setup.until(lambda: at(START) is not None)
    setup.jump()
    assert at(START) is None
    send(START + 10 * 10**9, 1.0)
    send(START, 2.0)
    setup.until(lambda: at(START) is not None)
    assert at(START)[0, 3] == 2.0 and transforms.counts == {"tf from before time jumped": 1}


def test_odometry_from_before_the_jump_is_forgotten(graph):
    priors = []

    class Watching(graph.backend):
        def step(self, frame):
            priors.append(frame.prior)
            return super().step(frame)

    setup = Setup(graph, "continue", "-p", "prior:=true", create=lambda *_: Watching())
    odometry = setup.probe.create_publisher(Odometry, "odom", qos.PLAYED)
    setup.until(odometry.get_subscription_count)

    def send(x):
        message = Odometry(header=header(START, "odom"), child_frame_id="cam")
        message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
        odometry.publish(message)
        setup.until(lambda: len(setup.node._aiding.prior.poses))

    send(1.0)
    setup.fly(1)
    setup.jump()
    assert not len(setup.node._aiding.prior.poses)
    send(2.0)
    setup.fly(1)
    assert [T[0, 3] for T in priors] == [1.0, 2.0]


def test_without_a_jump_of_the_clock_stamps_that_go_back_are_counted(graph):
    setup = Setup(graph, "continue")
    setup.fly()
    setup.probe.send_image(START)
    setup.until(lambda: setup.node.run.drops == {"stamp backwards": 1})


class Looped:
    """A bag of so many frames that is played five times, at `rate` times its speed, to reconstructor and mesher."""

    def __init__(self, graph, folder, policy, frames, fps, rate):
        self.graph, self.frames, self.policy = graph, frames, policy
        options = FlightOptions(frames=16, camera=camera_of(160, 120, 70.0), depth=True)
        there = list(SyntheticFlight("room", "forward", options))
        and_back = itertools.islice(itertools.cycle([*there, *there[-2:0:-1]]), frames)
        step = round(1e9 / fps)
        flight = [dataclasses.replace(f, stamp_ns=START + i * step) for i, f in enumerate(and_back)]
        write_bag(folder / "bag", flight, with_depth=True)
        graph.start(
            "-p", "backend:=rgbd", "-p", "use_sim_time:=true", "-p", f"on_time_jump:={policy}", "-p", "input.queue:=100",
            "-r", "image:=/camera/image_raw", "-r", "depth:=/camera/depth/image_raw",
            "-r", "camera_info:=/camera/camera_info",
        )  # fmt: skip
        mesher = graph.add(MesherNode(follow=False))
        self.node = graph.add(ReconstructorNode(mesher))
        self.player = graph.add(Player(folder / "bag", rate, 60.0))
        self.played = []

    def answered(self):
        node = self.node
        given_up = sum((node._drops() + node.run.drops).values())
        return node.run.done + given_up >= self.frames * len(self.played)

    def play(self):
        for _ in range(LOOPS):
            self.played.append(self.player.play(lambda _: None))
            self.graph.wait(self.answered, 5.0)  # how fast this machine is matters not

    def check(self, folder, lost):
        """lost: images of a pass that may be missing; what arrives while the time changes, and no other."""
        least = self.frames - lost
        node, pipeline, drops = self.node, self.node.run.pipeline, self.node.run.drops
        assert self.played == [True] * LOOPS and node._jumps.count == LOOPS - 1
        assert not drops["internal error"] and sum(drops.values()) <= lost * LOOPS
        frames = {n: len(indices) for n, indices in pipeline.members(pipeline.poses()).items()}
        if self.policy == "new_map":
            assert sorted(frames) == list(range(LOOPS)) and min(frames.values()) >= least
        else:
            passes = 1 if self.policy == "reset" else LOOPS
            assert list(frames) == [0] and least * passes <= frames[0] <= self.frames * passes
        for trajectory in pipeline.trajectories().values():
            assert least <= len(trajectory) <= self.frames and (np.diff(trajectory.stamps_ns) > 0).all()
        assert save(node.results(), folder) == []
        assert len(list(folder.glob("trajectory*.txt"))) == len(frames)


@pytest.mark.parametrize("policy", ["reset", "continue", "new_map"])
@pytest.mark.parametrize(
    ("frames", "fps", "rate", "lost"),
    [(16, 20.0, 2.0, 4), pytest.param(150, 0.25, 40.0, 15, marks=pytest.mark.slow)],
    ids=["a second", "ten minutes"],
)
def test_a_bag_played_five_times_leaves_what_the_policy_says(
    graph, tmp_path, policy, frames, fps, rate, lost
):
    looped = Looped(graph, tmp_path, policy, frames, fps, rate)
    thread = threading.Thread(target=looped.play)
    thread.start()
    thread.join(600)
    looped.node.finish()
    looped.check(tmp_path / "saved", lost)
