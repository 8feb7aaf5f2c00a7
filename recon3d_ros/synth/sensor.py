# SPDX-License-Identifier: Apache-2.0
"""What a real camera does to an ideal image. Everything random depends on the seed and the number of the frame alone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import Array, pose, so3_exp
from recon3d_ros.core.types import Floats, Image, Pose


@dataclass(frozen=True)
class Faults:
    """All off by default.

    noise: standard deviation of image noise, grey levels. blur: of a Gaussian defocus, pixels. shutter: exposure time as
    a share of the time between frames (motion blur). exposure_step: factor on the light from the middle of the flight on.
    exposure_drift: share by which the light swells and fades. drop: share of the frames that are missing; drop_from,
    drop_to: first and last of a run of missing frames (none while drop_to < drop_from). depth_noise: standard deviation as
    a share of the depth. prior_noise: that of given positions in metres, and of rotations in units of ten degrees.
    """

    noise: float = 0.0
    blur: float = 0.0
    shutter: float = 0.0
    exposure_step: float = 1.0
    exposure_drift: float = 0.0
    drop: float = 0.0
    drop_from: int = 0
    drop_to: int = -1
    depth_noise: float = 0.0
    prior_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise", "blur", "shutter", "exposure_step", "depth_noise", "prior_noise"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(
                    f"'{name}' of a synthetic flight must not be negative; got {getattr(self, name):g}"
                )
        for name in ("drop", "exposure_drift"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"'{name}' of a synthetic flight must lie in 0 .. 1; got {getattr(self, name):g}"
                )


def is_dropped(faults: Faults, index: int, seed: int) -> bool:
    """True if the frame never arrives."""
    in_run = faults.drop_from <= index <= faults.drop_to
    return in_run or bool(_random(seed, index, 0).random() < faults.drop)


def spoil_image(image: Image, faults: Faults, index: int, frames: int, seed: int) -> Image:
    """The image uint8 [H,W,3] after exposure, defocus and noise; the very same array where all of them are off."""
    gain = faults.exposure_step if index >= frames // 2 else 1.0
    gain *= 1 + faults.exposure_drift * np.sin(2 * np.pi * index / 60)
    if gain == 1.0 and not faults.blur and not faults.noise:
        return image
    out = np.minimum(image.astype(np.float32) * np.float32(gain), 255)
    if faults.blur:
        out = cv2.GaussianBlur(out, (0, 0), faults.blur).astype(np.float32)
    if faults.noise:
        out = out + faults.noise * _random(seed, index, 1).standard_normal(out.shape, np.float32)
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def spoil_depth(depth: Floats, faults: Faults, index: int, seed: int) -> Floats:
    """The depth float32 [H,W] with noise in proportion to it."""
    if not faults.depth_noise:
        return depth
    noise = _random(seed, index, 2).standard_normal(depth.shape, np.float32)
    return (depth * (1 + np.float32(faults.depth_noise) * noise)).astype(np.float32)


def spoil_pose(T: Pose, faults: Faults, index: int, seed: int) -> Pose:
    """The pose with noise of its position and rotation."""
    if not faults.prior_noise:
        return T
    noise: Array = _random(seed, index, 3).normal(scale=faults.prior_noise, size=6)
    return T @ pose(so3_exp(np.radians(10.0) * noise[3:]), noise[:3])


def _random(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, index, purpose))
