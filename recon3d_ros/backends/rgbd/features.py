# SPDX-License-Identifier: Apache-2.0
"""Corners of a keyframe followed from image to image (pyramidal Lucas-Kanade); depth says where they are."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from recon3d_ros.backends.rgbd.registration import Tracks
from recon3d_ros.core.camera import Camera
from recon3d_ros.core.geometry import Array, pose, transform
from recon3d_ros.core.types import Floats, Pose

#: Corners taken from a keyframe.
CORNERS = 400
#: Fewest points that a pose may rest on.
ENOUGH = 15
#: Noise of a tracked point, pixels.
NOISE = 1.0


class FeatureTracker:
    """The points and where they are in the latest image."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all points."""
        self._pixels = np.zeros((0, 2), np.float32)
        self._points = np.zeros((0, 3))
        self._grey: NDArray[np.uint8] | None = None

    @property
    def count(self) -> int:
        """Number of points followed."""
        return len(self._points)

    def advance(self, grey: NDArray[np.uint8], camera: Camera) -> Tracks:
        """Follow the points into the next image [H,W] of a pinhole camera; what cannot be followed is forgotten."""
        if self._grey is not None and len(self._pixels):
            pixels, status, _ = cv2.calcOpticalFlowPyrLK(
                self._grey, grey, self._pixels, None, winSize=(15, 15), maxLevel=4
            )
            inside = ((pixels >= 0) & (pixels <= np.array(camera.size, np.float32) - 1)).all(axis=1)
            good = (status[:, 0] == 1) & inside
            self._pixels, self._points = pixels[good], self._points[good]
        self._grey = grey
        return Tracks(self._points, camera.unproject(self._pixels.astype(np.float64)), NOISE / camera.fx)

    def restart(self, grey: NDArray[np.uint8], camera: Camera, depth: Floats, T_map_cam: Pose) -> None:
        """Take the corners of an image instead that have depth [h,w], which may be of a smaller image."""
        corners = cv2.goodFeaturesToTrack(grey, CORNERS, 0.005, camera.width / 50, blockSize=5)
        if corners is not None:
            self._pixels, self._points = places(corners.reshape(-1, 2), camera, depth, T_map_cam)[:2]


def places(
    pixels: Floats, camera: Camera, depth: Floats, T_map_cam: Pose
) -> tuple[Floats, Array, NDArray[np.bool_]]:
    """Pixels [M,2] of those `pixels` [N,2] that have depth, their points [M,3] in the map, and which they are, bool [N].

    depth: [h,w] of the same view, at the image's size or a smaller one.
    """
    scale = depth.shape[1] / camera.width
    at = np.clip(((pixels + 0.5) * scale).astype(int), 0, np.array(depth.shape[::-1]) - 1)
    z = depth[at[:, 1], at[:, 0]].astype(np.float64)
    known = np.isfinite(z)
    rays = np.column_stack(
        [camera.unproject(pixels[known].astype(np.float64)), np.ones(np.count_nonzero(known))]
    )
    return pixels[known], transform(T_map_cam, rays * z[known][:, None]), known


def pose_from_tracks(tracks: Tracks, enough: int = ENOUGH) -> Pose | None:
    """Pose map <- camera by PnP with RANSAC; None when fewer than `enough` points agree."""
    if len(tracks.points) < enough:
        return None
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        tracks.points,
        tracks.observed,
        np.eye(3),
        None,
        iterationsCount=200,
        reprojectionError=4 * tracks.sigma,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inliers is None or len(inliers) < enough:
        return None
    R: Array = cv2.Rodrigues(rotation)[0]
    return pose(R.T, -R.T @ translation.ravel())
