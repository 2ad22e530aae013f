"""The course of a reference foil over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import theilslopes

from xas_agent.agent.spectra.foil import FoilSettings, FoilTrack
from xas_agent.agent.types.reasons import Flag

MINUTE = 60.0


def followed(shifts: np.ndarray) -> np.ndarray:
    track = FoilTrack(FoilSettings())
    return np.array([track.follow(MINUTE * k, s).shift_ev for k, s in enumerate(shifts)])


def test_drift_is_removed_to_a_twentieth_of_an_electronvolt() -> None:
    """0.5 eV over 100 frames, foils read with the scatter of a real beamline, one in ten misread."""
    rng = np.random.default_rng(0)
    true = -0.4 + np.linspace(0, 0.5, 100)
    read = true + rng.normal(0, 0.02, 100)
    read[rng.choice(100, 10, replace=False)] += 2.0
    left = followed(read) - true
    assert np.abs(left[5:]).max() < 0.05


def test_steady_foil_is_quieter_than_its_readings() -> None:
    rng = np.random.default_rng(1)
    read = rng.normal(0, 0.05, 400)
    assert followed(read)[30:].std() < 0.6 * read.std()


def test_a_moved_monochromator_is_followed_once_three_frames_say_so() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(20):
        track.follow(MINUTE * k, 0.1)
    courses = [track.follow(MINUTE * (20 + k), 1.3) for k in range(5)]
    assert [bool(c.flag) for c in courses] == [True, True, False, False, False]
    assert courses[0].shift_ev == pytest.approx(0.1)
    assert courses[0].sd_ev == pytest.approx(1.2)
    assert courses[2].shift_ev == pytest.approx(1.3)


def test_misreadings_that_disagree_are_never_followed() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(20):
        track.follow(MINUTE * k, 0.0)
    for k, s in enumerate([2.0, -3.0, 5.0, -2.0, 8.0]):
        assert track.follow(MINUTE * (20 + k), s).shift_ev == pytest.approx(0.0, abs=1e-9)


def test_without_a_foil_the_course_goes_on_and_before_any_there_is_none() -> None:
    track = FoilTrack(FoilSettings())
    assert np.isnan(track.follow(0.0, np.nan).shift_ev)
    for k in range(10):
        track.follow(MINUTE * k, 0.01 * k)
    course = track.follow(MINUTE * 10, np.nan)
    assert course.shift_ev == pytest.approx(0.1)
    assert course.flag == Flag.FOIL_HELD
    assert track.follow(MINUTE * 50, np.nan).sd_ev > course.sd_ev


def test_a_long_pause_begins_anew() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(10):
        track.follow(MINUTE * k, 0.0)
    assert track.follow(24 * 3600.0, 2.5).shift_ev == pytest.approx(2.5)


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=40))
def test_the_course_stays_among_what_was_read(shifts: list[float]) -> None:
    seen = [s for s in shifts if not np.isnan(s)]
    for course in followed(np.array(shifts)):
        if not np.isnan(course):
            spread = max(seen) - min(seen)
            assert min(seen) - spread - 1e-9 <= course <= max(seen) + spread + 1e-9


def test_a_drift_is_read_as_the_reference_implementation_reads_it() -> None:
    rng = np.random.default_rng(2)
    t, s = np.sort(rng.uniform(0, 1e3, 15)), rng.normal(0, 0.05, 15)
    track = FoilTrack(FoilSettings())
    course = [track.follow(float(moment), float(shift)) for moment, shift in zip(t, s, strict=True)][-1]
    slope = float(np.asarray(theilslopes(s, t))[0])
    assert course.shift_ev == pytest.approx(np.median(s - slope * (t - t[-1])))


def test_frames_of_one_moment_have_a_level() -> None:
    track = FoilTrack(FoilSettings())
    courses = [track.follow(1.79e9 + 0.1, shift) for shift in (0.1, 0.2, 0.15, 0.12, 0.18, 0.15, 0.15)]
    assert courses[-1].shift_ev == pytest.approx(0.15)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"confirmed": 0}, {"jump_ev": -1}, {"forget_s": 0}])
def test_settings_with_which_no_foil_would_be_followed_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FoilSettings(**wrong)


def test_noise_of_the_readings_is_no_jump_and_remains_in_the_calibration() -> None:
    rng = np.random.default_rng(0)
    track = FoilTrack(FoilSettings())
    courses = [track.follow(MINUTE * k, shift, 0.4) for k, shift in enumerate(rng.normal(0, 0.4, 15))]
    assert courses[0].sd_ev == pytest.approx(0.4)
    assert all(course.sd_ev > 0.39 / (k + 1) ** 0.5 for k, course in enumerate(courses))
    assert not any(course.flag for course in courses)
