# SPDX-License-Identifier: Apache-2.0
"""Saved maps as files: what was written is read, what is not that is refused in one line, and no older file is lost."""

import io
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime import archive
from recon3d_ros.runtime.archive import read_archive, write_archive

ARRAYS = {
    "numbers": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every second": np.arange(10)[::2],
    "number": np.array(0.1),
    "flags": np.array([True, False]),
    "text": np.array(["one", "Größe"]),
    "none": np.empty((0, 3), np.float32),
    "a.b": np.array(["part"]),
}


@pytest.fixture
def path(tmp_path):
    """A file that holds an older map."""
    write_archive(tmp_path / "map.npz", "kind", {"older": np.array(1)})
    return tmp_path / "map.npz"


def refused(path, kind="kind"):
    """The line with which a file is refused."""
    with pytest.raises(InputError) as error:
        read_archive(path, kind)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_arrays_are_read_as_they_were_written(path):
    write_archive(path, "kind", ARRAYS)
    arrays = read_archive(path, "kind")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array)
    assert [p.name for p in path.parent.iterdir()] == ["map.npz"]


def test_numpy_reads_it_too(path):
    write_archive(path, "kind", ARRAYS)
    with np.load(path, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["numbers"], ARRAYS["numbers"])
        assert str(arrays["format"]) == f"recon3d_ros kind {archive.VERSION}"


def test_a_missing_file_names_the_mend(tmp_path):
    assert "save a map first" in refused(tmp_path / "map.npz")


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(path, left):
    write_archive(path, "kind", ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    assert "damaged" in refused(path)


def test_a_file_with_other_bytes_inside_is_refused(path):
    write_archive(path, "kind", {"noise": np.frombuffer(np.random.default_rng(0).bytes(100_000), np.uint8)})
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"no archive at all", pickle.dumps({"format": 1}), b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(path, content):
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "map.npz").mkdir()
    assert "damaged" in refused(tmp_path / "map.npz")


def test_another_kind_another_version_and_none_are_refused(path, monkeypatch):
    assert "holds 'recon3d_ros kind 1', not 'recon3d_ros other 1'" in refused(path, "other")
    monkeypatch.setattr(archive, "VERSION", archive.VERSION + 1)
    assert "not 'recon3d_ros kind 2'" in refused(path)
    np.savez(path, numbers=ARRAYS["numbers"])
    assert "holds 'unknown'" in refused(path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("name", ["format", "numbers"])
def test_objects_are_never_unpickled(path, name):
    trap, member = path.parent / "trap", io.BytesIO()
    np.lib.format.write_array(member, np.array([Trap(str(trap))], object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.npy", member.getvalue())
    assert "damaged" in refused(path) and not trap.exists()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.npy", pickle.dumps(Trap(str(trap))))
    assert "damaged" in refused(path) and not trap.exists()


def test_more_than_the_memory_holds_is_refused(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("numbers.npy", header.getvalue())
    assert "no memory" in refused(path)


def test_objects_are_not_written(path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_archive(path, "kind", {"objects": np.array([None])})
    assert read_archive(path, "kind")["older"] == 1 and len(list(path.parent.iterdir())) == 1


def test_a_full_disk_leaves_the_older_file_as_it_was(path):
    """A file may grow to 100 kB here: the operating system refuses what is beyond, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            write_archive(
                path, "kind", {"noise": np.frombuffer(np.random.default_rng(0).bytes(10**6), np.uint8)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot write {path}" in str(error.value) and "\n" not in str(error.value)
    assert read_archive(path, "kind")["older"] == 1 and len(list(path.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("file", "missing"):
        with pytest.raises(InputError, match="cannot write") as error:
            write_archive(tmp_path / folder / "map.npz", "kind", ARRAYS)
        assert "\n" not in str(error.value)
