# SPDX-License-Identifier: Apache-2.0
"""From the raw numbers of a dense head to points, depth and confidence. Names are those that checkpoints are described with
(GCT specification, section 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor


def inverse_log(x: Tensor) -> Tensor:
    """Linear about 0 and exponential far from it, sign kept."""
    return x.sign() * x.abs().expm1()


def _norm(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def _norm_exp(x: Tensor) -> Tensor:
    """The direction of x, at a distance exponential in its length."""
    length = x.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    return x / length * length.expm1()


def _xy_inverse_log(x: Tensor) -> Tensor:
    """(x, y) are slopes, the last channel the inverse log of the depth."""
    z = inverse_log(x[..., 2:])
    return x.new_tensor([1, 1, 0]) * x * z + x.new_tensor([0, 0, 1]) * z


#: Of points or depth, channels last.
GEOMETRY: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "exp": lambda x: x.exp(),
        "relu": lambda x: x.relu(),
        "sigmoid": lambda x: x.sigmoid(),
        "norm": _norm,
        "norm_exp": _norm_exp,
        "inv_log": inverse_log,
        "xy_inv_log": _xy_inverse_log,
    }
)
#: Of confidence.
CONFIDENCE: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"expp1": lambda x: 1 + x.exp(), "expp0": lambda x: x.exp(), "sigmoid": lambda x: x.sigmoid()}
)
