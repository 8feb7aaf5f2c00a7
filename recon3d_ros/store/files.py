# SPDX-License-Identifier: Apache-2.0
"""Names and owners of the files in shared memory. A writer holds the lock of its `<owner>_control` file while it lives, a
reader that of its `<owner>_reader_<pid>` file, and the kernel drops a lock with its process, however that ends. So who
lives is known without asking for process ids, which are used again and mean nothing across containers.

`multiprocessing.shared_memory` is not used: before Python 3.13 a reader that exits destroys the segment."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recon3d_ros.core.errors import InputError, StoreError

SHM = Path("/dev/shm")

_CONTROL = "_control"
_SEGMENT = re.compile(r"/?(?P<owner>[\w.-]+)_(?P<generation>\d{1,19})_\d+")


def segment_name(owner: str, generation: int, slot: int) -> str:
    """File name of a keyframe: `<owner>_<generation>_<slot>`."""
    return f"{owner}_{generation}_{slot}"


def owner_of(name: str, generation: int) -> str:
    """The owner named in a segment's name. Raises StoreError if that is no segment name or of another generation."""
    match = _SEGMENT.fullmatch(name)
    if match is None or int(match["generation"]) != generation:
        raise StoreError("damaged", f"'{name}' does not name a keyframe segment of generation {generation}")
    return match["owner"]


def claim_owner(prefix: str) -> tuple[str, int]:
    """A new owner name `<prefix>_<pid>` and the descriptor whose lock says that it lives. Raises InputError where there is
    no shared memory."""
    stem = f"{prefix}_{os.getpid()}"
    owners = itertools.chain([stem], (f"{stem}.{n}" for n in itertools.count(1)))
    try:
        name, fd = _claim(owner + _CONTROL for owner in owners)
    except OSError as error:
        raise InputError(
            f"cannot share keyframes in {SHM}: {error.strerror}; run the mesher in the same process ('recon3d slam')"
        ) from error
    return name.removesuffix(_CONTROL), fd


def claim_reader(owner: str) -> tuple[str, int]:
    """A new reader file of `owner` and its locked descriptor."""
    return _claim(f"{owner}_reader_{os.getpid()}.{n}" for n in itertools.count())


def readers(owner: str) -> Iterator[tuple[str, int]]:
    """Living readers of `owner`: name and newest generation taken. Files of readers that have ended are removed."""
    for name in _names(f"{owner}_reader_"):
        with suppress(FileNotFoundError):
            fd = os.open(SHM / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if try_lock(fd):
                    remove(name)
                else:
                    yield name, int.from_bytes(os.pread(fd, 8, 0), "little")
            finally:
                os.close(fd)


def remove(name: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError, PermissionError):
        os.unlink(SHM / name)


def remove_orphans(prefix: str = "recon3d") -> None:
    """Remove the files of writers that have ended without doing so. Those of living writers are never touched."""
    pattern = re.compile(rf"({re.escape(prefix)}_\d+(\.\d+)?){_CONTROL}")
    for match in filter(None, map(pattern.fullmatch, _names(prefix))):
        remove_if_orphan(match[1])


def remove_if_orphan(owner: str) -> None:
    """Remove the files of `owner` if it has ended."""
    with suppress(FileNotFoundError, PermissionError):
        fd = os.open(SHM / (owner + _CONTROL), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if try_lock(fd):
                remove_all(owner)
        finally:
            os.close(fd)


def remove_all(owner: str) -> None:
    """Remove the files of `owner`, the control file last, so that a removal cut short is found and finished later."""
    for name in sorted(_names(owner + "_"), key=lambda name: name == owner + _CONTROL):
        remove(name)


def is_alive(owner: str) -> bool:
    """True if the writer has not closed; one that was killed counts until its files are removed."""
    return (SHM / (owner + _CONTROL)).exists()


def try_lock(fd: int) -> bool:
    """Lock the file for this descriptor alone; False if another descriptor holds a lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Drop the lock. Closing is not enough: a mapping holds a copy of the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_named(fd: int, name: str) -> bool:
    """True if `name` still is the file of the descriptor, not removed, renamed or made anew."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(SHM / name))
    except FileNotFoundError:
        return False


def _claim(names: Iterable[str]) -> tuple[str, int]:
    """Make and lock the first file of `names` that does not exist."""
    for name in names:
        with suppress(FileExistsError):
            fd = os.open(SHM / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            # Between making and locking, another process may have taken it for an orphan and removed it.
            if try_lock(fd) and is_named(fd, name):
                return name, fd
            os.close(fd)
    raise AssertionError("names are endless")


def _names(prefix: str) -> list[str]:
    return [name for name in os.listdir(SHM) if name.startswith(prefix)]
