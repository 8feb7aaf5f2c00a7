# SPDX-License-Identifier: Apache-2.0
"""Which pixels are sky, by a segmentation network of the user's (ONNX, run by OpenCV). Specification, section 13, with the
score divided by 255 as it was meant, and the threshold a parameter."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.types import Floats, Image

#: Side of the square image that the network takes, pixels.
SIDE = 320
#: Mean and deviation of its input's channels (ImageNet).
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class SkyMask:
    """Call it with an image. Not for use by several threads at once."""

    def __init__(self, model_path: str | Path, threshold: float = 0.5) -> None:
        """model_path: a network [1,3,320,320] -> [1,1,320,320]; of several outputs the first counts. threshold: score
        above which a pixel is sky, 0..1. Raises InputError when the file is missing or is no such network."""
        self.threshold = threshold
        self._net, self._output = _open(Path(model_path))

    def __call__(self, image: Image) -> NDArray[np.bool_]:
        """bool [h,w], True = sky, of an RGB image uint8 [h,w,3].

        Scores are relative: each image's lowest becomes 0 and its highest 1. An image of one score throughout, or of
        scores that are not finite, has no sky.
        """
        height, width = image.shape[:2]
        score = _run(self._net, self._output, cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
        low, high = float(score.min()), float(score.max())
        if not np.isfinite([low, high]).all() or high <= low:
            return np.zeros((height, width), np.bool_)
        levels = ((score - low) / (high - low) * 255).astype(np.uint8)
        levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(levels > self.threshold * 255)


def _open(path: Path) -> tuple[cv2.dnn.Net, str]:
    """The network of a file and the name of its output, tried out once."""
    if not path.is_file():
        raise InputError(f"no sky model {path}: set gct.sky_model to an ONNX file, or leave it empty")
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
        output = net.getUnconnectedOutLayersNames()[0]
        score = _run(net, output, np.zeros((SIDE, SIDE, 3), np.uint8))
    except (cv2.error, IndexError) as error:
        raise InputError(
            f"{path} is not a sky model that OpenCV can run: set gct.sky_model to another"
        ) from error
    if score.shape != (SIDE, SIDE):
        raise InputError(f"{path} gives scores of shape {score.shape}, not {SIDE}x{SIDE}: it is no sky model")
    return net, output


def _run(net: cv2.dnn.Net, output: str, image: Image) -> Floats:
    """Scores float32 [320,320] of an RGB image uint8 [320,320,3]."""
    values = (image.astype(np.float32) / 255 - MEAN) / STD
    net.setInput(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))
    return np.squeeze(np.asarray(net.forward(output)))
