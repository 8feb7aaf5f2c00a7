# SPDX-License-Identifier: Apache-2.0
"""The newest keyframes. Their points are written once, into memory that consumers read in place."""

from __future__ import annotations

from recon3d_ros.core.config import CloudParams, StoreParams
from recon3d_ros.core.types import Keyframe, Update
from recon3d_ros.store import layout
from recon3d_ros.store.arena import Arena, SegmentHandle, Slot
from recon3d_ros.store.backproject import Backprojection, warm_up
from recon3d_ros.store.layout import Blocks, Header


class KeyframeStore:
    """One thread puts keyframes; the last `params.slots` of them can be got. An older one lives on in this process as long
    as somebody holds it."""

    def __init__(self, arena: Arena, params: StoreParams, cloud: CloudParams) -> None:
        self._arena = arena
        self._slots = params.slots
        self._min_confidence = cloud.min_confidence
        self._held: dict[int, tuple[Keyframe, SegmentHandle]] = {}
        self._generation = 0
        self._counts = {
            "keyframes": 0,
            "keyframes_empty": 0,
            "points": 0,
            "points_unsure": 0,
            "points_absurd": 0,
        }
        warm_up()

    def put(self, update: Update) -> Keyframe:
        """Make a keyframe of an update that has a pose and depth; a known id is replaced. Every pixel with sure and sane
        depth becomes a point. Raises StoreError with reason `full` if there is no memory, ValueError without depth or pose.
        """
        pixels = self._backproject(update)
        self._generation += 1
        self._forget(update.index)
        blocks = Blocks.aligned(pixels.count, has_confidence=update.confidence is not None)
        slot = self._arena.reserve(blocks.size, self._generation)
        keyframe = _write(update, pixels, slot, blocks)
        self._held[update.index] = keyframe, slot.handle
        self._count(pixels)
        return keyframe

    def get(self, keyframe_id: int) -> Keyframe | None:
        """The keyframe, or None if it is not among the newest."""
        held = self._held.get(keyframe_id)
        return held[0] if held else None

    def handle(self, keyframe_id: int) -> SegmentHandle:
        """Where the keyframe lies. Raises KeyError if it is not among the newest."""
        return self._held[keyframe_id][1]

    @property
    def nbytes(self) -> int:
        """Memory of the keyframes that can be got, bytes; callable from any thread."""
        return sum(handle.shm_size for _, handle in list(self._held.values()))

    def statistics(self) -> dict[str, float]:
        """Counters for the report: keyframes and points put, points dropped by reason, and those of the arena."""
        return {**self._counts, **self._arena.statistics()}

    def reset(self) -> None:
        """Forget all keyframes; counters and generations go on."""
        self._held.clear()
        self._arena.clear()

    def close(self) -> None:
        """Forget all keyframes and free their memory. May be called more than once."""
        self._held.clear()
        self._arena.close()

    def _backproject(self, update: Update) -> Backprojection:
        if (
            update.depth is None
            or update.camera is None
            or update.colours is None
            or update.T_map_cam is None
        ):
            raise ValueError(
                f"update {update.index} lacks depth, colours, camera or pose: it is no keyframe yet"
            )
        return Backprojection(
            update.depth,
            update.camera,
            update.T_map_cam,
            update.colours,
            update.confidence,
            min_confidence=self._min_confidence,
        )

    def _forget(self, keyframe_id: int) -> None:
        """Let go of an older keyframe of this id, and of the one whose slot comes next."""
        self._held.pop(keyframe_id, None)
        expired = self._generation - self._slots
        self._held = {i: held for i, held in self._held.items() if held[1].generation > expired}

    def _count(self, pixels: Backprojection) -> None:
        self._counts["keyframes"] += 1
        self._counts["keyframes_empty"] += not pixels.count
        self._counts["points"] += pixels.count
        self._counts["points_unsure"] += pixels.unsure
        self._counts["points_absurd"] += pixels.absurd


def _write(update: Update, pixels: Backprojection, slot: Slot, blocks: Blocks) -> Keyframe:
    assert update.T_map_cam is not None and update.camera is not None
    points, colours, confidence = layout.arrays(slot.memory, blocks)
    bounds = pixels.fill(points, colours, confidence)
    layout.seal(slot.memory, Header(update.index, update.stamp_ns, update.T_map_cam, bounds, blocks))
    for array in (points, colours, confidence):
        if array is not None:
            array.flags.writeable = False
    return Keyframe(
        update.index,
        update.stamp_ns,
        update.T_map_cam,
        update.camera,
        points,
        colours,
        confidence,
        update.scale,
        bounds,
    )
