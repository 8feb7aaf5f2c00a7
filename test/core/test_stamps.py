# SPDX-License-Identifier: Apache-2.0
from recon3d_ros.core.stamps import RisingStamps


def refused(stamps):
    rising = RisingStamps()
    return [rising.refuse(stamp) for stamp in stamps]


def test_what_does_not_rise_is_refused():
    assert refused([1, 2, 2, 1, 3]) == ["", "", "repeated", "backwards", ""]


def test_one_stamp_in_the_future_holds_up_ten_frames_and_no_more():
    assert refused([1, 10**18, *range(2, 14)]) == ["", "", *["backwards"] * 9, "", "", ""]


def test_disorder_is_no_clock_that_was_set_back():
    assert set(refused([100, *(50 - i for i in range(40))])[1:]) == {"backwards"}
    assert set(refused([100, *([50, 51] * 20)])[1:]) == {"backwards"}
