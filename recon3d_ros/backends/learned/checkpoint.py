# SPDX-License-Identifier: Apache-2.0
"""Weights files: safetensors, and what `torch.save` writes. No code in a file is ever executed."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon3d_ros.core.errors import InputError, require

#: Names under which training programs put the state dict.
_NESTED = ("model", "state_dict")
#: How many names an error gives.
_SHOWN = 3
#: The safetensors format allows no longer header.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A weights file: its tensors by name (on the CPU, read from the disk when touched), the metadata of a safetensors
    header (empty for other files) and where it lies."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    path: Path


def read(path: str | Path) -> Checkpoint:
    """Open a weights file; what it is, is told by its content. A `torch.save` file may hold a state dict, or one under
    `model` or `state_dict`. Raises InputError, one line, for what is missing, damaged, unsafe or not a state dict."""
    path = Path(path)
    kind = _kind(path)
    if kind == "safetensors":
        entries, metadata = _read_safetensors(path)
    else:
        entries, metadata = _state_dict(_read_torch(path, mmap=kind == "torch"), path), {}
    for name, value in entries.items():
        _check_entry(name, value, path)
    return Checkpoint(entries, metadata, path)


def structure_problems(
    module: torch.nn.Module, checkpoint: Checkpoint, ignore: Sequence[str] = ()
) -> tuple[str, ...]:
    """In what the names, shapes and kinds of `checkpoint` differ from those of `module` (which may be on the meta device):
    one text for each kind of difference, none if they fit. `ignore`: prefixes of names that may be left over."""
    expected = module.state_dict()
    found = {n: t for n, t in checkpoint.tensors.items() if n in expected or not n.startswith(tuple(ignore))}
    both = [(name, expected[name], found[name]) for name in expected if name in found]
    findings = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name}: expected {_shape(a)}, found {_shape(b)}" for name, a, b in both if a.shape != b.shape
        ],
        "not floating point, quantised weights are not supported": [
            f"{name}: {str(b.dtype).removeprefix('torch.')}"
            for name, a, b in both
            if a.is_floating_point() and not b.is_floating_point()
        ],
    }
    return tuple(f"{len(names)} {what} ({_first(names)})" for what, names in findings.items() if names)


def load_into(module: torch.nn.Module, checkpoint: Checkpoint, ignore: Sequence[str] = ()) -> None:
    """Give a module that was built on the meta device the tensors of `checkpoint`, floating point as float32 (shared with
    the file where it already is), and make it ready for inference. Entries whose names begin with one of `ignore`, which
    belong to parts that are switched off, may be left over. Raises InputError where names, shapes or kinds differ."""
    problems = structure_problems(module, checkpoint, ignore)
    if problems:
        raise InputError(
            f"{checkpoint.path}: weights of another architecture: {'; '.join(problems)}; "
            "`recon3d weights list` names those that fit"
        )
    module.load_state_dict({n: _plain(checkpoint.tensors[n]) for n in module.state_dict()}, assign=True)
    left = [n for n, t in (*module.named_parameters(), *module.named_buffers()) if t.is_meta]
    if left:
        raise RuntimeError(f"no values for {_first(left)}: buffers outside the state dict need a device")
    module.requires_grad_(False).eval()


def _kind(path: Path) -> str:
    """`safetensors`, `torch` or `legacy` (torch before 1.6)."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such weights file; see `recon3d weights list`") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a weights file") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch"
    if head.startswith(b"\x80"):
        return "legacy"
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not the weights: fetch them with  git lfs pull")
    what = "an empty file" if not head else "neither safetensors nor torch.save"
    raise InputError(f"{path}: no weights file ({what}): fetch it again")


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    safetensors = require("safetensors", "learned")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path, mmap: bool) -> object:
    """What the file holds, if that is plain data. Malformed pickles end in exceptions of every kind."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)|Unsupported operand", str(error))
        if code is None:
            raise _damaged(path, error) from error
        raise InputError(
            f"{path}: refused, it holds more than tensors ({code[1] or 'or is damaged'}) and reading that could run "
            "code; save its state dict alone, best as safetensors"
        ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise InputError(f"{path}: a TorchScript program, not weights; save its state dict") from error
        raise _damaged(path, error) from error


def _state_dict(data: object, path: Path) -> dict[str, Any]:
    for name in _NESTED:
        if isinstance(data, dict) and isinstance(data.get(name), dict):
            data = data[name]
            break
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__} where a state dict is expected")
    return dict(data)


def _check_entry(name: object, value: object, path: Path) -> None:
    if isinstance(name, str) and not name.isprintable():
        raise InputError(f"{path}: damaged (entry {name[:40]!a}): fetch it again")
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise InputError(
            f"{path}: not a state dict: entry '{name}' is not a tensor ({type(value).__name__}); "
            "save the state dict alone or under 'model'"
        )
    if value.is_meta or value.layout != torch.strided:
        raise InputError(f"{path}: entry '{name}' holds no plain values; save dense tensors")


def _plain(tensor: Tensor) -> Tensor:
    return (tensor.to(torch.float32) if tensor.is_floating_point() else tensor).contiguous()


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return InputError(f"{path}: damaged or cut off ({reason}): fetch it again")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
