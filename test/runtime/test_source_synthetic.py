# SPDX-License-Identifier: Apache-2.0
"""Names of synthetic flights and what they mean."""

import numpy as np
import pytest

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.errors import InputError
from recon3d_ros.runtime.sources import open_source
from recon3d_ros.runtime.sources.synthetic import SyntheticSource


def test_a_name_says_scene_path_and_options():
    options = "frames=4&size=96x72&fov=60&seed=3&depth=1&fps=20&noise=2&drop_from=1&drop_to=1"
    source = open_source(f"synthetic:room/hover?{options}")
    frames = list(source)
    assert source.length == len(frames) == 3 and len(source.truth) == 4
    assert frames[0].image.shape == (72, 96, 3) and frames[0].depth.shape == (72, 96)
    assert frames[0].camera.fx == pytest.approx(48 / np.tan(np.radians(30)))
    assert frames[1].stamp_ns - frames[0].stamp_ns == 100_000_000
    assert source.flight.seed == 3 and source.flight.options.faults.noise == 2.0
    assert source.describe() == "synthetic flight room/hover: 3 frames of 96x72 at 20 Hz, with depth"
    assert not source.skipped and source.has_depth and source.kind == "synthetic"


def test_what_is_left_out_is_the_demonstration_flight():
    for name in ("synthetic:", "synthetic:building", "synthetic:building/orbit?"):
        source = SyntheticSource(name)
        assert source.describe() == "synthetic flight building/orbit: 180 frames of 640x480 at 10 Hz"
        assert not source.has_depth


def test_it_can_be_iterated_again():
    source = SyntheticSource("synthetic:room/orbit?frames=2&size=64x48")
    first, second = list(source), list(source)
    assert [f.image.tobytes() for f in first] == [f.image.tobytes() for f in second]


def test_a_given_camera_and_prior_are_used():
    camera = Camera(80, 60, 60.0, 60.0, 39.5, 29.5, "plumb_bob", (-0.2, 0.05, 0.0, 0.0, 0.0))
    source = open_source("synthetic:room/orbit?frames=2", camera=camera, prior=True)
    frame = next(iter(source))
    assert frame.camera == camera and frame.image.shape == (60, 80, 3)
    np.testing.assert_array_equal(frame.prior, source.truth.poses[0])


def test_the_true_surface_is_at_hand():
    source = SyntheticSource("synthetic:room/orbit?frames=2&size=64x48")
    assert source.scene.distance(np.array([[0.0, 0.0, 0.0], [2.0, 1.2, 1.2]])) == pytest.approx(
        [0.012, 0.9], abs=0.3
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("synthetic:bilding/orbit", "did you mean 'building'"),
        ("synthetic:room/orbt", "did you mean 'orbit'"),
        ("synthetic:room?frame=3", "did you mean 'frames'.*Known: frames, fps, size"),
        ("synthetic:room?depth", "'depth' is no option=value"),
        ("synthetic:room?frames=many", "'frames' .* takes a whole number; got 'many'"),
        ("synthetic:room?noise=x", "'noise' .* takes a number; got 'x'"),
        ("synthetic:room?frames=0", "at least 1; got 0"),
        ("synthetic:room?size=640", "WIDTHxHEIGHT"),
        ("synthetic:room?fov=170", "1 .. 150"),
        ("synthetic:room?drop=2", "0 .. 1"),
    ],
)
def test_bad_names_are_answered_in_one_line(name, says):
    with pytest.raises(InputError, match=says) as error:
        SyntheticSource(name)
    assert "\n" not in str(error.value)
