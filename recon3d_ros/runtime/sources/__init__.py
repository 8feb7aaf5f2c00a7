# SPDX-License-Identifier: Apache-2.0
"""Recordings and synthetic flights as sources of frames; `open_source` finds out which kind a path is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recon3d_ros.core.camera import Camera
    from recon3d_ros.runtime.sources.base import Source


def open_source(
    path: str | Path,
    *,
    camera: Camera | None = None,
    prior: bool = False,
    image_topic: str | None = None,
    depth_topic: str | None = None,
    odometry_topic: str | None = None,
    sync: float = 0.03,
) -> Source:
    """The source at a path: folder of images, TUM-style folder, video, rosbag2 (folder, .mcap, .db3), or
    `synthetic:SCENE/PATH`.

    camera: overrides the source's own, scaled to the images. prior: frames carry the poses that come with the source.
    image_topic, depth_topic ("none": leave depth out), odometry_topic: of a bag. sync: largest difference in time of an
    image and its depth or pose, seconds. Raises InputError, one line with the mend, for what cannot be opened.
    """
    from recon3d_ros.core.errors import InputError

    if str(path).partition(":")[0] == "synthetic":
        from recon3d_ros.runtime.sources.synthetic import SyntheticSource

        return SyntheticSource(str(path), camera=camera, prior=prior)
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    tolerance_ns = round(sync * 1e9)
    kind = _kind(path)
    if kind == "bag":
        from recon3d_ros.runtime.sources.bag import BagSource

        return BagSource(path, camera, prior, image_topic, depth_topic, odometry_topic, tolerance_ns)
    if kind == "tum":
        from recon3d_ros.runtime.sources.tum import TumSource

        return TumSource(path, camera, prior, tolerance_ns)
    if prior:
        raise InputError(f"{path} comes without poses: run without the prior")
    if kind == "video":
        from recon3d_ros.runtime.sources.video import VideoSource

        return VideoSource(path, camera)
    from recon3d_ros.runtime.sources.images import ImagesSource

    return ImagesSource(path, camera)


def _kind(path: Path) -> str:
    from recon3d_ros.core.errors import InputError
    from recon3d_ros.runtime.sources import bag_reader, images, video

    if bag_reader.is_bag(path):
        return "bag"
    if path.is_dir():
        return "tum" if (path / "rgb.txt").is_file() else "images"
    suffix = path.suffix.lower()
    if suffix in video.SUFFIXES:
        return "video"
    if suffix == ".bag":
        raise InputError(
            f"{path} is a ROS 1 bag: convert it with  rosbags-convert --src {path} --dst {path.stem}"
        )
    if suffix in images.SUFFIXES:
        raise InputError(f"{path} is a single image: give its folder, {path.parent}")
    raise InputError(
        f"{path} is of no known kind: give a folder of images, a video ({', '.join(video.SUFFIXES[:4])}...), a TUM-style "
        "folder, a rosbag2 folder or file (.mcap, .db3), or synthetic:SCENE/PATH"
    )
