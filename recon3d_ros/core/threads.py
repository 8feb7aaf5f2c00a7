# SPDX-License-Identifier: Apache-2.0
"""Which thread goes first where cores are few, how many there are, and on which of them a process runs."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from recon3d_ros.core.errors import InputError

_NICE = 10


def give_way() -> None:
    """Let the calling thread, and those that it starts, run when others leave a core free. Priorities of single threads are
    Linux's; elsewhere this does nothing."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def limit_threads(count: int) -> None:
    """So many threads for one piece of work of OpenCV and torch, imported already or not; 0 changes nothing. BLAS reads
    OPENBLAS_NUM_THREADS when the process starts, and our own kernels take the thread that calls them."""
    if not count:
        return
    import cv2

    cv2.setNumThreads(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # for a torch that is imported later


def pin(cpus: str) -> None:
    """Let this process, the threads it has and those it will have, run on these CPUs alone; empty changes nothing. Raises
    InputError for a list that is none, and for CPUs that are not there. Elsewhere than on Linux this does nothing."""
    if not cpus.strip() or sys.platform != "linux":
        return
    wanted, offered = parse_cpus(cpus), os.sched_getaffinity(0)
    if not wanted <= offered:
        missing = ", ".join(map(str, sorted(wanted - offered)))
        raise InputError(f"cpus: '{cpus}' names {missing}, this process may use {format_cpus(offered)}")
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), wanted)


def parse_cpus(text: str) -> set[int]:
    """The numbers in a list such as `0-2,5`. Raises InputError."""
    out: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends) or int(ends[0]) > int(
            ends[1]
        ):
            raise InputError(f"cpus: '{text}' is no list of CPUs such as 0-2,5")
        out.update(range(int(ends[0]), int(ends[1]) + 1))
    return out


def format_cpus(cpus: set[int]) -> str:
    """As `parse_cpus` takes it."""
    out: list[list[int]] = []
    for cpu in sorted(cpus):
        if out and cpu == out[-1][1] + 1:
            out[-1][1] = cpu
        else:
            out.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)
