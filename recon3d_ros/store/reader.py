# SPDX-License-Identifier: Apache-2.0
"""Keyframes of another process, read where they lie."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections import Counter
from types import TracebackType

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import StoreError
from recon3d_ros.core.types import Keyframe, Scale
from recon3d_ros.store import files
from recon3d_ros.store.layout import Bytes, arrays, unpack


class Lease:
    """A keyframe whose memory the writer leaves alone until `release`, the end of the `with` block, or the end of the last
    array made from it. After `release` its arrays must not be looked at any more."""

    def __init__(self, keyframe: Keyframe, release: weakref.finalize) -> None:  # type: ignore[type-arg]
        self.keyframe = keyframe
        self._release = release

    def release(self) -> None:
        """Tell the writer that it may use the memory again. May be called more than once."""
        self._release()

    def __enter__(self) -> Keyframe:
        return self.keyframe

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SegmentReader:
    """Opens keyframes by the handle that their writer announces. Counts what it took and, by reason, what it refused."""

    def __init__(self) -> None:
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self._registered: dict[str, tuple[str, int]] = {}

    def read(self, name: str, size: int, generation: int, camera: Camera, scale: Scale) -> Lease:
        """The keyframe in segment `name` of `size` bytes, its arrays read-only views on shared memory. Camera and scale are
        not in the segment; they come with the announcement.

        Raises StoreError: `overwritten` (the reader came too late), `withdrawn`, `incomplete` or `damaged`.
        """
        try:
            lease = self._read(name, size, generation, camera, scale)
        except StoreError as error:
            self.refused[error.reason] += 1
            raise
        except OSError as error:
            self.refused["damaged"] += 1
            raise StoreError("damaged", f"cannot read keyframe segment {name}: {error.strerror}") from error
        self.taken += 1
        return lease

    def close(self) -> None:
        """Sign off at all writers, and remove what writers that have ended left behind. May be called more than once."""
        for owner, (name, fd) in self._registered.items():
            files.remove(name)
            os.close(fd)
            files.remove_if_orphan(owner)
        self._registered.clear()

    def _read(self, name: str, size: int, generation: int, camera: Camera, scale: Scale) -> Lease:
        owner = files.owner_of(name, generation)
        name = name.lstrip("/")
        try:
            fd = os.open(files.SHM / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._acknowledge(owner, generation)  # from now on the writer waits for this reader
            raise _gone(name, owner) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if not files.is_named(fd, name):
                raise _gone(name, owner)
            self._acknowledge(owner, generation)
            memory = _map(fd, size)
            keyframe = _keyframe(memory, size, camera, scale)
        except BaseException:
            _let_go(fd)
            raise
        # The lock hangs on the array that all others are views of: it outlives a lease that is dropped too early.
        return Lease(keyframe, weakref.finalize(memory, _let_go, fd))

    def _acknowledge(self, owner: str, generation: int) -> None:
        """Say that this reader has come as far as `generation`; earlier ones that it does not hold are done with."""
        if not files.is_alive(owner):
            return
        if owner not in self._registered:
            self._registered[owner] = files.claim_reader(owner)
        _, fd = self._registered[owner]
        seen = int.from_bytes(os.pread(fd, 8, 0), "little")
        os.pwrite(fd, max(seen, generation).to_bytes(8, "little"), 0)


def _gone(name: str, owner: str) -> StoreError:
    if files.is_alive(owner):
        return StoreError("overwritten", f"keyframe segment {name} was overwritten: the reader came too late")
    return StoreError("withdrawn", f"keyframe segment {name} was withdrawn: its writer has ended")


def _map(fd: int, size: int) -> Bytes:
    if size < 1 or os.fstat(fd).st_size < size:
        raise StoreError("damaged", f"keyframe segment is cut off: {os.fstat(fd).st_size} of {size} bytes")
    return np.frombuffer(mmap.mmap(fd, size, access=mmap.ACCESS_READ), np.uint8)


def _keyframe(memory: Bytes, size: int, camera: Camera, scale: Scale) -> Keyframe:
    header = unpack(memory)
    if header.blocks.size != size:
        raise StoreError("damaged", f"keyframe segment has {header.blocks.size} bytes, {size} were announced")
    points, colours, confidence = arrays(memory, header.blocks)
    return Keyframe(
        header.id,
        header.stamp_ns,
        header.T_map_cam,
        camera,
        points,
        colours[:, :3],
        confidence,
        scale,
        header.bounds,
    )


def _let_go(fd: int) -> None:
    files.unlock(fd)
    os.close(fd)
