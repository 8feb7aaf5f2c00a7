# SPDX-License-Identifier: Apache-2.0
"""Weights files: all forms are read, none runs code, and what does not fit is said in one line."""

import os
import pickle

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from recon3d_ros.backends.learned.checkpoint import load_into, read, structure_problems  # noqa: E402
from recon3d_ros.core.errors import InputError  # noqa: E402


class Tiny(torch.nn.Module):
    """A network with parameters, a stored buffer and one of integers."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


class Hostile:
    """Unpickling it with pickle.load creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def tiny():
    torch.manual_seed(0)
    return Tiny()


def empty():
    with torch.device("meta"):
        return Tiny()


def save(path, state, form):
    if form == "safetensors":
        safetensors.save_file(state, path, metadata={"architecture": "{}"})
    elif form == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({form: state, "epoch": 7} if form in ("model", "state_dict") else state, path)
    return path


@pytest.fixture
def message(tmp_path):
    """The one line with which a file is refused."""

    def of(content, name="x.pt"):
        path = content
        if isinstance(content, bytes):
            path = tmp_path / name
            path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read(path)
        text = str(caught.value)
        assert len(text.splitlines()) == 1 and str(path) in text
        return text

    return of


@pytest.mark.parametrize("form", ["safetensors", "bare", "model", "state_dict", "legacy"])
def test_every_form_gives_the_network_its_weights(tmp_path, form):
    source = tiny()
    checkpoint = read(save(tmp_path / "weights.any", source.state_dict(), form))
    network = empty()
    load_into(network, checkpoint)
    for name, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert network(torch.ones(2, 4)).shape == (2, 2)
    assert checkpoint.metadata == ({"architecture": "{}"} if form == "safetensors" else {})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_become_float32_and_integers_stay(tmp_path, dtype):
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tiny().state_dict().items()}
    network = empty()
    load_into(network, read(save(tmp_path / "w.safetensors", state, "safetensors")))
    types = {n: t.dtype for n, t in network.state_dict().items()}
    assert types.pop("norm.num_batches_tracked") == torch.int64
    assert set(types.values()) == {torch.float32}
    assert torch.equal(network.first.weight, state["first.weight"].float())


def test_float32_weights_are_shared_with_the_file_not_copied(tmp_path):
    checkpoint = read(save(tmp_path / "w.pt", tiny().state_dict(), "bare"))
    network = empty()
    load_into(network, checkpoint)
    assert network.first.weight.data_ptr() == checkpoint.tensors["first.weight"].data_ptr()


def test_missing_names_are_counted_and_the_first_three_given(tmp_path):
    state = tiny().state_dict()
    kept = {"last.weight": state["last.weight"]}
    with pytest.raises(InputError, match=r"8 missing \(first\.weight, first\.bias, norm\.weight, \.\.\.\)"):
        load_into(empty(), read(save(tmp_path / "w.pt", kept, "bare")))


def test_unexpected_names_are_an_error_unless_they_belong_to_a_part_switched_off(tmp_path):
    state = tiny().state_dict() | {"points.weight": torch.ones(3), "points.bias": torch.ones(3)}
    checkpoint = read(save(tmp_path / "w.pt", state, "bare"))
    with pytest.raises(InputError, match=r"2 unexpected \(points\.weight, points\.bias\)"):
        load_into(empty(), checkpoint)
    load_into(empty(), checkpoint, ignore=("points.",))


def test_a_part_that_is_there_is_never_ignored(tmp_path):
    state = {n: t for n, t in tiny().state_dict().items() if not n.startswith("last.")}
    checkpoint = read(save(tmp_path / "w.pt", state, "bare"))
    with pytest.raises(InputError, match=r"2 missing \(last\.weight, last\.bias\)"):
        load_into(empty(), checkpoint, ignore=("last.",))
    whole = read(save(tmp_path / "v.pt", tiny().state_dict(), "bare"))
    network = empty()
    load_into(network, whole, ignore=("last.",))
    assert torch.equal(network.last.bias, tiny().last.bias)


def test_wrong_shapes_are_given_with_the_expected_ones(tmp_path):
    state = tiny().state_dict() | {"first.weight": torch.ones(5, 8)}
    checkpoint = read(save(tmp_path / "w.pt", state, "bare"))
    with pytest.raises(
        InputError, match=r"another architecture: 1 of .*first\.weight: expected 8x4, found 5x8"
    ):
        load_into(empty(), checkpoint)


def test_quantised_weights_are_refused(tmp_path):
    state = tiny().state_dict()
    state["first.weight"] = state["first.weight"].to(torch.int8)
    (problem,) = structure_problems(empty(), read(save(tmp_path / "w.pt", state, "bare")))
    assert problem == ("1 not floating point, quantised weights are not supported (first.weight: int8)")


def test_nothing_stays_on_the_meta_device(tmp_path):
    network = empty()
    network.register_buffer("table", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(RuntimeError, match="table"):
        load_into(network, read(save(tmp_path / "w.pt", tiny().state_dict(), "bare")))


@pytest.mark.parametrize("form", ["model", "legacy", "plain pickle", "pickle of protocol 2"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, message, form):
    trace, path = tmp_path / "trace", tmp_path / "hostile.pt"
    if "pickle" in form:
        path.write_bytes(pickle.dumps({"model": Hostile(trace)}, 2 if "2" in form else None))
    else:
        save(path, {"a": Hostile(trace)}, form)
    assert "refused" in message(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists(), "the pickle is harmless, the test says nothing"


@pytest.mark.parametrize("form", ["safetensors", "bare", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_named_damaged(tmp_path, message, form, share):
    content = save(tmp_path / "whole", tiny().state_dict(), form).read_bytes()
    text = message(content[: int(len(content) * share)])
    assert "fetch it again" in text and ("damaged" in text or "no weights file" in text)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html><html>404</html>", "neither safetensors nor torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"", "an empty file"),
    ],
)
def test_other_files_are_told_from_weights(message, content, told):
    assert told in message(content)


def test_a_missing_file_and_a_folder_are_told(tmp_path, message):
    assert "no such weights file" in message(tmp_path / "none.pt")
    assert "Is a directory" in message(tmp_path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({"a": torch.ones(2), "epoch": 3}, "entry 'epoch' is not a tensor (int)"),
        ({"model": {"a": "b"}}, "entry 'a' is not a tensor (str)"),
        ({3: torch.ones(2)}, "entry '3'"),
        ({"a\nb": torch.ones(2)}, "damaged"),
        ({"a": torch.ones(2, device="meta")}, "entry 'a' holds no plain values"),
        ({"a": torch.eye(2).to_sparse()}, "entry 'a' holds no plain values"),
    ],
)
def test_what_is_no_state_dict_is_told(tmp_path, message, data, told):
    torch.save(data, tmp_path / "data.pt")
    assert told in message(tmp_path / "data.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_whole_module_and_a_program_are_told(tmp_path, message):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    assert "torch.nn.modules.linear.Linear" in message(tmp_path / "module.pt")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "program.pt")
    assert "TorchScript" in message(tmp_path / "program.pt")
