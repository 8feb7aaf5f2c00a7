# SPDX-License-Identifier: Apache-2.0
import numpy as np

from recon3d_ros.runtime.sync import Synchroniser

MS = 1_000_000


def pairs(events, tolerance=30, capacity=30):
    """Feed (kind, stamp in ms) in this order; the payload is the stamp. Returns [(image, depth)] and the counts."""
    sync = Synchroniser(tolerance * MS, capacity)
    out = []
    for kind, stamp in events:
        out += (sync.add_image if kind == "i" else sync.add_depth)(stamp * MS, stamp)
    out += sync.flush()
    return [(p.image, p.depth) for p in out], sync.counts


def by_stamp(images, depths):
    return sorted([("i", t) for t in images] + [("d", t) for t in depths], key=lambda e: (e[1], e[0] == "d"))


def test_equal_stamps_are_a_pair_at_once_whichever_comes_first():
    for order in (("i", "d"), ("d", "i")):
        sync = Synchroniser(30 * MS)
        add = {"i": sync.add_image, "d": sync.add_depth}
        assert add[order[0]](100 * MS, "first") == []
        assert len(add[order[1]](100 * MS, "second")) == 1


def test_each_image_gets_the_depth_nearest_to_it():
    result, counts = pairs(by_stamp([0, 100, 200], [12, 95, 190, 215]))
    assert result == [(0, 12), (100, 95), (200, 190)]
    assert counts["depth without image"] == 1


def test_an_image_whose_depth_never_comes_leaves_without_as_soon_as_a_newer_depth_is_there():
    sync = Synchroniser(30 * MS)
    assert sync.add_image(0, "a") == []
    assert sync.add_image(100 * MS, "b") == []
    assert [(p.image, p.depth) for p in sync.add_depth(100 * MS, "B")] == [("a", None), ("b", "B")]
    assert sync.counts["image without depth"] == 1


def test_depth_at_half_the_rate_goes_to_the_image_it_belongs_to():
    result, _ = pairs(by_stamp(range(0, 200, 16), range(0, 200, 32)), tolerance=30)
    assert result == [(t, t if t % 32 == 0 else None) for t in range(0, 200, 16)]


def test_a_depth_is_used_once():
    result, _ = pairs(by_stamp([0, 20], [8, 100]))
    assert result == [(0, 8), (20, None)]


def test_a_depth_nearer_to_the_next_image_is_left_for_it():
    result, _ = pairs(by_stamp([0, 33], [25, 60]))
    assert result == [(0, None), (33, 25)]


def test_the_result_does_not_depend_on_which_topic_is_late():
    random = np.random.default_rng(1)
    images = [t + int(random.integers(-3, 4)) for t in range(0, 2000, 33)]
    depths = [t + int(random.integers(-3, 4)) + 9 for t in range(0, 2000, 66)]
    expected, _ = pairs(by_stamp(images, depths))
    assert sum(depth is not None for _, depth in expected) == len(depths)
    for late in ("i", "d"):
        shifted = [(t + 120 if kind == late else t, kind, t) for kind, t in by_stamp(images, depths)]
        assert pairs([(kind, t) for _, kind, t in sorted(shifted)])[0] == expected


def test_without_any_depth_images_pass_once_the_buffer_is_full():
    sync = Synchroniser(30 * MS, capacity=3)
    out = [p.image for t in range(10) for p in sync.add_image(t * MS, t)]
    assert out == [0, 1, 2, 3, 4, 5, 6]


def test_without_any_image_depth_does_not_pile_up():
    sync = Synchroniser(30 * MS, capacity=3)
    for t in range(1000):
        sync.add_depth(t * MS, t)
    assert sync.counts["depth without image"] == 997
    assert sync.flush() == []


def test_an_image_older_than_what_has_left_is_counted_and_dropped():
    result, counts = pairs([("i", 100), ("d", 100), ("i", 50), ("i", 100), ("i", 200), ("d", 200)])
    assert result == [(100, 100), (200, 200)]
    assert counts["image out of order"] == 2


def test_a_reset_lets_time_start_anew():
    sync = Synchroniser(30 * MS)
    sync.add_image(1000 * MS, "old")
    sync.add_image(2000 * MS, "old")
    sync.add_depth(1000 * MS, "old")
    sync.reset()
    sync.add_image(5 * MS, "new")
    assert [p.image for p in sync.add_depth(5 * MS, "new")] == ["new"]
    assert sync.flush() == []
