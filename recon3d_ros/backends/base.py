# SPDX-License-Identifier: Apache-2.0
"""The contract every reconstruction engine fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from recon3d_ros.core.types import Arrays, Frame, Pose, Update


@dataclass(frozen=True)
class Capabilities:
    """What a backend needs and gives."""

    needs_depth: bool = False
    needs_camera: bool = True
    metric: bool = False
    device: str = "cpu"


class Reconstructor(Protocol):
    """Frames in, updates out. One thread calls it; the frames' arrays may be kept, never written.

    Indices count the frames given since the last reset, from 0. Over a run every frame is answered exactly once by an
    update that does not revise; answers may come late, in a later `step` or in `finish`. A frame that cannot be used
    raises `core.errors.FrameError` before anything has changed, and takes no index.
    """

    capabilities: Capabilities

    def step(self, frame: Frame) -> list[Update]:
        """Take one frame; return what became known, oldest first."""
        ...

    def finish(self) -> list[Update]:
        """No frame follows: wait for work under way and return what is left."""
        ...

    def reset(self) -> None:
        """Forget the map; the next frame is the first."""
        ...

    def close(self) -> None:
        """Stop threads and free memory. May be called more than once."""
        ...

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index."""
        ...

    def saved(self) -> tuple[int, Arrays]:
        """Id of the map that the camera is in, and what `resume` needs of it, among that `next_index`, of the next frame.
        Raises InputError where there is no map yet, or none that one could go on with."""
        ...

    def resume(self, arrays: Arrays) -> None:
        """Forget the map and go on with one that was saved, as map 0; indices of frames go on from those it was made of.
        The camera is lost until it recognises it. Raises InputError for a backend that cannot, KeyError for an array that
        is missing; nothing has changed then."""
        ...

    def statistics(self) -> dict[str, float]:
        """Counters and stage times for the report: names ending in `_ms` are medians, others are counts."""
        ...
