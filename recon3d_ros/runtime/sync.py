# SPDX-License-Identifier: Apache-2.0
"""Images and depth images of one sensor, paired by their stamps. The result depends on the stamps alone, not on which of
the two arrives first, as long as the buffer holds."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, TypeVar

ImageT = TypeVar("ImageT")
DepthT = TypeVar("DepthT")
_by_stamp = itemgetter(0)


@dataclass(frozen=True)
class Pair(Generic[ImageT, DepthT]):
    """An image and its depth, None where none came."""

    stamp_ns: int
    image: ImageT
    depth: DepthT | None


class Synchroniser(Generic[ImageT, DepthT]):
    """Pairs each image with the depth nearest in time, within a tolerance; a depth goes to the image nearest to it, and to
    one only. Pairs come out in the order of stamps.

    An equal stamp is a pair at once. Otherwise an image waits until a newer depth shows what is nearest; it leaves
    without depth when none fits, or when more than `capacity` images wait. Of depth, too, `capacity` is kept.
    `counts` says what had no partner.
    """

    def __init__(self, tolerance_ns: int, capacity: int = 30) -> None:
        self.tolerance_ns = tolerance_ns
        self.capacity = capacity
        self.counts: Counter[str] = Counter()
        self._images: list[tuple[int, ImageT]] = []
        self._depths: list[tuple[int, DepthT]] = []
        self._last: int | None = None

    def add_image(self, stamp_ns: int, image: ImageT) -> list[Pair[ImageT, DepthT]]:
        """Take an image; return the pairs that are settled now. One older than what has left already is counted and
        dropped."""
        if self._last is not None and stamp_ns <= self._last:
            self.counts["image out of order"] += 1
            return []
        insort(self._images, (stamp_ns, image), key=_by_stamp)
        return self._settled()

    def add_depth(self, stamp_ns: int, depth: DepthT) -> list[Pair[ImageT, DepthT]]:
        """Take a depth image; return the pairs that are settled now."""
        insort(self._depths, (stamp_ns, depth), key=_by_stamp)
        pairs = self._settled()
        if len(self._depths) > self.capacity:
            self._drop_depths(1)
        return pairs

    def flush(self) -> list[Pair[ImageT, DepthT]]:
        """Nothing follows: return all images that wait, with what depth there is."""
        pairs = []
        while self._images:
            pairs.append(self._take(self._nearest()))
        self._drop_depths(len(self._depths))
        return pairs

    def reset(self) -> None:
        """Forget everything that waits: time has jumped."""
        self._images.clear()
        self._depths.clear()
        self._last = None

    def _settled(self) -> list[Pair[ImageT, DepthT]]:
        pairs = []
        while self._images:
            best = self._nearest()
            if not self._is_certain(best) and len(self._images) <= self.capacity:
                break
            pairs.append(self._take(best))
        return pairs

    def _nearest(self) -> int | None:
        """Index of the depth that belongs to the first image, by what is known now."""
        stamp = self._images[0][0]
        following = self._images[1][0] if len(self._images) > 1 else None
        best = None
        for i, (depth_stamp, _) in enumerate(self._depths):
            distance = abs(depth_stamp - stamp)
            if distance > self.tolerance_ns or (
                following is not None and abs(depth_stamp - following) < distance
            ):
                continue
            if best is None or distance < abs(self._depths[best][0] - stamp):
                best = i
        return best

    def _is_certain(self, best: int | None) -> bool:
        stamp = self._images[0][0]
        if best is not None and self._depths[best][0] == stamp:
            return True
        if not self._depths or self._depths[-1][0] < stamp:
            return False  # a nearer depth may follow
        # A depth after this image may belong to the next one, which has to be seen first.
        return best is None or self._depths[best][0] < stamp or len(self._images) > 1

    def _take(self, best: int | None) -> Pair[ImageT, DepthT]:
        stamp, image = self._images.pop(0)
        self._last = stamp
        if best is None:
            self.counts["image without depth"] += 1
            self._drop_depths(sum(depth_stamp <= stamp for depth_stamp, _ in self._depths))
            return Pair(stamp, image, None)
        depth = self._depths[best][1]
        self._drop_depths(best)
        self._depths.pop(0)
        return Pair(stamp, image, depth)

    def _drop_depths(self, number: int) -> None:
        if number:
            self.counts["depth without image"] += number
            del self._depths[:number]
