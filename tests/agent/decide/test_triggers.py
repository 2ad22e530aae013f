"""Triggers on series whose clock jumps, as when a computer's clock is set while an experiment runs."""

import random

import pytest

from xas_agent.agent.decide.observed import SeriesPoint
from xas_agent.agent.decide.triggers.level import LevelWatch, Threshold

LEVEL, DRIFT, STEP_S, WINDOW = 3.5, 0.0112, 30.0, 21


def decided_at(jump_s: float, seed: int, jump_at: int = 30) -> int:
    """Return the frame of the decision in a charge with noise, of which one step is longer by ``jump_s``."""
    rng = random.Random(seed)
    watch = LevelWatch(Threshold(quantity="OS", above=LEVEL, window_frames=WINDOW))
    time = 1.7e9
    for frame in range(100):
        time += STEP_S + (jump_s if frame == jump_at else 0.0)
        value = 3.0 + DRIFT * frame + rng.gauss(0, 0.03)
        watch.add(SeriesPoint(str(frame), time, value, 0.2))
        if watch.holds:
            return frame
    raise AssertionError("no decision")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("jump_s", [300.0, 3 * 3600.0, 30 * 86400.0])
def test_a_clock_that_jumps_forward_does_not_extend_the_line(jump_s: float, seed: int) -> None:
    assert abs(decided_at(jump_s, seed) - decided_at(0.0, seed)) <= 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("jump_s", [-3600.0, -30 * 86400.0])
def test_a_clock_that_is_put_back_costs_one_window(jump_s: float, seed: int) -> None:
    assert decided_at(0.0, seed) <= decided_at(jump_s, seed) <= 30 + WINDOW
