# SPDX-License-Identifier: Apache-2.0
"""An image as it comes -> the view that is worked on: not too large, in grey too, with its lens."""

from __future__ import annotations

import cv2

from recon3d_ros.backends.geometric.lens import Lens
from recon3d_ros.backends.geometric.map import View
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.image import to_grey
from recon3d_ros.core.types import Image, Pose

#: Larger images are reduced to this width or height.
_MAX_SIZE = 1280


class Intake:
    """lens: of the latest view. Another camera may take over; centred pixels keep the focal length of the first."""

    def __init__(self, lens: Lens) -> None:
        self.lens = lens

    def view(
        self, index: int, stamp_ns: int, image: Image, camera: Camera, prior: Pose | None = None
    ) -> View:
        """The image as it is tracked."""
        camera = _reduced(camera)
        if camera != self.lens.given:
            self.lens = Lens(camera, self.lens.focal)
        if camera.size != image.shape[1::-1]:
            image = cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA)
        return View(index, stamp_ns, image, to_grey(image), self.lens, prior)


def first_lens(camera: Camera) -> Lens:
    """That of the camera with which a map begins."""
    camera = _reduced(camera)
    return Lens(camera, camera.fx)


def _reduced(camera: Camera) -> Camera:
    """The camera of the image that is tracked."""
    factor = _MAX_SIZE / max(camera.size)
    if factor >= 1:
        return camera
    return camera.resized(round(camera.width * factor), round(camera.height * factor))
