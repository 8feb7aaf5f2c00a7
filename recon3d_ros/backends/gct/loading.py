# SPDX-License-Identifier: Apache-2.0
"""A checkpoint to a network with its weights. Specification, sections 14 and 17 (D1)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from recon3d_ros.backends.gct.architecture import Architecture
from recon3d_ros.backends.gct.model import Gct
from recon3d_ros.backends.learned.checkpoint import Checkpoint, load_into, read, structure_problems
from recon3d_ros.core.errors import InputError

_POINT_HEAD = "point_head."


def load(path: str | Path, point_head: bool = False) -> Gct:
    """The network with the weights of a file, float32 on the CPU, for inference. Weights of a point head are left aside
    without `point_head`; with it they must be there. Raises InputError for what is missing, damaged or does not fit."""
    checkpoint = read(path)
    if point_head and not has_point_head(checkpoint):
        raise InputError(f"{path}: these weights have no point head, and one is asked for")
    network = build(architecture_of(checkpoint), point_head)
    load_into(network, checkpoint, ignore=() if point_head else (_POINT_HEAD,))
    return network


def problems(checkpoint: Checkpoint) -> tuple[str, ...]:
    """In what a checkpoint, its point head included if it has one, differs from the network; none if it fits."""
    return structure_problems(build(architecture_of(checkpoint), has_point_head(checkpoint)), checkpoint)


def has_point_head(checkpoint: Checkpoint) -> bool:
    """Whether any weight is one of a point head."""
    return any(name.startswith(_POINT_HEAD) for name in checkpoint.tensors)


def build(architecture: Architecture, point_head: bool = False) -> Gct:
    """The network without weights (on the meta device)."""
    with torch.device("meta"):
        return Gct(architecture, point_head)


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """Sizes of the network of a checkpoint: `architecture` in the metadata of a safetensors file, else a JSON file of the
    same name beside it (x.pt, x.json), else those of the public checkpoints. Raises InputError for senseless ones."""
    beside = checkpoint.path.with_suffix(".json")
    text, where = checkpoint.metadata.get("architecture"), checkpoint.path
    if text is None and beside.is_file():
        text, where = beside.read_text(errors="replace"), beside
    if text is None:
        return Architecture()
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise InputError("architecture of the weights: expected names and values")
        architecture = Architecture.from_mapping(values)
        _check(architecture)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: the architecture is no JSON ({error}); mend or remove it") from error
    except InputError as error:
        raise InputError(f"{where}: {error}; mend or remove it") from error
    return architecture


def _check(architecture: Architecture) -> None:
    """Every size has the type of its default, and counts are positive."""
    for field in dataclasses.fields(Architecture):
        value, default = getattr(architecture, field.name), field.default
        if isinstance(default, tuple):
            good = (
                isinstance(value, tuple) and len(value) == len(default) and all(type(v) is int for v in value)
            )
        elif isinstance(default, bool):
            good = isinstance(value, bool)
        else:
            good = type(value) in ({int} if isinstance(default, int) else {int, float}) and value > 0
        if not good:
            raise InputError(f"architecture of the weights: '{field.name}' cannot be {value!r}")
