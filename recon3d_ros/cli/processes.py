# SPDX-License-Identifier: Apache-2.0
"""Our nodes as processes of their own, kept on this machine, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType

from recon3d_ros.core.errors import ReconError

#: Longest time a program may take to end when something else has failed, seconds.
_GRACE = 20.0


class Program:
    """One process. What it says goes to `log`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until the log holds `text`. Raises ReconError when the program ends before, or takes longer."""
        end = time.monotonic() + seconds
        while text not in self._log.read_text(errors="replace"):
            if not self.is_running:
                raise self._failure(f"ended with code {self._process.returncode}")
            if time.monotonic() > end:
                raise self._failure(f"was not ready within {seconds:g} s")
            time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        """Wait for its end. Raises ReconError when it fails or takes longer."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"did not end within {seconds:g} s") from error
        if code != 0:
            raise self._failure(f"ended with code {code}")

    def stop(self, seconds: float) -> None:
        """Ask it to finish, as Ctrl-C does, and wait for that. Raises ReconError when it fails or takes longer."""
        self.interrupt()
        self.wait(seconds)

    def interrupt(self) -> None:
        """Send SIGINT, if it still runs."""
        if self.is_running:
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Make sure that it has ended."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _failure(self, what: str) -> ReconError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return ReconError(f"{self.name} {what}; see {self._log}" + (f": {lines[-1]}" if lines else ""))


class Processes:
    """Starts programs; at the end of the `with` block, however it comes, all of them have ended.

    They hear each other through DDS on this machine alone, in a domain of their own unless ROS_DOMAIN_ID says which.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log.write_bytes(b"")
        self._running: list[Program] = []
        self._environment = {
            **os.environ,
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID") or str(os.getpid() % 101 + 1),
            "RCUTILS_COLORIZED_OUTPUT": "0",
        }

    def __enter__(self) -> Processes:
        self._previous = signal.signal(signal.SIGTERM, _interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for program in self._running:
                program.interrupt()
            for program in self._running:
                program.end()
        finally:
            signal.signal(signal.SIGTERM, self._previous)

    def start(self, name: str, *arguments: str, shown: bool = False) -> Program:
        """Start a program of `recon3d_ros.nodes`. `shown`: what it says goes to the terminal, not to the log."""
        # In a session of its own, so that Ctrl-C reaches this process alone, which ends the others in order.
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"recon3d_ros.nodes.{name}", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if shown else log,
                start_new_session=True,
            )
        self._running.append(Program(name, process, self._log))
        return self._running[-1]


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
