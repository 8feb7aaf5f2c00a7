# SPDX-License-Identifier: Apache-2.0
"""The kernels for the GPU, compiled for the host: what runs there is the very source and the very driver."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from recon3d_ros.mapping.cuda.device import CudaDevice, source


class HostDevice:
    """A device whose memory is the host's and whose threads are some of the host's."""

    xp = np

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self.launched = []

    def launch(self, kernel, groups, threads, *arguments):
        values = [np.asarray(self.address(a), np.uint64) if self._in_memory(a) else a for a in arguments]
        values = [np.ascontiguousarray(v) for v in values]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        getattr(self._library, f"launch_{kernel}")(groups, threads, pointers)
        self.launched.append(kernel)

    @staticmethod
    def _in_memory(argument):
        """Arrays go by address; scalars and structures by value, as with cupy."""
        return isinstance(argument, np.ndarray) and argument.dtype.kind != "V"

    def put(self, array, dtype):
        return np.ascontiguousarray(np.from_dlpack(array), dtype)

    def get(self, array):
        return array

    def address(self, array):
        assert array.flags.c_contiguous
        return array.ctypes.data


@pytest.fixture(scope="session")
def host_library(tmp_path_factory):
    """The kernels as a library of the host, made by g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    folder = tmp_path_factory.mktemp("kernels")
    text = source()
    launchers = [f"LAUNCHER({name})\n" for name in re.findall(r"__global__ void (\w+)\(", text)]
    shim = (Path(__file__).parent / "host.h").read_text()
    (folder / "kernels.cpp").write_text("".join([shim, text, *launchers]))
    flags = ["-O2", "-std=c++17", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Werror"]
    command = [
        compiler,
        *flags,
        "-shared",
        "-fPIC",
        str(folder / "kernels.cpp"),
        "-o",
        str(folder / "kernels.so"),
    ]
    subprocess.run(command, check=True)
    return folder / "kernels.so"


@pytest.fixture
def host(host_library):
    """The device on the host."""
    return HostDevice(host_library)


@pytest.fixture
def gpu():
    """The GPU."""
    pytest.importorskip("cupy")
    return CudaDevice()


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """Each device in turn."""
    return request.getfixturevalue(request.param)
