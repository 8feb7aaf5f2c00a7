# SPDX-License-Identifier: Apache-2.0
"""Where the voxels lie: the choice of the device, what it is given, and that CUDA's own compiler takes the kernels."""

import importlib.util
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.config import MeshParams
from recon3d_ros.core.errors import InputError, MissingDependency
from recon3d_ros.mapping.cuda.device import choose, source
from recon3d_ros.mapping.cuda.volume import CudaVolume
from recon3d_ros.mapping.mesher import Mesher
from recon3d_ros.mapping.splat import splat
from recon3d_ros.mapping.tsdf import Volume
from recon3d_ros.mapping.warm_up import warm_up
from recon3d_ros.mapping.weld import joined

without_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="cupy is here")


def test_the_cuda_compiler_takes_the_kernels(tmp_path):
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc here")
    (tmp_path / "kernels.cu").write_text(source())
    # As cupy compiles them, which fails as well where code of the host is needed.
    flags = ["-std=c++14", "--fmad=false", "-arch=sm_80", "-Werror", "all-warnings", "-ptx"]
    command = [compiler, *flags, "kernels.cu", "-o", "kernels.ptx"]
    subprocess.run(command, check=True, cwd=tmp_path)
    text = (tmp_path / "kernels.ptx").read_text()
    assert text.count(".entry") == source().count("__global__")
    assert "fma." not in text and "bar.sync" not in text


@without_cupy
def test_without_cupy_auto_takes_the_cpu_and_cuda_says_in_one_line_what_to_install():
    assert choose(MeshParams(device="auto")) is None and choose(MeshParams(device="cpu")) is None
    with pytest.raises(MissingDependency, match=r"pip install 'recon3d_ros\[cuda\]'") as error:
        Mesher(MeshParams(device="cuda"))
    assert "\n" not in str(error.value)


def test_blocks_on_disk_and_voxels_on_a_gpu_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match=r"mesh\.spill"):
        choose(MeshParams(device="cuda", spill=str(tmp_path)))
    assert choose(MeshParams(device="auto", spill=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("wanted", "voxel_size", "kind"),
    [("auto", 0.008, CudaVolume), ("auto", 0.05, Volume), ("cuda", 0.05, CudaVolume), ("cpu", 0.008, Volume)],
)
def test_auto_takes_the_gpu_where_voxels_are_small_against_the_depth(
    host, take_flight, monkeypatch, wanted, voxel_size, kind
):
    monkeypatch.setattr(
        "recon3d_ros.mapping.volumes.choose", lambda params: None if params.device == "cpu" else host
    )
    target = Mesher(MeshParams(device=wanted, voxel_size=voxel_size))
    assert target.integrate(take_flight(1)[0].keyframe())  # median depth about 2
    assert isinstance(target._volume, kind)


def test_before_the_first_keyframe_every_kernel_is_compiled_on_the_device_that_may_be_used(host, monkeypatch):
    def choose(params):
        return None if params.device == "cpu" else host

    monkeypatch.setattr("recon3d_ros.mapping.warm_up.choose", choose)
    monkeypatch.setattr("recon3d_ros.mapping.volumes.choose", choose)
    warm_up(MeshParams(device="cpu"))
    assert not host.launched
    warm_up(MeshParams(device="auto"))
    assert len(set(host.launched)) == source().count("__global__")


def test_the_mesher_gives_the_same_mesh_on_either_device_after_corrections(host, take_walk, monkeypatch):
    meshes = []
    for device in (None, host):
        monkeypatch.setattr("recon3d_ros.mapping.volumes.choose", lambda params, device=device: device)
        target = Mesher(MeshParams(device="auto" if device is None else "cuda", voxel_size=0.04))
        true, drifted = take_walk(8), take_walk(8, drift=20)
        for keyframe in drifted:
            target.integrate(keyframe)
        target.changed()
        target.correct({k.id: k.T_map_cam for k in true})
        assert target.rebuild() and target.changed()
        meshes.append(target.surface())
    a, b = meshes
    assert len(a.triangles) > 1000 and np.array_equal(a.vertices[a.triangles], b.vertices[b.triangles])


def test_depth_of_torch_is_taken_as_it_is(host, take_flight):
    torch = pytest.importorskip("torch")
    tensor = torch.rand(4, 5)
    assert host.put(tensor, np.float32).ctypes.data == tensor.data_ptr()
    shot = take_flight(1)[0]
    image, _, _ = splat(shot.keyframe(), 100.0)
    meshes = []
    for depth in (image.depth, torch.from_numpy(image.depth)):
        volume = CudaVolume(host, 0.04, 0.16, 1.0, 1000)
        volume.integrate(replace(image, depth=depth), shot.T_map_cam, 6.0)
        meshes.append(joined(volume.extract_all()))
    a, b = meshes
    assert len(a.triangles) and np.array_equal(a.vertices[a.triangles], b.vertices[b.triangles])


@pytest.mark.gpu
def test_depth_of_torch_on_the_gpu_is_taken_without_a_copy(gpu):
    torch = pytest.importorskip("torch")
    tensor = torch.rand(4, 5, device="cuda")
    assert gpu.address(gpu.put(tensor, np.float32)) == tensor.data_ptr()
