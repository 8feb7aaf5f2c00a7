# SPDX-License-Identifier: Apache-2.0
"""Services whose work takes a while: the node works on, requests wait for each other, and no failure ends the node."""

import threading

from lifecycle_msgs.msg import Transition
from std_srvs.srv import Trigger

from recon3d_ros.core.errors import InputError
from recon3d_ros.nodes.in_background import InBackground
from recon3d_ros.nodes.lifecycle import ManagedNode


class Working(ManagedNode):
    """Its work waits until the test lets it go on, then does what the test says."""

    def __init__(self):
        super().__init__("working")
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.running = 0
        self.result = lambda: "done"
        self.start()

    def configure(self):
        InBackground(self, "~/work", self.work)

    def work(self):
        self.running += 1
        assert self.running == 1, "two at a time"
        self.begun.release()
        assert self.go.acquire(timeout=20)
        self.running -= 1
        return self.result()


def ask(graph, probe):
    """A request under way."""
    client = probe.create_client(Trigger, "/working/work")
    assert client.wait_for_service(20)
    return client.call_async(Trigger.Request())


def test_the_answer_comes_when_the_work_is_done_and_a_second_request_waits(graph):
    graph.start()
    node, probe = graph.add(Working()), graph.probe()
    first, second = ask(graph, probe), ask(graph, probe)
    assert node.begun.acquire(timeout=20)
    assert probe.transition(
        "/working", Transition.TRANSITION_DEACTIVATE
    )  # another callback of the same node has its turn
    assert not first.done() and not second.done() and node.under_way == {"work"}
    node.go.release()
    assert node.begun.acquire(timeout=20)
    node.go.release()
    for answer in (first, second):
        assert graph.wait(answer.done)
        assert answer.result().success and answer.result().message == "done"


def test_a_failure_is_an_answer_and_the_next_request_is_served(graph, caplog):
    def refused():
        raise InputError("one line")

    def broken():
        raise KeyError("key")

    graph.start()
    node, probe = graph.add(Working()), graph.probe()
    for result, message in ((refused, "one line"), (broken, "KeyError: 'key'")):
        node.result = result
        node.go.release()
        answer = ask(graph, probe)
        assert graph.wait(answer.done)
        assert not answer.result().success and answer.result().message == message
        assert f"work: {message}" in [record.message for record in caplog.records]
    node.result = lambda: "done"
    node.go.release()
    answer = ask(graph, probe)
    assert graph.wait(answer.done) and answer.result().success


def test_a_node_that_is_cleaned_up_meanwhile_ends_the_work_and_lives_on(graph):
    graph.start()
    node, probe = graph.add(Working()), graph.probe()
    ask(graph, probe)
    assert node.begun.acquire(timeout=20)
    assert probe.transition("/working", Transition.TRANSITION_DEACTIVATE)
    threading.Timer(0.1, node.go.release).start()
    assert probe.transition("/working", Transition.TRANSITION_CLEANUP)
    assert node.running == 0
    assert probe.transition("/working", Transition.TRANSITION_CONFIGURE)
    node.go.release()
    answer = ask(graph, probe)
    assert graph.wait(answer.done) and answer.result().success
