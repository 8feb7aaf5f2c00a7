# SPDX-License-Identifier: Apache-2.0
"""Threads that let others go first."""

import os
import sys
import threading

import pytest

from recon3d_ros.core.threads import give_way


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_only_the_thread_that_asks_gives_way():
    before, found = os.getpriority(os.PRIO_PROCESS, 0), []

    def run():
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [10] and os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
