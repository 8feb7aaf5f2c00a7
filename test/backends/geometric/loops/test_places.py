# SPDX-License-Identifier: Apache-2.0
"""Retrieval of keyframes by their looks."""

import cv2
import numpy as np
import pytest

from recon3d_ros.backends.geometric.loops.vlad import Places, describe, learn, vlad

GROUND = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (400, 4000), np.uint8), (0, 0), 2)
GROUND = cv2.normalize(GROUND, None, 0, 255, cv2.NORM_MINMAX)


def view(x, y=40):
    """An image of the ground."""
    return GROUND[y : y + 240, x : x + 320]


def places(xs):
    known = Places()
    for index, x in enumerate(xs):
        known.add(index, describe(view(x)))
    return known


def test_a_place_seen_again_from_the_side_comes_first():
    known = places(range(0, 3600, 160))
    for index in (0, 7, 15):
        assert known.rank(describe(view(160 * index + 25, 60)))[0] == index


def test_only_some_keyframes_can_be_asked_for():
    known = places(range(0, 3600, 160))
    newest = describe(view(160 * 22))
    assert known.rank(newest)[0] == 22
    assert set(known.rank(newest, among={1, 2, 20}, best=5)) == {1, 2, 20}


def test_too_few_keyframes_and_images_without_texture_have_no_place():
    assert places(range(0, 480, 160)).rank(describe(view(0))) == []
    known = places(range(0, 1600, 160))
    blank = describe(np.full((240, 320), 90, np.uint8))
    assert len(blank) == 0 and known.rank(blank) == []
    known.add(99, blank)
    assert 99 not in known.rank(describe(view(0)))[:1]


def test_two_maps_know_the_places_of_both_after_they_are_joined():
    one, other = places(range(0, 1600, 160)), Places()
    for x in range(2000, 3600, 160):
        other.add(x, describe(view(x)))
    one.absorb(other)
    assert one.rank(describe(view(20)))[0] == 0
    assert one.rank(describe(view(2180)))[0] == 2160


def test_the_same_descriptors_give_the_same_unit_vector():
    descriptors = describe(view(0))
    first, second = (vlad(descriptors, learn(descriptors)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-5)
