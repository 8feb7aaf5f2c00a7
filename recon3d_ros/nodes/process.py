# SPDX-License-Identifier: Apache-2.0
"""The life of a process of nodes: start, spin, a signal, finish. Exit codes: 0 ended as asked, 1 failed, 2 wrong input."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.core.threads import limit_threads, pin
from recon3d_ros.ros.environment import check_environment


@dataclass(frozen=True)
class Session:
    """The nodes of a process. finish: called when nothing arrives any more; works off what waits, saves it, and returns
    what failed, a line each."""

    nodes: Sequence[Node]
    finish: Callable[[], list[str]]


class Stop:
    """A request to end the process. It may be made from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()

    def request(self, code: int = 0) -> None:
        """Ask for the end, with an exit code; the first request counts."""
        self._requests.put(code)

    def wait(self) -> int:
        """Block until the end is asked for; return its code."""
        return self._requests.get()


def run(make: Callable[[Stop], Session], arguments: Sequence[str] | None = None) -> int:
    """Make nodes and spin them until SIGINT, SIGTERM or a `Stop.request`, then finish and destroy them.

    arguments: of the command line without the program's name, None for those of the process. Returns the exit code.
    """
    check_environment()
    _log_through_ros()
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _on_signal(stop, number))
    try:
        rclpy.init(
            args=None if arguments is None else ["recon3d", *arguments],
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except Exception as error:  # rclpy raises several types, all of them about the arguments
        get_logger("recon3d").error(f"ROS arguments: {' '.join(str(error).split())}")
        return 2
    try:
        return _live(make, stop)
    finally:
        rclpy.try_shutdown()


def limit(config: Config) -> None:
    """Keep this process within the CPUs and threads that a node's parameters name. Raises InputError for CPUs that are not
    there. Nodes call it before they load anything."""
    pin(config.cpus)
    limit_threads(config.threads)


def _live(make: Callable[[Stop], Session], stop: Stop) -> int:
    log = get_logger("recon3d")
    try:
        session = make(stop)
    except InputError as error:
        log.error(str(error))
        return 2
    # Callbacks are short, the work is done in threads of their own. rclpy's executor of several threads hands out an event
    # again and again while it waits for a thread, and holds the interpreter meanwhile.
    executor = SingleThreadedExecutor()
    for node in session.nodes:
        executor.add_node(node)
    ended: Future[None] = Future()
    spinning = threading.Thread(target=_spin, args=(executor, ended, stop), name="executor")
    spinning.start()
    code = stop.wait()
    # In this order: the executor's shutdown destroys what a callback under way still needs, and does not wait for it.
    ended.set_result(None)
    spinning.join()
    executor.shutdown()
    try:
        failures = session.finish()
    except ReconError as error:
        failures = [str(error)]
        log.error(failures[0])
    finally:
        for node in session.nodes:
            node.destroy_node()
    return code or (1 if failures else 0)


def _spin(executor: SingleThreadedExecutor, ended: Future[None], stop: Stop) -> None:
    try:
        executor.spin_until_future_complete(ended)
    except ExternalShutdownException:
        stop.request()
    except InputError as error:
        get_logger("recon3d").error(str(error))
        stop.request(2)
    except Exception:
        get_logger("recon3d").fatal(f"a callback failed:\n{traceback.format_exc()}")
        stop.request(1)


def _on_signal(stop: Stop, number: int) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    stop.request()


class _RosHandler(logging.Handler):
    """Hands records of Python's logging to ROS: what the core has to say appears on /rosout too."""

    def emit(self, record: logging.LogRecord) -> None:
        log, text = get_logger("recon3d"), self.format(record)
        # One call for each level: rclpy ties a level to the line it is logged from.
        if record.levelno >= logging.ERROR:
            log.error(text)
        elif record.levelno >= logging.WARNING:
            log.warning(text)
        elif record.levelno >= logging.INFO:
            log.info(text)
        else:
            log.debug(text)


def _log_through_ros() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_RosHandler()]
    root.setLevel(logging.INFO)
