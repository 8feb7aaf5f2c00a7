# SPDX-License-Identifier: Apache-2.0
"""Kernel of RVL, a lossless coding of depth images (Wilson, "Fast lossless depth image compression", ISS 2017)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def unpack_rvl(words, values):  # type: ignore[no-untyped-def]
    """Fill `values` uint16, zeros before, from `words` uint32; False if they end early or hold more than fits.

    The words hold runs of (count of zeros, count of values, their zigzag differences). A number is a row of nibbles, the
    first in a word's high bits, with three bits each, low ones first; a nibble's top bit says that the number goes on."""
    nibble, done, previous, phase, left = 0, 0, 0, 0, 0
    while done < len(values) or left > 0:
        value, shift, more = 0, 0, True
        while more:
            if nibble >> 3 >= len(words) or shift > 30:
                return False
            bits = (words[nibble >> 3] >> np.uint32(28 - 4 * (nibble & 7))) & np.uint32(15)
            nibble += 1
            value |= int(bits & np.uint32(7)) << shift
            shift += 3
            more = bits >= 8
        if phase == 2:
            previous += (value >> 1) ^ -(value & 1)
            values[done] = previous & 0xFFFF
            done += 1
            left -= 1
            phase = 0 if left == 0 else 2
            continue
        if value > len(values) - done:
            return False
        if phase == 0:
            done += value
            phase = 1
        else:
            left = value
            phase = 2 if value > 0 else 0
    return True
