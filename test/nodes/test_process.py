# SPDX-License-Identifier: Apache-2.0
"""The life of a process of nodes: it ends without a word, whatever is under way."""

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
