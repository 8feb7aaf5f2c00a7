# SPDX-License-Identifier: Apache-2.0
"""When a lost camera may begin another map: after a cut, when the images can be followed though none is recognised, soon;
else when it was lost for long."""

from __future__ import annotations

from collections.abc import Callable

from recon3d_ros.backends.geometric.map import View
from recon3d_ros.backends.geometric.piece import Piece

#: Lost frames before another map may begin, and those that suffice if all could be followed.
_LONG, _CUT = 30, 10


class Restart:
    """Follows the views of a lost camera among themselves."""

    def __init__(self) -> None:
        self._piece: Piece | None = None
        self._lost = 0

    def forget(self) -> None:
        """The camera is not lost, or not any more."""
        self._piece, self._lost = None, 0

    def step(self, view: View, make: Callable[[], Piece]) -> Piece | None:
        """Take a view that was not recognised; returns the map that begins with it, if one does."""
        self._lost += 1
        piece = self._piece = self._piece or make()
        long = self._lost > _LONG or piece.initialiser.followed >= _CUT
        if piece.initialiser.step(view, long):
            self.forget()
            return piece
        piece.initialiser.overdue()
        return None
