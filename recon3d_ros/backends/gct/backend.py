# SPDX-License-Identifier: Apache-2.0
"""Reconstruction by a streaming transformer: the backend contract, and what may be wrong with a frame."""

from __future__ import annotations

import logging

import numpy as np
import torch

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.backends.gct.answers import Input
from recon3d_ros.backends.gct.loading import load
from recon3d_ros.backends.gct.model import Gct
from recon3d_ros.backends.gct.preprocess import Prepared, Preprocessor
from recon3d_ros.backends.gct.session import Session
from recon3d_ros.backends.gct.sky import SkyMask
from recon3d_ros.backends.gct.windows import WindowRule
from recon3d_ros.backends.learned import weights
from recon3d_ros.backends.learned.device import device, precision
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.image import resampled
from recon3d_ros.core.types import Arrays, Frame, Image, Pose, Update

log = logging.getLogger(__name__)


class GctReconstructor:
    """Needs weights, and no calibration: the network finds the focal length. The unit of the map is the network's own. The
    first frames are answered together with the last of them.
    """

    def __init__(self, config: Config, realtime: bool = False) -> None:
        params = config.gct
        WindowRule.of(params)
        if params.memory_budget_mb and not params.window_size:
            raise InputError("gct.memory_budget_mb needs windows that end: set gct.window_size above 0")
        self.config = config
        self._preprocess = Preprocessor(params.image_width)
        self._sky = SkyMask(params.sky_model, params.sky_threshold) if params.sky_model else None
        self._network = _network(config)
        self.capabilities = Capabilities(
            needs_camera=False, device=str(next(self._network.parameters()).device)
        )
        self._stages = Stages()
        self.reset()

    def reset(self) -> None:
        """Forget the map and free its memory; the next frame is the first and may be of another size."""
        self._session: Session | None = None
        self._size: tuple[int, ...] = ()
        self._index = 0

    def step(self, frame: Frame) -> list[Update]:
        """Take one frame. Raises FrameError for an image of another size or type, InputError when the memory budget is too
        small for its size."""
        self._check(frame)
        with self._stages("preprocess"):
            prepared, camera = self._prepared(frame)
        if self._session is None:
            self._session = self._begin(frame.image, prepared)
        self._size = frame.image.shape
        index, self._index = self._index, self._index + 1
        return self._session.step(index, Input(frame.stamp_ns, prepared.image, camera))

    def finish(self) -> list[Update]:
        """Answer the frames that wait for more."""
        return self._session.finish() if self._session is not None else []

    def close(self) -> None:
        """Free the memory of the stream."""
        self._session = None

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index."""
        return self._session.poses() if self._session is not None else {}

    def saved(self) -> tuple[int, Arrays]:
        """The stream keeps no map in which a camera could find its place."""
        raise InputError("gct cannot save a map to go on with: use geometric or rgbd")

    def resume(self, arrays: Arrays) -> None:
        """See `saved`."""
        raise InputError("gct cannot go on with a saved map: use the backend that made it")

    def statistics(self) -> dict[str, float]:
        """Counts, memory in MB, and median times of the stages."""
        counts = self._session.statistics() if self._session is not None else {}
        budget = {"memory_budget_mb": float(self.config.gct.memory_budget_mb)}
        return {**budget, **counts, **self._stages.medians_ms()}

    def _begin(self, image: Image, prepared: Prepared) -> Session:
        height, width = prepared.image.shape[:2]
        log.info("images of %dx%d pixels are seen at %dx%d", image.shape[1], image.shape[0], width, height)
        return Session(self._network, self.config, (height, width), self._sky, self._stages)

    def _check(self, frame: Frame) -> None:
        image = frame.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise FrameError("image type", f"an 8 bit RGB image is needed, got {image.dtype} {image.shape}")
        if self._size and image.shape != self._size:
            was = f"{self._size[1]}x{self._size[0]}"
            raise FrameError(
                "image size",
                f"the image is {image.shape[1]}x{image.shape[0]}, those before were {was}: a reset begins a new map",
            )

    def _prepared(self, frame: Frame) -> tuple[Prepared, Camera | None]:
        """The image as the network sees it, without lens distortion where that is known, and its given camera."""
        camera = frame.camera
        if camera is None or camera.estimated:
            return self._preprocess(frame.image), None
        if camera.size != (frame.image.shape[1], frame.image.shape[0]):
            size = f"{camera.width}x{camera.height}"
            raise FrameError("camera size", f"the camera is for {size}, the image is {frame.image.shape}")
        ideal = camera.undistorted()
        prepared = self._preprocess(resampled(frame.image, ideal, camera))
        return prepared, prepared.camera(ideal)


def _network(config: Config) -> Gct:
    """The network with its weights on its device. Raises InputError when they cannot be had."""
    params = config.gct
    path = weights.locate("gct", params.weights)
    target = device(params.device)
    dtype = precision(params.precision, target)
    network = load(path)
    try:
        network.set_precision(dtype)
        network.to(target)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the weights do not fit the memory of {target}: free some, or set gct.device to cpu"
        ) from error
    if params.compile:
        network.compile_blocks()
    log.info("gct: %s on %s, %s", path.name, target, str(dtype).removeprefix("torch."))
    return network
