# SPDX-License-Identifier: Apache-2.0
"""How noisy a depth image is. Of what is triangulated (stereo, plane sweeps, structured light) the inverse depth has the
same noise everywhere, so that of the depth grows with its square. On planes inverse depth is linear in the pixel: its
second differences hold nothing but noise, and their median hardly sees edges."""

from __future__ import annotations

import math

import numpy as np

from recon3d_ros.core.types import Floats
from recon3d_ros.mapping.jit import kernel

_REACH = 3  # pixels between the samples of a second difference: neighbours are often smoothed together
_SAMPLES = 4000
_FEWEST = 100

#: A second difference of three equal noises has sqrt(1 + 4 + 1) of their deviation; the median of |x| is 0.6745 of that.
_TO_SIGMA = 1.0 / (0.6745 * math.sqrt(6.0))


def inverse_depth_noise(depth: Floats) -> float:
    """Standard deviation of the inverse depth, 1 / map units, of a depth image float32 [h,w] (0 = none). 0 when too little
    depth is known. Depth at z then has the deviation z^2 times that."""
    stride = max(1, math.isqrt(depth.size // _SAMPLES))
    bends = _bends(depth, _REACH, stride)
    return float(np.median(bends)) * _TO_SIGMA if len(bends) >= _FEWEST else 0.0


@kernel
def _bends(depth, reach, stride):
    """Absolute second differences of the inverse depth along the rows."""
    height, width = depth.shape
    out = np.empty((height // stride + 1) * (width // stride + 1), np.float64)
    number = 0
    for v in range(stride // 2, height, stride):
        for u in range(reach, width - reach, stride):
            before, here, after = depth[v, u - reach], depth[v, u], depth[v, u + reach]
            if before > 0 and here > 0 and after > 0:
                out[number] = abs(1.0 / before - 2.0 / here + 1.0 / after)
                number += 1
    return out[:number]
