# SPDX-License-Identifier: Apache-2.0
"""How the kernels of this package are compiled: serial, without holding the GIL, cached on disk, dividing by zero as the
hardware does."""

from __future__ import annotations

from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
