"""Test the tracking of a reference foil over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import theilslopes

from xas_agent.agent.spectra.foil import FoilSettings, FoilTrack
from xas_agent.agent.types.reasons import Flag

MINUTE = 60.0


def track_shifts(shifts: np.ndarray) -> np.ndarray:
    track = FoilTrack(FoilSettings())
    return np.array([track.follow(MINUTE * k, s).shift_ev for k, s in enumerate(shifts)])


def test_drift_is_removed_to_a_twentieth_of_an_electronvolt() -> None:
    """Track 0.5 eV over 100 frames, with the scatter of a real beamline and one misreading in ten."""
    rng = np.random.default_rng(0)
    true = -0.4 + np.linspace(0, 0.5, 100)
    read = true + rng.normal(0, 0.02, 100)
    read[rng.choice(100, 10, replace=False)] += 2.0
    residual = track_shifts(read) - true
    assert np.abs(residual[5:]).max() < 0.05


def test_steady_foil_is_quieter_than_its_readings() -> None:
    rng = np.random.default_rng(1)
    read = rng.normal(0, 0.05, 400)
    assert track_shifts(read)[30:].std() < 0.6 * read.std()


def test_monochromator_jump_is_followed_after_three_frames() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(20):
        track.follow(MINUTE * k, 0.1)
    courses = [track.follow(MINUTE * (20 + k), 1.3) for k in range(5)]
    assert [bool(c.flag) for c in courses] == [True, True, False, False, False]
    assert courses[0].shift_ev == pytest.approx(0.1)
    assert courses[0].sd_ev == pytest.approx(1.2)
    assert courses[2].shift_ev == pytest.approx(1.3)


def test_scattered_misreadings_are_not_followed() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(20):
        track.follow(MINUTE * k, 0.0)
    for k, s in enumerate([2.0, -3.0, 5.0, -2.0, 8.0]):
        assert track.follow(MINUTE * (20 + k), s).shift_ev == pytest.approx(0.0, abs=1e-9)


def test_course_is_held_without_foil_and_nan_before_the_first() -> None:
    track = FoilTrack(FoilSettings())
    assert np.isnan(track.follow(0.0, np.nan).shift_ev)
    for k in range(10):
        track.follow(MINUTE * k, 0.01 * k)
    course = track.follow(MINUTE * 10, np.nan)
    assert course.shift_ev == pytest.approx(0.1)
    assert course.flag == Flag.FOIL_HELD
    assert track.follow(MINUTE * 50, np.nan).sd_ev > course.sd_ev


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("drift_ev", [0.0, 0.004])
def test_a_pause_longer_than_the_frames_before_carries_no_drift_on(together: bool, drift_ev: float) -> None:
    random = np.random.default_rng(0)
    times = np.concatenate(
        (0.01 * np.arange(40), 30 + 0.01 * np.arange(40))
    )  # at 100 Hz, with the shutter closed for 30 s
    shifts = 0.1 + drift_ev * np.tile(np.arange(40), 2) + random.normal(0, 0.02, 80)
    track = FoilTrack(FoilSettings())
    sds = [0.02] * 80
    if together:
        found = [
            *track.follow_all(times[:40], shifts[:40], sds[:40]),
            *track.follow_all(times[40:], shifts[40:], sds[40:]),
        ]
    else:
        found = [track.follow(*reading) for reading in zip(times, shifts, sds, strict=True)]
    assert all(calibration.flag is None for calibration in found)
    assert [c.shift_ev for c in found[40:45]] == pytest.approx(shifts[40:45], abs=0.07)
    assert max(c.sd_ev for c in found[40:]) < 0.05


def test_a_foil_that_is_not_measured_any_more_is_held_for_an_hour() -> None:
    track, nothing = FoilTrack(FoilSettings()), float("nan")
    for k in range(10):
        track.follow(MINUTE * k, 0.4)
    held = [track.follow(MINUTE * k, nothing) for k in range(10, 90)]
    assert [c.flag for c in held] == [Flag.FOIL_HELD] * 60 + [None] * 20
    assert np.isnan([c.shift_ev for c in held]).tolist() == [False] * 60 + [True] * 20
    resumed = FoilTrack(FoilSettings())
    resumed.restore(track.state())
    assert np.isnan(resumed.follow(MINUTE * 90, nothing).shift_ev)
    assert resumed.follow(MINUTE * 91, 0.4).flag is None
    assert resumed.follow(MINUTE * 92, nothing).flag == Flag.FOIL_HELD


def test_long_pause_restarts_the_course() -> None:
    track = FoilTrack(FoilSettings())
    for k in range(10):
        track.follow(MINUTE * k, 0.0)
    assert track.follow(24 * 3600.0, 2.5).shift_ev == pytest.approx(2.5)


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=40))
def test_course_stays_within_the_spread_of_readings(shifts: list[float]) -> None:
    valid = [s for s in shifts if not np.isnan(s)]
    for course in track_shifts(np.array(shifts)):
        if not np.isnan(course):
            spread = max(valid) - min(valid)
            assert min(valid) - spread - 1e-9 <= course <= max(valid) + spread + 1e-9


def test_drift_equals_theil_sen_estimate_of_scipy() -> None:
    rng = np.random.default_rng(2)
    t, s = np.sort(rng.uniform(0, 1e3, 15)), rng.normal(0, 0.05, 15)
    track = FoilTrack(FoilSettings())
    course = [track.follow(float(time), float(shift)) for time, shift in zip(t, s, strict=True)][-1]
    slope = float(np.asarray(theilslopes(s, t))[0])
    assert course.shift_ev == pytest.approx(np.median(s - slope * (t - t[-1])))


def test_frames_at_one_time_give_the_median() -> None:
    track = FoilTrack(FoilSettings())
    courses = [track.follow(1.79e9 + 0.1, shift) for shift in (0.1, 0.2, 0.15, 0.12, 0.18, 0.15, 0.15)]
    assert courses[-1].shift_ev == pytest.approx(0.15)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"confirmed": 0}, {"jump_ev": -1}, {"forget_s": 0}])
def test_invalid_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FoilSettings(**wrong)


def test_noise_of_the_readings_is_no_jump_and_remains_in_the_calibration() -> None:
    rng = np.random.default_rng(0)
    track = FoilTrack(FoilSettings())
    courses = [track.follow(MINUTE * k, shift, 0.4) for k, shift in enumerate(rng.normal(0, 0.4, 15))]
    assert courses[0].sd_ev == pytest.approx(0.4)
    assert all(course.sd_ev > 0.39 / (k + 1) ** 0.5 for k, course in enumerate(courses))
    assert not any(course.flag for course in courses)


def test_scatter_beyond_that_of_the_readings_is_a_jitter_of_the_energies() -> None:
    rng = np.random.default_rng(0)
    jitter = {}
    for sd_ev in (0.02, 0.1):
        track = FoilTrack(FoilSettings())
        shifts = rng.normal(0, sd_ev, 200)
        courses = [track.follow(MINUTE * k, float(shift), 0.02) for k, shift in enumerate(shifts)]
        jitter[sd_ev] = np.mean([course.jitter_ev for course in courses[21:]])
    assert jitter[0.02] < 0.01
    assert jitter[0.1] == pytest.approx(0.1, rel=0.25)


def readings_of(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Times and shifts of n frames."""
    t, s = 1.79e9 + 0.05 * np.arange(n) + rng.normal(0, 1e-3, n), rng.normal(0.4, 0.01, n)
    if kind == "a jump":
        s[n // 2 :] += 1.0
    elif kind == "glitches":
        s[rng.integers(0, n, n // 9)] += 2.0
    elif kind == "no foil now and then":
        s[rng.integers(0, n, n // 7)] = np.nan
    elif kind == "a pause":
        t[n // 3 :] += 5000
    elif kind == "one time":
        t[:] = t[0]
    elif kind == "out of order":
        rng.shuffle(t)
    return t, s


@pytest.mark.parametrize(
    "kind", ["steady", "a jump", "glitches", "no foil now and then", "a pause", "one time", "out of order"]
)
@pytest.mark.parametrize("frames", [1, 4, 21])
def test_frames_followed_together_are_those_followed_one_by_one(kind, frames):
    rng = np.random.default_rng(frames)
    alone, together = (FoilTrack(FoilSettings(frames=frames)) for _ in range(2))
    for n in (3, 1, 40, 150):
        t, s = readings_of(kind, n, rng)
        sd = rng.uniform(0.02, 0.03, n)
        expected = [alone.follow(*reading) for reading in zip(t.tolist(), s.tolist(), sd.tolist(), strict=True)]
        found = together.follow_all(t.tolist(), s.tolist(), sd.tolist())
        assert repr(found) == repr(expected)  # all digits, and NaN
        assert together.state() == alone.state()
