# SPDX-License-Identifier: Apache-2.0
"""Building blocks of procedural texture, all limited to what an image can resolve: every function takes the footprint w of
a pixel on the surface (same unit as u, v) and leaves out detail finer than that, so that textures do not shimmer."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def hash01(i, j, seed):  # type: ignore[no-untyped-def]
    """A number in [0, 1) that depends on three whole numbers (finaliser of SplitMix64)."""
    i, j = np.int64(i), np.int64(j)
    h = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(j) * np.uint64(0xC2B2AE3D27D4EB4F)
    h += np.uint64(seed) * np.uint64(0x165667B19E3779F9)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((h ^ (h >> np.uint64(31))) >> np.uint64(40)) / 16777216.0


@njit(cache=True, nogil=True)
def smooth(x):  # type: ignore[no-untyped-def]
    """Step from 0 to 1 between 0 and 1, without kinks."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@njit(cache=True, nogil=True)
def value_noise(u, v, seed):  # type: ignore[no-untyped-def]
    """Smooth noise in [-1, 1] with lattice spacing 1."""
    i, j = np.int64(np.floor(u)), np.int64(np.floor(v))
    a, b = smooth(u - i), smooth(v - j)
    low = hash01(i, j, seed) * (1 - a) + hash01(i + 1, j, seed) * a
    high = hash01(i, j + 1, seed) * (1 - a) + hash01(i + 1, j + 1, seed) * a
    return 2 * (low * (1 - b) + high * b) - 1


@njit(cache=True, nogil=True)
def fbm(u, v, x, gain, w, seed):  # type: ignore[no-untyped-def]
    """Sum of octaves of noise, lattices of spacing `x` down to a pixel; each is `gain` times the one before."""
    total, amplitude = 0.0, 1.0
    for octave in range(12):
        fade = min(x / w - 1.0, 1.0)
        if fade <= 0:
            break
        # Octaves are turned against each other, so that their lattices do not add up to a visible grid.
        u, v = 0.8 * u - 0.6 * v, 0.6 * u + 0.8 * v
        total += amplitude * fade * value_noise(u / x, v / x, seed + octave)
        amplitude *= gain
        x *= 0.5
    return total


@njit(cache=True, nogil=True)
def _area(x, duty):  # type: ignore[no-untyped-def]
    """Integral from 0 to x of the pulse train that is 1 on [k, k + duty)."""
    whole = np.floor(x)
    return whole * duty + min(x - whole, duty)


@njit(cache=True, nogil=True)
def pulse(x, period, duty, w):  # type: ignore[no-untyped-def]
    """Pulse train, 1 for the first `duty` of each period, averaged over [x - w/2, x + w/2]."""
    half = max(0.5 * w / period, 1e-6)
    x = x / period
    return (_area(x + half, duty) - _area(x - half, duty)) / (2 * half)


@njit(cache=True, nogil=True)
def inside(x, low, high, w):  # type: ignore[no-untyped-def]
    """1 between low and high, 0 elsewhere, averaged over [x - w/2, x + w/2]."""
    w = max(w, 1e-6)
    return max(min(x + 0.5 * w, high) - max(x - 0.5 * w, low), 0.0) / w


@njit(cache=True, nogil=True)
def mix(a, b, share):  # type: ignore[no-untyped-def]
    """Colour between a (share 0) and b (share 1); colours are tuples of three."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


@njit(cache=True, nogil=True)
def times(a, factor):  # type: ignore[no-untyped-def]
    """Colour a, brighter or darker."""
    return (a[0] * factor, a[1] * factor, a[2] * factor)
