# SPDX-License-Identifier: Apache-2.0
"""Named arrays in one file: a .npz that is complete or not there, carries what it is and in which version, and never holds
a pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Arrays
from recon3d_ros.mapping.export import replacing

#: Of the whole saved map; a file of another version is refused.
VERSION = 1
_FORMAT = "format"


def write_archive(path: Path, kind: str, arrays: Arrays) -> None:
    """Write arrays (numbers, flags, text) under a temporary name, then rename. Raises InputError when the disk refuses."""
    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, array in {_FORMAT: _format(kind), **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_archive(path: Path, kind: str) -> Arrays:
    """The arrays of a file that was written as this kind. Raises InputError for one that is missing, damaged, of another
    kind or of another version, or larger than the memory."""
    try:
        arrays = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path} is not there: save a map first (save_map), or name its folder") from None
    except MemoryError as error:
        raise InputError(f"no memory for {path}: make some free") from error
    except Exception as error:  # a damaged archive raises whatever its members raise
        why = " ".join(str(error).split())
        raise InputError(f"{path} is damaged and cannot be read ({why}): save the map anew") from error
    found = arrays.pop(_FORMAT, np.array("unknown"))
    if str(found) != str(_format(kind)):
        raise InputError(
            f"{path} holds '{found}', not '{_format(kind)}': save the map anew with this version"
        )
    return arrays


def _read(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # reading to the end checks the sum of the bytes
                    raise ValueError("bytes left over")
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _format(kind: str) -> np.ndarray[tuple[()], np.dtype[np.str_]]:
    return np.array(f"recon3d_ros {kind} {VERSION}")
