# SPDX-License-Identifier: Apache-2.0
"""A bounded queue between two threads. Live it drops the oldest item rather than fall behind; offline it makes the
producer wait, so that nothing is lost."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """At most `capacity` items. `dropped` counts those given up; `high_water` is the longest it ever was."""

    def __init__(self, capacity: int, drop_oldest: bool) -> None:
        self.capacity = capacity
        self.drop_oldest = drop_oldest
        self.dropped = 0
        self.high_water = 0
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append an item; when full, drop the oldest or wait, as made. Does nothing once closed."""
        with self._changed:
            while len(self._items) >= self.capacity and not self._closed:
                if self.drop_oldest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if not self._closed:
                self._items.append(item)
                self.high_water = max(self.high_water, len(self._items))
                self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item; None after `timeout` seconds, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def clear(self) -> None:
        """Forget what waits (a reset, not a loss: it is not counted)."""
        with self._changed:
            self._items.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more comes in; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """True once closed."""
        return self._closed
