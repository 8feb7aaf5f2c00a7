# SPDX-License-Identifier: Apache-2.0
"""The keyframe decision. Flow is what a camera sees of its own motion, so it weighs motion by the depth of the scene: one
threshold serves a room and a valley."""

from __future__ import annotations

import numpy as np

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.config import KeyframeParams
from recon3d_ros.core.geometry import Array
from recon3d_ros.core.types import Floats

#: Frames by which a keyframe is put off at most.
_PATIENCE = 2


class KeyframeGate:
    """Decides frame by frame; the backend reports what it measured against the last keyframe."""

    def __init__(self, params: KeyframeParams) -> None:
        self.params = params
        #: Keyframes that waited for a sharper frame.
        self.put_off = 0
        self._waited = 0
        self._gap: int | None = None

    def reset(self) -> None:
        """The next frame is the first."""
        self._gap = None

    def decide(self, flow: float, alive: float = 1.0, sharpness: float = 1.0) -> str:
        """Reason for a keyframe, or "" for none.

        flow: mean displacement against the last keyframe as a share of the image width, inf if nothing is visible.
        alive: share of the last keyframe's content that is still in view.
        sharpness: of the frame beside those before it; a keyframe that is due on a blurred one waits, two frames at most.
        """
        reason = self._reason(flow, alive)
        if (
            reason
            and self._gap is not None
            and sharpness < self.params.min_sharpness
            and self._waited < _PATIENCE
        ):
            self.put_off += self._waited == 0
            self._waited += 1
            reason = ""
        self._gap = 0 if reason else (self._gap or 0) + 1
        self._waited = 0 if reason else self._waited
        return reason

    def made(self) -> None:
        """The backend made a keyframe for a reason of its own."""
        self._gap = self._waited = 0

    def _reason(self, flow: float, alive: float) -> str:
        if self._gap is None:
            return "first"
        if not np.isfinite(flow):
            return "nothing visible"
        if flow >= self.params.min_flow:
            return "flow"
        if alive < self.params.min_alive:
            return "view lost"
        # A camera at rest needs no keyframes.
        if self._gap + 1 >= self.params.max_gap and flow >= self.params.rest * self.params.min_flow:
            return "gap"
        return ""


def induced_flow(
    depth: Floats, camera: Camera, T_now_keyframe: Array, stride: int = 8
) -> tuple[float, float]:
    """Flow that the motion `T_now_keyframe` (keyframe camera to current camera) induces on the keyframe's depth image.

    Returns the mean displacement as a share of the image width over the pixels that stay in view, and the share of
    pixels that does; (inf, 0) when none does.
    """
    z = depth[::stride, ::stride].astype(np.float64)
    v, u = np.meshgrid(np.arange(0, camera.height, stride), np.arange(0, camera.width, stride), indexing="ij")
    known = np.isfinite(z)
    if not known.any():
        return float("inf"), 0.0
    pixels = np.stack([u[known], v[known]], axis=-1).astype(np.float64)
    rays = np.column_stack([camera.unproject(pixels), np.ones(len(pixels))])
    moved = camera.project(rays * z[known][:, None] @ T_now_keyframe[:3, :3].T + T_now_keyframe[:3, 3])
    inside = ((moved > -0.5) & (moved < np.array(camera.size) - 0.5)).all(axis=-1)
    if not inside.any():
        return float("inf"), 0.0
    displacement = np.linalg.norm(moved[inside] - pixels[inside], axis=-1)
    return float(displacement.mean() / camera.width), float(inside.mean())
