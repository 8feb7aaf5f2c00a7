# SPDX-License-Identifier: Apache-2.0
"""The kernels of attention without a mask, and the choice among those that are present. All compute the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d_ros.core.errors import InputError

log = logging.getLogger(__name__)

#: q [1,heads,N,dim], k and v [1,heads,M,dim] with any stride but the last -> [1,heads,N,dim].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Largest difference from `sdpa` that a kernel may show in the trial, by how many bits its inputs have.
_TOLERANCE = {4: 1e-4, 2: 2e-2}
#: Runs of a trial, the first of which compile.
_WARM_UP, _TIMED = 3, 10


@dataclass(frozen=True)
class Kernel:
    """A way to compute attention."""

    name: str
    attend: Attend
    reason: str = ""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own choice among its kernels."""
    return F.scaled_dot_product_attention(q, k, v)


def choose(name: str, device: torch.device, dtype: torch.dtype, heads: int, dim: int, tokens: int) -> Kernel:
    """The kernel `name`, or for `auto` the fastest of those that are present, measured once with a query of a frame of
    `tokens` and a cache of eight. On a CPU that is always SDPA. Raises InputError for one that is not present or wrong."""
    if name == "auto" and device.type == "cpu":
        return Kernel("sdpa", sdpa, "the only one that is fast on a CPU")
    shapes = (tokens, 8 * tokens, 8 * tokens) if name == "auto" else (8, 24, 24)
    q, k, v = (torch.randn(1, heads, n, dim, device=device, dtype=dtype) for n in shapes)
    if name != "auto":
        kernel = _made(name)
        _check(kernel, q, k, v)
        return Kernel(name, kernel.attend, "asked for")
    times = {}
    for candidate in ("sdpa", "flex", "flashinfer"):
        try:
            kernel = _made(candidate)
            _check(kernel, q, k, v)
            times[candidate] = (_milliseconds(kernel.attend, q, k, v), kernel)
        except Exception as error:  # whatever a foreign kernel raises: it is not used
            log.info("attention: %s left out (%s)", candidate, " ".join(str(error).split())[:120])
    measured = ", ".join(f"{n} {ms:.2f} ms" for n, (ms, _) in times.items())
    best = min(times, key=lambda n: times[n][0])
    return Kernel(best, times[best][1].attend, f"the fastest of {measured}")


def _made(name: str) -> Kernel:
    if name == "sdpa":
        return Kernel(name, sdpa)
    if name == "flex":
        return Kernel(name, _flex())
    return Kernel(name, _flashinfer())


def _flex() -> Attend:
    from torch.nn.attention.flex_attention import flex_attention

    # Compiled, it is one fused kernel; the cache grows from frame to frame, hence dynamic shapes. A CPU runs it as it is.
    compiled = torch.compile(flex_attention, dynamic=True)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (flex_attention if q.device.type == "cpu" else compiled)(q, k, v)

    return attend


def _flashinfer() -> Attend:
    try:
        import flashinfer
    except ImportError as error:
        raise InputError(
            "attention 'flashinfer' is not installed: pip install flashinfer-python, or use auto"
        ) from error

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype not in (torch.float16, torch.bfloat16):
            raise InputError(
                f"attention 'flashinfer' takes bfloat16 or float16, not {q.dtype}: set gct.precision"
            )
        query = q[0].transpose(0, 1)
        out = flashinfer.single_prefill_with_kv_cache(query, k[0], v[0], causal=False, kv_layout="HND")
        return out.transpose(0, 1)[None]

    return attend


def _check(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise InputError unless the kernel gives what `sdpa` gives."""
    difference = (kernel.attend(q, k, v).float() - sdpa(q, k, v).float()).abs().max().item()
    if not difference <= _TOLERANCE[q.element_size()]:
        raise InputError(f"attention '{kernel.name}' differs by {difference:.2g} from sdpa here: use auto")


def _milliseconds(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> float:
    for _ in range(_WARM_UP):
        attend(q, k, v)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(_TIMED):
        attend(q, k, v)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / _TIMED
