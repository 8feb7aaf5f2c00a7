# SPDX-License-Identifier: Apache-2.0
"""Which keyframes look like a view: one vector a keyframe, of what its ORB descriptors leave to the nearest of a few words
(VLAD; Jegou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010). The words are learned
from the keyframes themselves, again each time their number has doubled."""

from __future__ import annotations

import threading
from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from recon3d_ros.core.packing import pack, part_of, unpack, within
from recon3d_ros.core.types import Arrays, Floats, Image

#: uint8 [N,32]: 256 bits each.
Descriptors = NDArray[np.uint8]

_KEYPOINTS = 500
_WORDS, _ROUNDS = 32, 15
#: Keyframes that the first words are learned from, and descriptors that the later ones are at most.
_FIRST, _LEARNED = 5, 8000


def describe(grey: Image) -> Descriptors:
    """ORB descriptors of an image, none where it has no texture."""
    descriptors = cv2.ORB.create(_KEYPOINTS).detectAndCompute(grey, None)[1]
    return np.empty((0, 32), np.uint8) if descriptors is None else np.asarray(descriptors)


def learn(descriptors: Descriptors) -> Floats:
    """Words float32 [32,32]: the means of k-means from a fixed seed."""
    rng = np.random.default_rng(0)
    X = rng.permutation(descriptors)[:_LEARNED].astype(np.float32)
    words = X[:_WORDS].copy()
    for _ in range(_ROUNDS):
        nearest = _nearest(X, words)
        count = np.bincount(nearest, minlength=len(words))
        sums = np.zeros(words.shape, np.float64)
        np.add.at(sums, nearest, X)
        words = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], words).astype(np.float32)
    return words


def vlad(descriptors: Descriptors, words: Floats) -> Floats:
    """Unit vector float32 [32 * 32]: residuals summed a word, each word's sum normalised, signed square roots; zeros
    without descriptors."""
    X = descriptors.astype(np.float32)
    sums = np.zeros(words.shape, np.float32)
    nearest = _nearest(X, words)
    np.add.at(sums, nearest, X - words[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    vector = (np.sign(sums) * np.sqrt(np.abs(sums))).ravel()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def _nearest(X: Floats, words: Floats) -> NDArray[np.intp]:
    return ((words**2).sum(axis=1) - 2.0 * X @ words.T).argmin(axis=1)


class Places:
    """The keyframes of a map by their looks. One thread may add while others ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptors: dict[int, Descriptors] = {}
        self._vectors: dict[int, Floats] = {}
        self._words: Floats | None = None
        self._learned = 0

    def add(self, index: int, descriptors: Descriptors) -> None:
        """Remember a keyframe by the index of its frame."""
        with self._lock:
            self._descriptors[index] = descriptors
            if len(self._descriptors) >= max(2 * self._learned, _FIRST):
                self._learn()
            elif self._words is not None:
                self._vectors[index] = vlad(descriptors, self._words)

    def rank(
        self, descriptors: Descriptors, among: Collection[int] | None = None, best: int = 3
    ) -> list[int]:
        """Indices of up to `best` keyframes (of those `among`, if given) that look most like this, the most alike first.
        Empty while there are too few to have words."""
        with self._lock:
            if self._words is None or not len(descriptors):
                return []
            indices = [i for i in self._vectors if among is None or i in among]
            if not indices:
                return []
            alike = np.array([self._vectors[i] for i in indices]) @ vlad(descriptors, self._words)
        return [indices[i] for i in np.argsort(-alike, kind="stable")[:best]]

    def __len__(self) -> int:
        return len(self._descriptors)

    def saved(self) -> Arrays:
        """All that is remembered."""
        with self._lock:
            known = dict(self._descriptors)
        packed = pack(list(known.values()), np.empty((0, 32), np.uint8))
        return {"index": np.array(list(known), np.int64), **within("descriptors", packed)}

    def resume(self, arrays: Arrays) -> None:
        """Remember what was saved, into an empty one."""
        with self._lock:
            known = unpack(part_of("descriptors", arrays))
            self._descriptors = dict(zip(arrays["index"].tolist(), known, strict=True))
            if len(self._descriptors) >= _FIRST:
                self._learn()

    def absorb(self, other: Places) -> None:
        """Take over the keyframes of another map."""
        with self._lock, other._lock:
            self._descriptors = dict(sorted((self._descriptors | other._descriptors).items()))
            if len(self._descriptors) >= _FIRST:
                self._learn()

    def _learn(self) -> None:
        together = np.concatenate(list(self._descriptors.values()))
        if len(together) < _WORDS:
            return
        self._words = learn(together)
        self._vectors = {i: vlad(d, self._words) for i, d in self._descriptors.items()}
        self._learned = len(self._descriptors)
