# SPDX-License-Identifier: Apache-2.0
"""Which thread goes first where cores are few."""

from __future__ import annotations

import os
import sys
import threading

_NICE = 10


def give_way() -> None:
    """Let the calling thread, and those that it starts, run when others leave a core free. Priorities of single threads are
    Linux's; elsewhere this does nothing."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
