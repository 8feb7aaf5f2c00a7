# SPDX-License-Identifier: Apache-2.0
"""Errors a user meets. Each message is one line: what is wrong, and the mend."""

from __future__ import annotations

import importlib
from types import ModuleType


class ReconError(Exception):
    """Base of all errors of this package; `str(error)` is one line for the user."""


class InputError(ReconError):
    """The input or a flag is wrong: the user can mend it. Exit code 2."""


class FrameError(ReconError):
    """One frame cannot be used (size, encoding, damage). Counted and skipped under `reason`; never ends a run."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(ReconError):
    """A keyframe segment is incomplete, withdrawn, overwritten or damaged. Counted under `reason` and skipped."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class MissingDependency(InputError):
    """An optional package is not installed; says which extra brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or raise `MissingDependency` naming the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        raise MissingDependency(
            f"{top} is not available ({error}): install it with  pip install 'recon3d_ros[{extra}]'"
        ) from error
