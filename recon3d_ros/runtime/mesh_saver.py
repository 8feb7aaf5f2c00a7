# SPDX-License-Identifier: Apache-2.0
"""Saves meshes beside a node that lives on. The libraries that close and reduce a surface hold the interpreter while they
work, hence a process of its own, in which they may also fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from recon3d_ros.core.errors import InputError, ReconError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.export import write_ply_mesh
from recon3d_ros.runtime.mesh_file import MeshOptions
from recon3d_ros.runtime.results import prepare_folder

#: Time that a process may take to clean up when it is told to stop, seconds.
_GRACE = 2.0
_NICENESS = 10


class MeshSaver:
    """One mesh is saved after the other, each by the thread that asks."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def save(self, mesh: MeshBlock, folder: str | Path, options: MeshOptions) -> Path:
        """Write what the options make of a mesh into a folder; returns the file, which is complete or stays as it was.
        Raises ReconError with one line when that fails."""
        if not len(mesh.triangles):
            raise InputError("there is no surface yet")
        target = prepare_folder(folder) / options.name
        with self._turn, _workshop(target) as work:
            plain, made = work / "plain.ply", work / options.name
            write_ply_mesh(plain, mesh.vertices, mesh.triangles, mesh.colours)
            self._run(_command(plain, made, options))
            os.replace(made, target)
        return target

    def close(self) -> None:
        """Give up what is being saved."""
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()

    def _run(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the node, which then closes this
        )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        if self._closed:
            self.close()
        said = self._process.communicate()[1].strip().splitlines()
        if self._closed:
            raise ReconError("given up, because the node ends")
        if self._process.returncode:
            raise ReconError(
                said[-1].removeprefix("recon3d: ") if said else "the process that saves was killed"
            )


def _command(plain: Path, made: Path, options: MeshOptions) -> list[str]:
    flags = ["--simplify", str(options.simplify), "--depth", str(options.depth)] + [
        "--poisson"
    ] * options.poisson
    return [sys.executable, "-m", "recon3d_ros.cli.main", "mesh", str(plain), *flags, "-o", str(made)]


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A folder beside the target, on the same disk, that vanishes. Errors name the target instead of what is in it."""
    try:
        with tempfile.TemporaryDirectory(
            prefix=".save_mesh-", dir=target.parent, ignore_cleanup_errors=True
        ) as folder:
            try:
                yield Path(folder)
            except ReconError as error:
                said = str(error)
                for name in ("plain.ply", target.name):
                    said = said.replace(str(Path(folder) / name), str(target))
                raise ReconError(said) from error
    except OSError as error:
        raise InputError(
            f"cannot write {target} ({error.strerror}): give another folder or make room"
        ) from error
