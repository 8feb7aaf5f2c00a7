# SPDX-License-Identifier: Apache-2.0
"""A ring of slots in shared memory, one file each. A slot is used again, under a new name, when every reader is done with
what it holds. A reader that takes longer than the lease keeps its mapping: the writer then leaves it that file and makes a
new one, so memory is never written under a reader, and a slow reader delays the writer once, not for every keyframe."""

from __future__ import annotations

import mmap
import os
import time
import weakref

import numpy as np

from recon3d_ros.core.errors import StoreError
from recon3d_ros.store import files
from recon3d_ros.store.arena import SegmentHandle, Slot
from recon3d_ros.store.layout import Bytes, State, set_state

_GRAIN = 1 << 20
_POLL = 0.001


class SharedArena:
    """Memory that other processes of this machine can map. All files go with `close`, at a normal exit of the program, and
    else when the next writer starts or a reader closes.

    slots: keyframes held at any time. lease_timeout: seconds a keyframe is kept for readers that are not done with it;
    a writer that needs its slot earlier waits. prefix: of the file names.
    """

    def __init__(self, slots: int, lease_timeout: float, prefix: str = "recon3d") -> None:
        files.remove_orphans(prefix)
        self._owner, control = files.claim_owner(prefix)
        self._ring: list[_Segment | None] = [None] * slots
        self._lease_timeout = lease_timeout
        self._capacity = 0
        self._late: dict[str, int] = {}
        self._replaced = 0
        self._waited = 0.0
        self._end = weakref.finalize(self, _remove, self._owner, control, os.getpid())

    def reserve(self, size: int, generation: int) -> Slot:
        """Memory for `size` bytes in the next slot of the ring. Raises StoreError with reason `full` if there is none,
        `closed` after `close`."""
        if not self._end.alive:
            raise StoreError("closed", "the keyframe store is closed")
        index = generation % len(self._ring)
        name = files.segment_name(self._owner, generation, index)
        segment = self._ring[index]
        if segment is None or not self._reuse(segment, size, name):
            self._drop(index)
            segment = self._ring[index] = self._make(size, name)
        segment.born, segment.generation = time.monotonic(), generation
        return Slot(segment.memory()[:size], SegmentHandle(name, size, generation))

    def statistics(self) -> dict[str, float]:
        """shared_bytes: size of all slots. replaced_slots: slots that a reader still held. waited_ms: for readers."""
        segments = [s for s in self._ring if s is not None]
        return {
            "shared_bytes": sum(len(s.mapping) for s in segments),
            "replaced_slots": self._replaced,
            "waited_ms": self._waited * 1e3,
        }

    def clear(self) -> None:
        """Withdraw all keyframes: no reader can open them any more; mappings that exist stay valid."""
        for index in range(len(self._ring)):
            self._drop(index)

    def close(self) -> None:
        """Withdraw all keyframes and remove every file. May be called more than once."""
        self.clear()
        self._end()

    def _reuse(self, segment: _Segment, size: int, name: str) -> bool:
        """Give the segment its new name if it is large enough and nobody reads it."""
        self._wait(segment)
        if len(segment.mapping) < size:
            return False
        if segment.in_use() or not segment.rename(name):
            self._replaced += 1
            return False
        return True

    def _wait(self, segment: _Segment) -> None:
        """Wait while a reader holds the segment or has not come to it, but not again for one that stands still."""
        start = now = time.monotonic()
        while True:
            behind = {name: seen for name, seen in files.readers(self._owner) if seen < segment.generation}
            wanted = segment.is_held() or behind.items() - self._late.items()
            if not wanted or now >= segment.born + self._lease_timeout:
                break
            time.sleep(_POLL)
            now = time.monotonic()
        self._waited += now - start
        self._late = behind

    def _make(self, size: int, name: str) -> _Segment:
        capacity = max(self._capacity, -(-size // _GRAIN) * _GRAIN)
        try:
            segment = _Segment(name, capacity)
        except OSError as error:
            raise StoreError(
                "full",
                f"no room in {files.SHM} for a keyframe of {size / 1e6:.1f} MB ({error.strerror}): enlarge it (docker: "
                "--shm-size=1g), lower store.slots, or run all in one process ('recon3d slam')",
            ) from error
        self._capacity = capacity
        return segment

    def _drop(self, index: int) -> None:
        segment, self._ring[index] = self._ring[index], None
        if segment is not None:
            segment.withdraw()


class _Segment:
    """One file of shared memory and the writer's mapping of it."""

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.born = 0.0
        self.generation = 0
        self.fd = os.open(files.SHM / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        weakref.finalize(self, os.close, self.fd)
        try:
            # Without this a full file system shows as a bus error at the first write.
            os.posix_fallocate(self.fd, 0, capacity)
            self.mapping = mmap.mmap(self.fd, capacity)
        except OSError:
            os.unlink(files.SHM / name)
            raise
        self._root: weakref.ref[Bytes] | None = None

    def memory(self) -> Bytes:
        """The whole segment, about to be written. All arrays made from it keep this one array alive, and so does nothing
        else: it tells whether this process still uses the keyframe."""
        root = np.frombuffer(self.mapping, np.uint8)
        set_state(root, State.WRITING)
        self._root = weakref.ref(root)
        return root

    def in_use(self) -> bool:
        """True while this process holds an array of the segment."""
        return self._root is not None and self._root() is not None

    def is_held(self) -> bool:
        """True while a reader holds the segment."""
        if files.try_lock(self.fd):
            files.unlock(self.fd)
            return False
        return True

    def rename(self, name: str) -> bool:
        """Take a new name unless a reader holds the segment. A reader locks first and looks at the name afterwards, so
        one that comes in between finds that it is too late."""
        if not files.try_lock(self.fd):
            return False
        try:
            os.rename(files.SHM / self.name, files.SHM / name)
        except FileNotFoundError:  # removed by somebody else, perhaps by hand
            return False
        finally:
            files.unlock(self.fd)
        self.name = name
        return True

    def withdraw(self) -> None:
        """Remove the file; the memory goes when the last reader and the last array of it have gone."""
        set_state(np.frombuffer(self.mapping, np.uint8), State.WITHDRAWN)
        files.remove(self.name)


def _remove(owner: str, control: int, pid: int) -> None:
    if os.getpid() == pid:  # a forked child is not the writer
        files.remove_all(owner)
    os.close(control)
