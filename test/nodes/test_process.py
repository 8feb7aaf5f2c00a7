# SPDX-License-Identifier: Apache-2.0
"""The life of a process of nodes: it ends without a word, whatever is under way."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

#: A node with a callback under way at nearly every moment is ended again and again.
PROGRAM = """
import sys, threading
from rclpy.node import Node
from recon3d_ros.nodes import process

sys.setswitchinterval(1e-6)  # threads come in between wherever they can

def make(stop):
    node = Node("busy")
    for _ in range(3):
        node.create_timer(0.0, lambda: None)
    threading.Timer(0.02, stop.request).start()
    return process.Session([node], lambda: [])

sys.exit(max(process.run(make, []) for _ in range(20)))
"""


def test_a_node_that_ends_while_callbacks_run_says_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


#: Says on which CPUs the threads of a mesher run, those of DDS included, and how many OpenCV takes.
LIMITED = """
import os, sys, cv2
from recon3d_ros.nodes import process
from recon3d_ros.nodes.mesher import MesherNode

def make(stop):
    node = MesherNode()
    threads = os.listdir("/proc/self/task")
    print(sorted({cpu for t in threads for cpu in os.sched_getaffinity(int(t))}), len(threads) > 3, cv2.getNumThreads())
    stop.request()
    return process.Session([node], lambda: [])

sys.exit(process.run(make, ["--ros-args", *sys.argv[1:]]))
"""


def limited(*parameters):
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    command = [sys.executable, "-c", LIMITED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_a_process_keeps_within_the_cpus_and_threads_that_its_parameters_name():
    last = max(os.sched_getaffinity(0))
    done = limited(f"cpus:={last}-{last}", "threads:=1")
    assert (done.returncode, done.stdout) == (0, f"[{last}] True 1\n")


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
@pytest.mark.parametrize(
    ("cpus", "why"), [("0-99999", "this process may use"), ("two", "is no list of CPUs")]
)
def test_cpus_that_are_not_there_are_refused_with_one_line(cpus, why):
    done = limited(f"cpus:={cpus}")
    assert done.returncode == 2 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "ERROR" in line and why in line]
    assert "Traceback" not in done.stderr
