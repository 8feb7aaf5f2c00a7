# SPDX-License-Identifier: Apache-2.0
"""A checkpoint becomes a network only if every weight of every part that is switched on is there."""

import json

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from recon3d_ros.backends.gct.architecture import Architecture  # noqa: E402
from recon3d_ros.backends.gct.loading import architecture_of, build, load, problems  # noqa: E402
from recon3d_ros.backends.gct.model import Gct  # noqa: E402
from recon3d_ros.backends.learned.checkpoint import read  # noqa: E402
from recon3d_ros.core.errors import InputError  # noqa: E402

SMALL = Architecture(
    image_size=28,
    width=64,
    heads=1,
    depth=4,
    selected=(0, 1, 2, 3),
    vit_depth=1,
    vit_heads=1,
    camera_depth=1,
    camera_heads=1,
    dpt_features=16,
    dpt_channels=(8, 8, 8, 8),
)


@pytest.fixture(scope="module")
def state():
    """Weights of a small network with point head."""
    torch.manual_seed(0)
    return Gct(SMALL, point_head=True).state_dict()


def without_points(state):
    return {name: value for name, value in state.items() if not name.startswith("point_head.")}


@pytest.fixture
def file(tmp_path):
    """Writes a safetensors file with the architecture in its header."""

    def write(state, architecture=""):
        metadata = {"architecture": architecture or SMALL.to_json()}
        safetensors.save_file(state, tmp_path / "small.safetensors", metadata=metadata)
        return tmp_path / "small.safetensors"

    return write


def test_a_checkpoint_becomes_a_network_with_its_weights(file, state):
    network = load(file(state), point_head=True)
    assert network.arch == SMALL and not network.training
    loaded = network.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[n], state[n]) for n in state)


def test_weights_of_a_point_head_that_is_off_are_left_aside(file, state):
    network = load(file(state))
    assert network.point_head is None and network.state_dict().keys() == without_points(state).keys()


def test_d1_a_point_head_without_weights_is_an_error_not_noise(file, state):
    path = file(without_points(state))
    with pytest.raises(InputError, match="no point head"):
        load(path, point_head=True)
    assert load(path).point_head is None


def test_a_point_head_that_lacks_one_weight_is_an_error(file, state):
    lacking = {name: value for name, value in state.items() if name != "point_head.norm.weight"}
    with pytest.raises(InputError, match=r"1 missing \(point_head\.norm\.weight\)"):
        load(file(lacking), point_head=True)


@pytest.mark.parametrize("part", ["aggregator.", "camera_head.", "depth_head."])
def test_any_missing_weight_is_an_error(file, state, part):
    name = [n for n in state if n.startswith(part)][-1]
    with pytest.raises(InputError, match=f"1 missing \\({name}\\)"):
        load(file({n: v for n, v in state.items() if n != name}))


def test_other_sizes_than_those_written_are_an_error(file, state):
    other = json.dumps(json.loads(SMALL.to_json()) | {"dpt_features": 32})
    with pytest.raises(InputError, match="weights of another architecture"):
        load(file(state, other))


def test_problems_look_at_the_point_head_where_there_is_one(file, state):
    assert problems(read(file(state))) == () == problems(read(file(without_points(state))))
    lacking = {name: value for name, value in state.items() if name != "point_head.norm.weight"}
    assert problems(read(file(lacking))) == ("1 missing (point_head.norm.weight)",)


def test_the_architecture_of_a_pt_file_lies_beside_it_or_is_the_public_one(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    assert architecture_of(read(tmp_path / "x.pt")) == Architecture()
    (tmp_path / "x.json").write_text(SMALL.to_json())
    assert architecture_of(read(tmp_path / "x.pt")) == SMALL


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ("[1]", "expected names and values"),
        ('{"deepth": 3}', "unknown entry 'deepth'"),
        ('{"depth": "deep"}', "'depth' cannot be 'deep'"),
        ('{"depth": 0}', "'depth' cannot be 0"),
        ('{"depth": true}', "'depth' cannot be True"),
        ('{"selected": [1, 2]}', r"'selected' cannot be \(1, 2\)"),
        ('{"rope3d": 1}', "'rope3d' cannot be 1"),
    ],
)
def test_a_senseless_architecture_is_told_with_its_file(tmp_path, text, told):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        architecture_of(read(tmp_path / "x.pt"))
    assert str(caught.value).startswith(str(tmp_path / "x.json")) and "\n" not in str(caught.value)


def test_the_public_network_has_the_names_and_shapes_of_the_manifest(vectors_dir):
    manifest = json.loads((vectors_dir / "gct" / "checkpoint_manifest.json").read_text())
    for point_head in (False, True):
        expected = manifest["tensors"] | (manifest["optional_point_head"] if point_head else {})
        found = {name: list(t.shape) for name, t in build(Architecture(), point_head).state_dict().items()}
        assert found == {name: about["shape"] for name, about in expected.items()}
