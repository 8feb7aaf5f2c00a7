# SPDX-License-Identifier: Apache-2.0
"""Where the kernels of this folder run. The volume drives them through `Device`, which cupy fulfils on a GPU."""

from __future__ import annotations

from importlib import resources
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError, require

#: Files of kernels, one translation unit together.
SOURCES = ("blocks.cu", "tsdf.cu", "marching.cu")

#: Voxel size in units of the median depth up to which a GPU is worth it: 1 cm at 2 m.
WORTH = 0.005

_GROUP = 256  # threads that run together
_HOST = 1  # kDLCPU, the device number of DLPack


class Device(Protocol):
    """Memory and kernels. xp: the module of its arrays, numpy or one with numpy's functions."""

    xp: Any

    def launch(self, kernel: str, groups: int, threads: int, *arguments: Any) -> None:
        """Run groups * threads threads of a kernel. Arguments: arrays of the device, numpy scalars, structures."""

    def put(self, array: Any, dtype: Any) -> Any:
        """An array of the device, contiguous; what lies there already (`__dlpack__`) is taken as it is."""

    def get(self, array: Any) -> NDArray[Any]:
        """The array in the memory of the host, once all kernels before are done."""

    def address(self, array: Any) -> int:
        """Where the array begins, for kernels."""


class CudaDevice:
    """The current CUDA device by cupy. Raises MissingDependency without cupy, InputError without a device."""

    def __init__(self) -> None:
        self.xp: Any = require("cupy", "cuda")
        # Fused multiplications would round differently from the kernels for the CPU.
        self._module = self.xp.RawModule(code=source(), options=("--fmad=false",))
        try:
            self.xp.cuda.runtime.getDeviceCount()
            self._module.compile()
        except Exception as error:  # no device, no driver, no compiler: each has a type of its own
            why = str(error).partition("\n")[0]
            raise InputError(f"CUDA cannot be used here ({why}): set mesh.device to cpu") from error

    def launch(self, kernel: str, groups: int, threads: int, *arguments: Any) -> None:
        if groups:
            self._module.get_function(kernel)((groups,), (threads,), arguments)

    def put(self, array: Any, dtype: Any) -> Any:
        if array.__dlpack_device__()[0] == _HOST:
            return self.xp.asarray(np.ascontiguousarray(np.asarray(array), dtype))
        return self.xp.ascontiguousarray(self.xp.from_dlpack(array), dtype)

    def get(self, array: Any) -> NDArray[Any]:
        return np.asarray(array.get())

    def address(self, array: Any) -> int:
        return int(array.data.ptr)


def run(device: Device, kernel: str, threads: int | np.integer[Any], *arguments: Any) -> None:
    """Run so many threads, each of which works for itself."""
    device.launch(kernel, -(-int(threads) // _GROUP), _GROUP, *arguments)


def source() -> str:
    """All kernels as one text in CUDA C."""
    folder = resources.files(__package__)
    return "".join((folder / name).read_text() for name in SOURCES)


def choose(params: MeshParams) -> CudaDevice | None:
    """The device for the voxels; None: the CPU. With mesh.device `cuda` its absence is an InputError, with `auto` not."""
    if params.device == "cuda" and params.spill:
        raise InputError("mesh.spill needs the voxels in the CPU's memory: set mesh.device to cpu")
    if params.device == "cpu" or params.spill:
        return None
    try:
        return CudaDevice()
    except InputError:
        if params.device == "cuda":
            raise
        return None
