# SPDX-License-Identifier: Apache-2.0
"""The tiny network of the reference vectors, and one of our own for clones without them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from recon3d_ros.backends.gct.architecture import Architecture


def architecture_of(config: dict) -> Architecture:
    """Our description of the network in a `tiny_config.json`."""
    return Architecture(
        image_size=config["img_size"],
        patch=config["patch_size"],
        width=config["embed_dim"],
        heads=config["num_heads"],
        depth=config["depth"],
        mlp_ratio=config["mlp_ratio"],
        selected=tuple(config["selected_idx"]),
        vit_depth=config["vit_depth"],
        vit_heads=config["vit_num_heads"],
        camera_depth=config["camera_trunk_depth"],
        camera_heads=config["camera_num_heads"],
        dpt_features=config["dpt_features"],
        dpt_channels=tuple(config["dpt_out_channels"]),
        rope2d_base=config["rope2d_base"],
        rope3d_base=config["rope3d_theta"],
        rope3d_split=tuple(config["fhw_dim"]),
    )


@pytest.fixture(scope="session")
def vectors(vectors_dir):
    """The folder of the reference vectors of this network; `load(name)` gives the tensors of a file, `meta(name)` what
    its index says."""
    torch = pytest.importorskip("safetensors.torch")
    folder = vectors_dir / "gct"
    index = json.loads((folder / "index.json").read_text())
    return SimpleNamespace(
        folder=folder,
        load=lambda name: torch.load_file(folder / f"{name}.safetensors"),
        meta=lambda name: index[name]["meta"],
        tiny=architecture_of(json.loads((folder / "tiny_config.json").read_text())),
    )


@pytest.fixture(scope="session")
def tiny(vectors):
    """The network of the reference vectors with its weights."""
    torch = pytest.importorskip("torch")
    from recon3d_ros.backends.gct.model import Gct

    with torch.device("meta"):
        model = Gct(vectors.tiny, point_head=True)
    state = {name: t.float() for name, t in vectors.load("tiny_weights").items()}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def frames(vectors):
    """The 20 images of the reference vectors, float32 [20,3,56,84] in 0..1."""
    return vectors.load("images")["frames_u8"].float() / 255


#: Height and width of images for `own_tiny`: 12 tokens each.
OWN_SIZE = (28, 42)


@pytest.fixture(scope="session")
def own_frames():
    """48 images for `own_tiny`, float32 [48,3,28,42] in 0..1: a camera that slides over a picture."""
    torch = pytest.importorskip("torch")
    height, width = OWN_SIZE
    generator = torch.Generator().manual_seed(8)
    coarse = torch.rand((1, 3, 24, 48), generator=generator)
    picture = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")[0].clamp(0, 1)
    return torch.stack([picture[:, i : i + height, 3 * i : 3 * i + width] for i in range(48)])
