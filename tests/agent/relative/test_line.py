"""The line through anchors on truths that are known."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xas_agent.agent.relative.line import Known, fit_line
from xas_agent.agent.types import DescriptorEstimate, SeriesSlope

SLOPE = SeriesSlope(0.9, 0.2, 0.05)
STATES = st.floats(1.0, 5.0)


def estimate(mean: float, sd_frame: float = 0.0) -> DescriptorEstimate:
    return DescriptorEstimate(mean, mean - 1, mean + 1, sd_frame=sd_frame)


def half(found: DescriptorEstimate) -> float:
    return (found.hi - found.lo) / 2


@given(STATES, STATES, st.floats(0.01, 2.0))
def test_one_anchor_shifts_and_is_less_sure_of_distant_frames(value, mean, distance):
    line = fit_line([Known(value, 0.02, mean, 0.0)], SLOPE)
    at, beside = line.value(estimate(mean)), line.value(estimate(mean + distance))
    assert at.mean == pytest.approx(value)
    assert beside.mean == pytest.approx(value + distance / SLOPE.value)
    scale_sd = SLOPE.sd / SLOPE.value**2
    assert half(at) == pytest.approx(1.6449 * math.hypot(0.02, 0.05, 0.05))
    assert half(beside) == pytest.approx(math.hypot(half(at), 1.6449 * scale_sd * distance))


def test_two_different_anchors_set_shift_and_scale():
    exact = SeriesSlope(0.9, 10.0)  # no prior, no scatter
    line = fit_line([Known(3.0, 1e-3, 2.6, 0.0), Known(4.0, 1e-3, 3.1, 0.0)], exact)
    assert line.value(estimate(2.6)).mean == pytest.approx(3.0, abs=1e-4)
    assert line.value(estimate(2.85)).mean == pytest.approx(3.5, abs=1e-4)
    assert line.scale == pytest.approx(2.0, abs=1e-3)


def test_two_anchors_of_one_state_only_better_the_shift():
    one = Known(3.0, 0.02, 2.6, 0.0)
    twice, once = fit_line([one, one], SLOPE), fit_line([one], SLOPE)
    assert (twice.scale, twice.scale_var) == (once.scale, once.scale_var)
    assert twice.height_var == pytest.approx(once.height_var / 2)


@given(st.lists(st.tuples(STATES, st.floats(0.01, 0.1), STATES, st.floats(0.0, 0.1)), min_size=1, max_size=6))
def test_the_fit_is_that_of_normal_equations(points):
    known = [Known(*point) for point in points]
    line = fit_line(known, SLOPE)
    prior, prior_sd = 1 / SLOPE.value, SLOPE.sd / SLOPE.value**2
    rows = [(1.0, k.mean, k.value, math.hypot(k.sd, prior * k.sd_frame, SLOPE.scatter_sd)) for k in known]
    matrix, values, sds = (
        np.array([*((a, b) for a, b, *_ in rows), (0.0, 1.0)]),
        *np.array([*((value, sd) for *_, value, sd in rows), (prior, prior_sd)]).T,
    )
    normal = matrix.T / sds**2
    covariance = np.linalg.inv(normal @ matrix)
    a, b = covariance @ normal @ values
    assert line.scale == pytest.approx(b, rel=1e-6)
    assert line.value(estimate(3.0)).mean == pytest.approx(a + 3 * b, rel=1e-6)
    variance = np.array([1, 3.0]) @ covariance @ np.array([1, 3.0]) + SLOPE.scatter_sd**2
    assert half(line.value(estimate(3.0))) == pytest.approx(
        1.6449 * line.contradiction * math.sqrt(variance), rel=1e-5
    )


@pytest.mark.parametrize("anchors", [1, 2, 4])
def test_intervals_hold_nine_of_ten_true_values(anchors):
    draw, held = np.random.default_rng(anchors), 0
    for _ in range(4000):
        scale = 1 / SLOPE.value + SLOPE.sd / SLOPE.value**2 * draw.standard_normal()
        means = draw.uniform(2, 4, anchors + 1)
        truth = 0.5 + scale * means + SLOPE.scatter_sd * draw.standard_normal(anchors + 1)
        sd_frame = 0.01
        known = truth[:-1] + 0.02 * draw.standard_normal(anchors)
        seen = means + sd_frame * draw.standard_normal(anchors + 1)
        line = fit_line([Known(v, 0.02, m, sd_frame) for v, m in zip(known, seen, strict=False)], SLOPE)
        found = line.value(estimate(seen[-1], sd_frame))
        held += found.lo <= truth[-1] <= found.hi
    assert held / 4000 == pytest.approx(0.9, abs=0.02)


def test_contradictory_anchors_widen_the_interval():
    agreeing = fit_line([Known(3.0, 0.02, 2.6, 0.0), Known(3.05, 0.02, 2.6, 0.0)], SLOPE)
    not_so = fit_line([Known(3.0, 0.02, 2.6, 0.0), Known(3.6, 0.02, 2.6, 0.0)], SLOPE)
    assert agreeing.contradiction == 1.0
    assert not_so.contradiction == pytest.approx(0.6 / math.hypot(0.02, 0.02, 0.05, 0.05), rel=1e-6)
    wider = half(not_so.value(estimate(2.6))) / half(agreeing.value(estimate(2.6)))
    assert wider == pytest.approx(not_so.contradiction)


def test_a_scale_that_its_prior_excludes_is_a_contradiction():
    assert fit_line([Known(3.0, 0.02, 2.6, 0.0), Known(5.0, 0.02, 3.1, 0.0)], SLOPE).contradiction > 2


@given(STATES, STATES, st.floats(0.0, 0.1))
def test_a_change_needs_no_anchor_and_does_not_know_the_level(first, now, sd_frame):
    found = fit_line((), SLOPE).change((first, sd_frame), estimate(now, sd_frame))
    scale_sd = SLOPE.sd / SLOPE.value**2
    assert found.mean == pytest.approx((now - first) / SLOPE.value)
    repeats = sd_frame / SLOPE.value
    assert half(found) == pytest.approx(1.6449 * math.hypot(repeats, repeats, scale_sd * (now - first)))
    assert found.sd_frame == pytest.approx(repeats)


@given(st.lists(STATES, min_size=1, max_size=4), st.floats(1.0, 5.0))
def test_a_slope_without_error_stays_as_it_is(means, value):
    assume(len(set(means)) == len(means))
    line = fit_line([Known(value, 0.02, m, 0.0) for m in means], SeriesSlope(0.8, 0.0, 0.05))
    assert line.scale == 1 / 0.8
    assert line.scale_var == 0.0
