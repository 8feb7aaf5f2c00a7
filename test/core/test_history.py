# SPDX-License-Identifier: Apache-2.0
import threading
import time

from recon3d_ros.core.history import History


def test_stamps_rise_and_the_oldest_make_room():
    history = History(2)
    assert [history.add(stamp, str(stamp)) for stamp in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert history.around(2) == (None, (2, "2")) and history.around(4) == ((3, "3"), None)
    assert history.clear() == 2 and len(history) == 0 and history.add(1, "again")


def test_after_a_stamp_in_the_future_it_begins_anew():
    history = History(50)
    taken = [history.add(stamp, stamp) for stamp in (1, 10**18, *range(2, 20))]
    assert taken.count(False) == 9 and history.around(15) == ((14, 14), (15, 15))


def test_neighbours_are_those_before_and_after_a_stamp():
    history = History(10)
    for stamp in (10, 20, 30):
        history.add(stamp, stamp)
    assert history.around(15) == ((10, 10), (20, 20)) and history.around(20) == ((10, 10), (20, 20))
    assert history.last_two(15) == ((10, 10), (20, 20))
    assert history.last_two(99) == ((20, 20), (30, 30)) and history.last_two(5) is None
    assert history.until(25, 15) == [(10, 10), (20, 20)]


def test_it_is_waited_for_what_comes_late_and_no_longer():
    history = History(10)
    history.add(1, "early")
    start = time.monotonic()
    history.wait(5, 0.05)
    assert time.monotonic() - start >= 0.05
    timer = threading.Timer(0.05, history.add, (5, "late"))
    timer.start()
    history.wait(5, 60.0)
    assert history.newest() == (5, "late")
    timer.join()


def test_what_has_fallen_silent_is_not_waited_for():
    history = History(10)
    start = time.monotonic()
    history.wait(5, 60.0)
    history.add(1, "long ago")
    history.wait(2_000_000_000, 60.0)
    assert time.monotonic() - start < 30.0
