# SPDX-License-Identifier: Apache-2.0
"""Monocular reconstruction without a network: the backend contract, and what may be wrong with a frame."""

from __future__ import annotations

import threading

import numpy as np

from recon3d_ros.backends.base import Capabilities
from recon3d_ros.backends.geometric.given_poses import GivenPoses
from recon3d_ros.backends.geometric.intake import first_lens
from recon3d_ros.backends.geometric.session import Session
from recon3d_ros.backends.geometric.warm_up import warm_up
from recon3d_ros.backends.stages import Stages
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.types import Arrays, Frame, Image, Pose, Update

#: Smallest height and width that has anything to track.
_MIN_SIZE = 64


class GeometricReconstructor:
    """The map begins at the first keyframe: x of the map is its viewing direction, z its up direction, the median depth of
    its points is 1 and the scale unknown. With `geometric.mapping_only` it is the frame of the given poses instead."""

    def __init__(self, config: Config, realtime: bool) -> None:
        mapping_only = config.geometric.mapping_only
        if mapping_only and not config.prior:
            raise InputError("geometric.mapping_only trusts given poses: ask for them too (--prior)")
        self.capabilities = Capabilities(metric=mapping_only)
        self.config, self.realtime = config, realtime
        self.stages = Stages()
        self._session: Session | GivenPoses | None = None
        self._size: tuple[int, ...] = ()
        self._index = 0
        threading.Thread(target=warm_up, name="warm-up").start()

    def step(self, frame: Frame) -> list[Update]:
        """Take one frame. Raises FrameError for an image of another size or type."""
        self._check(frame.image)
        camera = self._camera(frame)
        if self._session is None:
            kind = GivenPoses if self.config.geometric.mapping_only else Session
            self._session = kind(first_lens(camera), self.config, self.realtime, self.stages)
        session = self._session
        prior = frame.prior if self.config.prior else None
        view = session.view(self._index, frame.stamp_ns, frame.image, camera, prior)
        self._index += 1
        return session.step(view)

    def finish(self) -> list[Update]:
        """Answer the frames that still wait, and wait for the depth of all keyframes."""
        return self._session.finish() if self._session is not None else []

    def poses(self) -> dict[int, Pose]:
        """The best pose now, camera to map, of every frame that has one, by index."""
        return self._session.poses() if self._session is not None else {}

    def saved(self) -> tuple[int, Arrays]:
        """Id of the map that the camera is in, and what is needed to go on with it."""
        if self._session is None:
            raise InputError("there is no map yet")
        number, arrays = self._session.saved()
        return number, {"next_index": np.array(self._index), **arrays}

    def resume(self, arrays: Arrays) -> None:
        """Go on with a saved map: the camera is lost until it recognises it."""
        if self.config.geometric.mapping_only:
            raise InputError(
                "geometric.mapping_only takes poses as they are given and goes on with no map: leave 'map' out"
            )
        session = Session.resumed(arrays, self.config, self.realtime, self.stages)
        self.reset()
        self._session = session
        self._index = int(arrays["next_index"])

    def reset(self) -> None:
        """Forget the map; the next frame is the first."""
        self.close()
        self._session = None
        self._size, self._index = (), 0

    def close(self) -> None:
        """Stop the depth worker."""
        if self._session is not None:
            self._session.close()

    def statistics(self) -> dict[str, float]:
        """Counts, and median times of the stages in milliseconds."""
        counts = self._session.statistics() if self._session is not None else {}
        return {**counts, **self.stages.medians_ms()}

    def _check(self, image: Image) -> None:
        if (
            image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or min(image.shape[:2]) < _MIN_SIZE
        ):
            needed = f"an 8 bit RGB image of at least {_MIN_SIZE} pixels a side is needed"
            raise FrameError("image size", f"{needed}, got {image.dtype} {image.shape}")
        if self._size and image.shape != self._size:
            raise FrameError("image size", f"the image is {image.shape}, those before were {self._size}")
        self._size = image.shape

    def _camera(self, frame: Frame) -> Camera:
        height, width = frame.image.shape[:2]
        if frame.camera is None:
            raise FrameError("no camera", "the frame has no camera")
        if frame.camera.size != (width, height):
            size = f"{frame.camera.width}x{frame.camera.height}"
            raise FrameError("camera size", f"the camera is for {size}, the image is {width}x{height}")
        return frame.camera
