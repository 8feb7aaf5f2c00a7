# SPDX-License-Identifier: Apache-2.0
"""Cameras from calibration files: ROS camera_calibration YAML, Kalibr camchain YAML, and `calib.json` of recordings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError

_log = logging.getLogger(__name__)

#: Names under which other tools know the models of `core.camera`.
_ALIASES = {"": "pinhole", "none": "pinhole", "radtan": "plumb_bob", "fisheye": "equidistant"}


@dataclass(frozen=True)
class Calibration:
    """Content of a `calib.json`. camera, depth_camera: None where not known; depth_camera None also means that depth is
    registered to the image. depth_scale: depth values per metre. fps: 0 if not known. poses_of: whose poses the truth
    holds, "" for the image's camera."""

    camera: Camera | None = None
    depth_camera: Camera | None = None
    depth_scale: float = 1000.0
    fps: float = 0.0
    poses_of: str = ""


def load_camera(path: str | Path, rectified: bool = False) -> Camera:
    """The camera of a calibration file; rectified: of images rectified by it (`projection_matrix`).

    Raises InputError for a missing, unreadable, unknown or uncalibrated one.
    """
    data = _load(path)
    try:
        if "camera_matrix" in data:
            return _from_ros(data, rectified)
        if "cam0" in data:
            return _from_kalibr(data["cam0"])
        if "fx" in data:
            return _from_calib(data, "")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not a complete calibration ({error!r})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    raise InputError(
        f"{path}: not a known calibration file: give a ROS camera_calibration YAML, a Kalibr camchain YAML or a calib.json"
    )


def load_calibration(path: str | Path) -> Calibration:
    """Everything a `calib.json` says. Raises InputError for a missing or unreadable one."""
    data = _load(path)
    try:
        known = data.get("camera_model") != "unknown" and "fx" in data
        return Calibration(
            camera=_from_calib(data, "") if known else None,
            depth_camera=_from_calib(data, "depth_") if "depth_fx" in data else None,
            depth_scale=float(data.get("depth_scale") or Calibration.depth_scale),
            fps=float(data.get("fps") or 0.0),
            poses_of=str(data.get("poses_of") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a complete calibration ({error!r})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def fit_camera(camera: Camera, width: int, height: int) -> Camera:
    """`camera` for images of this size: scaled when both sides have the same ratio to a pixel, and said in the log.
    Raises InputError when the images have another shape."""
    if camera.size == (width, height):
        return camera
    if abs(camera.width * height - camera.height * width) > max(camera.size):
        raise InputError(
            f"the camera is calibrated for {camera.width}x{camera.height}, the images are {width}x{height}, another shape: "
            "give a camera of that size with --camera FILE"
        )
    _log.info("camera of %dx%d scaled to images of %dx%d", camera.width, camera.height, width, height)
    return camera.resized(width, height)


def model_name(name: str) -> str:
    """Our name of a distortion model, REP-104 or Kalibr. Names that are not known stay, and `Camera` refuses them."""
    return _ALIASES.get(name.strip().lower(), name)


def _load(path: str | Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read camera file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path}: not a calibration file")
    return data


def _from_ros(data: Mapping[str, Any], rectified: bool) -> Camera:
    width, height = int(data["image_width"]), int(data["image_height"])
    if rectified and "projection_matrix" in data:
        p = np.array(data["projection_matrix"]["data"], dtype=np.float64).reshape(3, 4)
        return Camera(width, height, float(p[0, 0]), float(p[1, 1]), float(p[0, 2]), float(p[1, 2]))
    k = np.array(data["camera_matrix"]["data"], dtype=np.float64).reshape(3, 3)
    coefficients = (data.get("distortion_coefficients") or {}).get("data") or ()
    name = str(data.get("distortion_model") or ("plumb_bob" if len(coefficients) else ""))
    fx, fy, cx, cy = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
    return Camera(width, height, fx, fy, cx, cy, model_name(name), tuple(float(c) for c in coefficients))


def _from_kalibr(data: Mapping[str, Any]) -> Camera:
    if data.get("camera_model", "pinhole") != "pinhole":
        raise InputError(f"camera_model '{data['camera_model']}' is not supported: calibrate as pinhole")
    width, height = data["resolution"]
    fx, fy, cx, cy = (float(v) for v in data["intrinsics"])
    model = model_name(str(data.get("distortion_model", "")))
    coefficients = tuple(float(c) for c in data.get("distortion_coeffs", ()))
    return Camera(int(width), int(height), fx, fy, cx, cy, model, coefficients)


def _from_calib(data: Mapping[str, Any], prefix: str) -> Camera:
    distortion = data.get(f"{prefix}distortion")
    # A text such as "unknown; not calibrated" stands for intrinsics that are not a calibration either.
    estimated = isinstance(distortion, str)
    coefficients = () if estimated else tuple(float(c) for c in distortion or ())
    model = model_name(str(data.get(f"{prefix}camera_model", "")))
    if model == "pinhole" and coefficients:
        model = "plumb_bob"
    width, height = (int(data.get(f"{prefix}{side}", data[side])) for side in ("width", "height"))
    fx, fy, cx, cy = (float(data[f"{prefix}{name}"]) for name in ("fx", "fy", "cx", "cy"))
    return Camera(
        width, height, fx, fy, cx, cy, model if coefficients else "pinhole", coefficients, estimated
    )
