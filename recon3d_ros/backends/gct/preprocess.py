# SPDX-License-Identifier: Apache-2.0
"""From an image to what the network sees (specification, section 10).

One resizer for images and videos: Pillow's bicubic, with which the reference's images were made. 1920x1080 takes it 20 ms;
torch's bicubic takes 3 ms (30 without AVX2) and differs in 0.6 % of the values, OpenCV's does not antialias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image as pillow
import torch

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import FrameError, InputError
from recon3d_ros.core.types import Image

_WHITE = 255


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the network sees it, and where its pixels came from.

    image: uint8 [h,w,3] RGB, also the colours of the depth. source, resized: (width, height) of the image before and
    after resizing. offset: pixel (x, y) of the resized image that is the top left one of `image`; negative where padded.
    """

    image: Image
    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of `image` per pixel of the source, in x and in y."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    def camera(self, camera: Camera) -> Camera:
        """The source's camera carried over to `image`; its distortion stays."""
        height, width = self.image.shape[:2]
        return camera.resized(*self.resized).cropped(*self.offset, width, height)


@dataclass(frozen=True)
class Preprocessor:
    """Brings images to the network's size, a multiple of `patch` on both sides.

    mode `crop`: the width becomes `width`, of a height beyond that the middle is kept. `pad`: the longer side becomes
    `width`, the rest of the square is white.
    """

    width: int = 518
    patch: int = 14
    mode: str = "crop"

    def __post_init__(self) -> None:
        if self.width < self.patch or self.width % self.patch:
            raise InputError(
                f"image width {self.width} is not a multiple of {self.patch}: set gct.image_width"
            )
        if self.mode not in ("crop", "pad"):
            raise InputError(f"unknown image mode '{self.mode}': use crop or pad")

    def __call__(self, image: Image) -> Prepared:
        """An RGB image uint8 [H,W,3], prepared. Raises FrameError when it is too small or too long and thin."""
        source = (image.shape[1], image.shape[0])
        width, height = self._size(*source)
        if min(source) < self.patch or min(width, height) < self.patch:
            raise FrameError("image too small", f"an image of {source[0]}x{source[1]} pixels is too small")
        resized = resize(image, width, height)
        if self.mode == "pad":
            x, y = (self.width - width) // 2, (self.width - height) // 2
            padded = _on_canvas(resized, self.width, x, y, _WHITE)
            return Prepared(padded, source, (width, height), (-x, -y))
        top = max(0, (height - self.width) // 2)
        return Prepared(resized[top : top + self.width], source, (width, height), (0, top))

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing; halves of a patch go to the even number."""
        if self.mode == "pad" and height > width:
            return round(width * (self.width / height) / self.patch) * self.patch, self.width
        return self.width, round(height * (self.width / width) / self.patch) * self.patch


def square(image: Image, side: int = 1024) -> tuple[Image, tuple[float, float, float, float]]:
    """The image centred in a black square and resized to uint8 [side,side,3], and where it is in there: x1, y1, x2, y2 in
    pixels."""
    height, width = image.shape[:2]
    longer = max(width, height)
    x, y = (longer - width) // 2, (longer - height) // 2
    scale = side / longer
    rectangle = (x * scale, y * scale, (x + width) * scale, (y + height) * scale)
    return resize(_on_canvas(image, longer, x, y, 0), side, side), rectangle


def to_tensor(image: Image, device: str | torch.device = "cpu") -> torch.Tensor:
    """The network's input float32 [3,h,w] in 0..1 of an image uint8 [h,w,3]; it crosses to the device as bytes."""
    # Torch warns of arrays that must not be written.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    return pixels.to(device).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format) / 255


def resize(image: Image, width: int, height: int) -> Image:
    """Bicubic with antialiasing, uint8 [H,W,3] -> [height,width,3]."""
    if (width, height) == (image.shape[1], image.shape[0]):
        return image
    return np.asarray(pillow.fromarray(image).resize((width, height), pillow.Resampling.BICUBIC))


def _on_canvas(image: Image, side: int, x: int, y: int, value: int) -> Image:
    canvas = np.full((side, side, 3), value, np.uint8)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas
