# SPDX-License-Identifier: Apache-2.0
"""The kernels for the GPU against those for the CPU: the same keyframes give the same voxels and the same triangles. They
run on the host here (see conftest); `device` is that one and, where there is one, the GPU."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d_ros.core.errors import InputError
from recon3d_ros.mapping import regions
from recon3d_ros.mapping.cuda.volume import CudaVolume
from recon3d_ros.mapping.splat import splat
from recon3d_ros.mapping.tsdf import Volume

FAR = 6.0


def images(shots, **how):
    """Depth images and poses of some shots."""
    return [(splat(shot.keyframe(i, **how), 100.0)[0], shot.T_map_cam) for i, shot in enumerate(shots)]


def pair(device, voxel_size=0.04, min_weight=1.0, capacity=20_000, carve=True, widest=0.3):
    """A volume on the CPU and one of the kernels for the GPU."""
    about = (voxel_size, 4 * voxel_size, min_weight, capacity, carve, widest)
    return Volume(*about), CudaVolume(device, *about)


def feed(volumes, views, spread=0.0):
    for image, pose in views:
        for volume in volumes:
            volume.integrate(image, pose, FAR, spread)


def blocks_of(volume):
    return volume.pool.blocks if isinstance(volume, CudaVolume) else volume.blocks


def held(volume, get=np.asarray):
    """What the living slots hold, in the order of block coordinates."""
    names = ("coords", "tsdf", "weight", "colour", "last_seen", "dirty", "alive")
    blocks = {name: get(getattr(blocks_of(volume), name)) for name in names}
    slots = np.flatnonzero(blocks["alive"])
    slots = slots[np.lexsort(blocks["coords"][slots].T)]
    return {name: array[slots] for name, array in blocks.items()}


def assert_same_voxels(cpu, gpu):
    a, b = held(cpu), held(gpu, gpu._device.get)
    assert [name for name in a if not np.array_equal(a[name], b[name])] == []


def assert_same_triangles(cpu, gpu):
    want, got = cpu.extract_all(), gpu.extract_all()
    assert [block.id for block in got] == [block.id for block in want]
    assert sum(len(block.triangles) for block in want) > 1000
    for a, b in zip(want, got, strict=True):
        assert len(a.vertices) == len(b.vertices)  # no vertex twice
        for name in ("vertices", "colours"):
            assert np.array_equal(getattr(a, name)[a.triangles], getattr(b, name)[b.triangles])


@pytest.mark.parametrize("spread", [0.0, 0.08], ids=["even band", "band grows with noise"])
@pytest.mark.parametrize("carve", [True, False])
def test_voxels_and_triangles_equal_those_of_the_cpu_bit_for_bit(device, take_flight, carve, spread):
    cpu, gpu = pair(device, carve=carve)
    for view in images(take_flight(6), noise=0.01, confidence=0.7):
        feed((cpu, gpu), [view], spread)
        assert_same_voxels(cpu, gpu)
    assert_same_triangles(cpu, gpu)
    assert gpu.count == cpu.count


def test_many_observations_of_one_place_reach_the_same_caps(device, take_flight):
    cpu, gpu = pair(device, voxel_size=0.1)
    ((image, pose),) = images(take_flight(1))
    for number in range(110):
        brighter = np.minimum(image.colours.astype(int) + number, 255).astype(np.uint8)
        feed((cpu, gpu), [(replace(image, colours=brighter), pose)])
    assert_same_voxels(cpu, gpu)


def test_the_same_blocks_count_as_changed(device, take_flight):
    cpu, gpu = pair(device)
    for some in (take_flight(4), take_flight(2, seed=3)):
        feed((cpu, gpu), images(some))
        want, got = regions.regions_of(cpu.take_changed()), regions.regions_of(gpu.take_changed())
        assert len(want) and np.array_equal(want, got)
    assert len(gpu.take_changed()) == 0


def test_the_same_share_counts_as_seen(device, take_flight):
    cpu, gpu = pair(device)
    views = images(take_flight(6))
    feed((cpu, gpu), views[:4])
    shares = [[v.seen_share(image, pose, FAR, 2.0) for v in (cpu, gpu)] for image, pose in views]
    assert all(a == b for a, b in shares) and len({a for a, _ in shares}) > 1
    assert gpu.seen_share(views[0][0], views[0][1], 0.1, 2.0) == 0.0


def test_memory_grows_with_the_blocks(device, take_flight, monkeypatch):
    monkeypatch.setattr("recon3d_ros.mapping.cuda.memory._FIRST_BLOCKS", 64)
    cpu, gpu = pair(device)
    feed((cpu, gpu), images(take_flight(3)))
    assert 64 < gpu.count <= len(gpu.pool.blocks.alive) < 4 * gpu.count
    assert_same_voxels(cpu, gpu)
    assert_same_triangles(cpu, gpu)


def test_a_full_pool_drops_what_was_not_seen_for_longest_and_stays_consistent(device, take_flight):
    _, gpu = pair(device, capacity=400)
    shown = {}
    for number, view in enumerate(images(take_flight(16))):
        feed([gpu], [view])
        for block in gpu.extract(regions.regions_meeting(gpu.take_changed())):
            shown[block.id] = block
        everything = {block.id: block for block in gpu.extract_all()}
        assert everything.keys() == {i for i, block in shown.items() if len(block.triangles)}
        assert all(np.array_equal(shown[i].vertices, b.vertices) for i, b in everything.items())
        assert gpu.count <= 400, number
        blocks = held(gpu, gpu._device.get)
        assert len(np.unique(blocks["coords"], axis=0)) == gpu.count
    assert gpu.evicted > 0


def test_what_finds_no_room_at_all_is_counted_as_refused(device, take_flight):
    _, gpu = pair(device, capacity=64)
    feed([gpu], images(take_flight(3)))
    assert gpu.count == 64 and gpu.refused > 0 and len(gpu.extract_all()) > 0


def test_no_memory_left_on_the_device_is_a_full_pool(device, take_flight, monkeypatch):
    class Exhausted:
        def __getattr__(self, name, xp=device.xp):
            return getattr(xp, name)

        def full(self, *_):
            raise MemoryError

    monkeypatch.setattr("recon3d_ros.mapping.cuda.memory._FIRST_BLOCKS", 64)
    _, gpu = pair(device)
    monkeypatch.setattr(device, "xp", Exhausted())
    feed([gpu], images(take_flight(3)))
    assert gpu.count == 64 and gpu.refused > 0 and gpu.evicted > 0


def test_comparing_finds_the_blocks_that_either_volume_lacks_or_has_otherwise(device, take_flight):
    (cpu, gpu), (other_cpu, other_gpu) = pair(device), pair(device)
    views = images(take_flight(4))
    feed((cpu, gpu), views[:3])
    feed((other_cpu, other_gpu), views[1:])
    want = np.concatenate(list(cpu.compare(other_cpu)))
    got = np.concatenate(list(gpu.compare(other_gpu)))
    assert len(want) > 0 and np.array_equal(np.unique(want, axis=0), np.unique(got, axis=0))
    assert sum(map(len, gpu.compare(gpu))) == 0


def test_a_checkpoint_gives_the_content_of_its_moment(device, take_flight):
    cpu, gpu = pair(device)
    views = images(take_flight(4))
    feed((cpu, gpu), views[:2])
    alone = gpu.nbytes
    checkpoint = gpu.checkpoint()
    assert gpu.nbytes > 1.5 * alone
    feed([gpu], views[2:])
    restored, steps = checkpoint.restored()
    assert list(steps) == []
    assert_same_triangles(cpu, restored)
    feed((cpu, restored), views[2:])
    assert_same_triangles(cpu, restored)
    gpu.forget(checkpoint)
    gpu.release()
    assert gpu.nbytes < 1.5 * alone + gpu.count * 3600


def test_an_empty_volume_has_no_surface(device):
    _, gpu = pair(device)
    assert gpu.extract_all() == [] and gpu.extract(np.empty((0, 3), np.int32)) == []
    assert gpu.count == 0 and len(gpu.coordinates()) == 0 and len(gpu.take_changed()) == 0


def saved(volume):
    """What is saved of a volume."""
    work = volume.checkpoint().saving()
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("direction", ["to the device", "from the device"])
def test_what_one_saved_the_other_goes_on_with(device, take_flight, monkeypatch, direction):
    monkeypatch.setattr("recon3d_ros.mapping.cuda.memory._FIRST_BLOCKS", 64)
    first, second = pair(device), pair(device)
    views = images(take_flight(6))
    feed(first, views[:4])
    if direction == "to the device":
        cpu, gpu = first[0], second[1]
        gpu.resume(saved(cpu))
    else:
        cpu, gpu = second[0], first[1]
        cpu.resume(saved(gpu))
    for some in (views[4:5], views[5:]):
        feed((cpu, gpu), some)
        assert_same_voxels(cpu, gpu)
    assert_same_triangles(cpu, gpu)


def test_a_full_device_volume_goes_on_with_what_it_saved(device, take_flight):
    _, gpu = pair(device, capacity=400)
    views = images(take_flight(12))
    feed([gpu], views[:8])
    assert gpu.evicted
    _, other = pair(device, capacity=400)
    other.resume(saved(gpu))
    for volume in (gpu, other):
        volume.take_changed()
    a, b = held(gpu, device.get), held(other, device.get)
    assert [name for name in a if not np.array_equal(a[name], b[name])] == []
    feed([other], views[8:])
    assert other.count <= 400 and sum(len(block.triangles) for block in other.extract_all()) > 1000


def test_a_device_without_room_for_what_was_saved_says_so_in_one_line(device, take_flight, monkeypatch):
    def refuse(*_):
        raise InputError("no memory")

    cpu, _ = pair(device)
    feed([cpu], images(take_flight(3)))
    monkeypatch.setattr("recon3d_ros.mapping.cuda.memory._FIRST_BLOCKS", 64)
    monkeypatch.setattr("recon3d_ros.mapping.cuda.memory._copy", refuse)
    _, small = pair(device)
    with pytest.raises(InputError, match=r"no room on the GPU.*mesh\.device"):
        small.resume(saved(cpu))
