# SPDX-License-Identifier: Apache-2.0
"""Loads the C libraries of message packages that pip installed.

ROS opens `lib<package>__rosidl_typesupport_fastrtps_c.so` by its bare name. Under colcon the library path leads to it; a
wheel has it in `_lib/`, where only a library that is loaded already can be found. The generated `msg/__init__.py`
calls this.
"""

from __future__ import annotations

import ctypes
from pathlib import Path


def preload(module_file: str) -> None:
    """Load every library in `_lib/` beside the `msg` package that `module_file` is the `__init__.py` of.

    They depend on each other in no order known here: those that fail are tried again while another one succeeds.
    Raises `ImportError` when a library cannot be loaded, which names what it misses.
    """
    waiting = sorted(Path(module_file).parents[1].glob("_lib/lib*.so"))
    while waiting:
        failed = [library for library in waiting if _load(library) is not None]
        if len(failed) == len(waiting):
            raise ImportError(
                f"{failed[0].name}: {_load(failed[0])}; is the ROS 2 that it was built with installed?"
            )
        waiting = failed


def _load(library: Path) -> OSError | None:
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return error
    return None
