# SPDX-License-Identifier: Apache-2.0
"""Threads that let others go first."""

import os
import sys
import threading

import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.threads import format_cpus, give_way, parse_cpus


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


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), (" 3 , 1-1 ", {1, 3}), ("7,0-1,1", {0, 1, 7})]
)
def test_a_list_of_cpus_is_read(text, cpus):
    assert parse_cpus(text) == cpus == parse_cpus(format_cpus(cpus))


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "1-2-3"])
def test_what_is_no_list_of_cpus_is_refused(text):
    with pytest.raises(InputError, match="no list of CPUs"):
        parse_cpus(text)
