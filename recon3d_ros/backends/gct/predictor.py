# SPDX-License-Identifier: Apache-2.0
"""The network with its memory: images in, predictions out, whatever the memory of the device allows."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from recon3d_ros.backends.gct.kv_store import Mode
from recon3d_ros.backends.gct.memory import Memory, MemoryCall
from recon3d_ros.backends.gct.model import Gct, Prediction

log = logging.getLogger(__name__)


class Predictor:
    """Calls the network. When the device runs out of memory the sliding window is halved and the call made again."""

    def __init__(self, model: Gct, memory: Memory, iterations: int = 4) -> None:
        self.model, self.memory = model, memory
        self.iterations = iterations
        self.shrinks = 0

    def predict(self, images: Tensor, mode: Mode, dense: bool = True) -> tuple[MemoryCall, Prediction]:
        """Predictions for images [S,3,H,W], and the call that awaits `keep` or `rollback`. After an exception the memory is
        as it was before. Raises torch.OutOfMemoryError when even the smallest window does not fit."""
        while True:
            try:
                return self._attempt(images, mode, dense)
            except torch.OutOfMemoryError:
                if self.memory.shape.window == 1:
                    raise
            # Out here the exception is gone, and with it what it held of the network's work.
            self._shrink()

    def _attempt(self, images: Tensor, mode: Mode, dense: bool) -> tuple[MemoryCall, Prediction]:
        call = self.memory.call(len(images), mode)
        try:
            return call, self.model(images, call, self.iterations, dense)
        except BaseException:
            call.rollback()
            raise

    def _shrink(self) -> None:
        """Halve the window, again and again where there is no memory for the smaller one beside a layer of the larger."""
        before = window = self.memory.shape.window
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        while self.memory.shape.window == before:
            window //= 2
            try:
                self.memory.shrink(window)
            except torch.OutOfMemoryError:
                if window == 1:
                    raise
        self.shrinks += 1
        log.warning("out of memory: the sliding window goes from %d to %d keyframes", before, window)
