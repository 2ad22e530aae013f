"""When rules decide and when they must not, and how well they stop a noisy charge."""

import math
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from xas_agent.agent.decide.observed import SeriesPoint
from xas_agent.agent.decide.rules import Rule, Rules
from xas_agent.agent.decide.triggers import Plateau, Threshold, Trigger
from xas_agent.agent.decide.triggers.base import QuantityWatch
from xas_agent.agent.decide.triggers.level import LevelWatch
from xas_agent.agent.decide.triggers.trend import PlateauWatch
from xas_agent.agent.types import Z90, robust_line
from xas_agent.agent.types.decision import Decision
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.frame import Frame
from xas_agent.agent.types.scan import Scan

ENERGY = np.array([7700.0, 7720.0, 7740.0])
CHARGE_STEP = 0.0112
"""OS per frame during delithiation: 3.0 → 3.9 in 81 frames."""
STOP_AT_HALF = Threshold(quantity="OS", above=3.5, window_frames=21)


def frame(n: int, *, time: float | None = None, run: str = "run", sample: str = "", el="Co") -> Frame:
    return Frame(
        uid=f"{run}-{n}",
        run_uid=run,
        seq_num=n,
        time=10.0 * n if time is None else time,
        energy=ENERGY,
        mu=np.array([0.0, 1.0, 1.0]),
        element=el,
        edge="K",
        scan=Scan(sample),
    )


def estimate(value: float, sigma: float = 0.0, ood: float = 0.1) -> Estimate:
    half = Z90 * sigma
    return Estimate({"OS": DescriptorEstimate(value, value - half, value + half)}, ood_score=ood)


def rules(trigger: Trigger, **rule) -> Rules:
    return Rules([Rule(name="watch", trigger=trigger, **rule)], units={"OS": "e"})


def fires(watch: QuantityWatch, point: SeriesPoint) -> bool:
    """Return whether the condition begins to hold with a point."""
    held = watch.holds
    watch.add(point)
    return watch.holds and not held


def fed(rules: Rules, values: Sequence[float], first: int = 1, **frames) -> list[int]:
    """Return the numbers of the frames that gave a decision."""
    return [n for n, v in enumerate(values, first) if rules(frame(n, **frames), estimate(v))]


def test_of_decisions_on_one_frame_the_safest_comes_first():
    """Whatever the order of the rules; the others follow in theirs."""
    at_once = Threshold(quantity="OS", above=3.0)
    actions = ("resume", "notify", "pause", "stop")
    made = Rules([Rule(name=action, trigger=at_once, action=action) for action in actions])
    assert [decision.rule for decision in made(frame(1), estimate(3.5))] == ["notify", "stop", "pause", "resume"]


class TestThreshold:
    def test_level_of_the_same_sample_is_judged_by_the_scatter_of_repeats(self):
        descriptor = DescriptorEstimate(3.55, 2.55, 4.55, sd_frame=0.01)
        for uncertainty, number in (("all", 0), ("frame", 1)):
            trigger = Threshold(quantity="OS", above=3.5, min_confidence=0.95, uncertainty=uncertainty)
            made = rules(trigger)(frame(1), Estimate({"OS": descriptor}, ood_score=0.1))
            assert len(made) == number
        [decision] = made
        assert decision.confidence > 0.999
        assert decision.reason == "OS 3.55 e (3.53…3.57) above 3.5 e for 1 frame"

    def test_a_decision_to_repeat_a_frame_names_it(self):
        trigger = Threshold(quantity="OS", above=3.5)
        [decision] = rules(trigger, action="repeat_frame", args={"count_factor": 4})(frame(3), estimate(3.6))
        assert decision.args == {"count_factor": 4, "run": "run", "frame": 3}

    def test_decision_gives_its_reason(self):
        made = rules(Threshold(quantity="OS", above=3.5), action="stop", args={"why": 1})(
            frame(3, sample="cell"), estimate(3.55, sigma=0.05)
        )
        [decision] = made
        assert decision.reason == "OS 3.55 e (3.47…3.63) above 3.5 e for 1 frame"
        assert decision.confidence == pytest.approx(0.8413, abs=1e-4)
        assert decision.evidence == (("run-3", 3.55),)
        assert (decision.action, decision.status, decision.args) == ("stop", "proposed", {"why": 1})
        assert (decision.run_uid, decision.scan.series, decision.time) == ("run", "cell", 30.0)

    def test_ids_are_random_and_unique(self):
        def ids(run: str) -> list[str]:
            watched = rules(Threshold(quantity="OS", above=3.5), max_times=9)
            values = [3.6, 3.4, 3.6, 3.4, 3.6]
            return [d.id for n, v in enumerate(values) for d in watched(frame(n, run=run), estimate(v))]

        made = [*ids("a"), *ids("a"), *ids("b")]
        assert len(set(made)) == 9
        assert {uuid.UUID(i).version for i in made} == {4}

    def test_below(self):
        assert fed(rules(Threshold(quantity="OS", below=3.5)), [3.6, 3.55, 3.45, 3.4]) == [3]

    def test_once_per_run_by_default(self):
        assert fed(rules(Threshold(quantity="OS", above=3.5)), [3.6, 3.4, 3.6]) == [1]

    def test_hysteresis(self):
        values = [3.6, 3.45, 3.6, 3.35, 3.6]
        assert fed(rules(Threshold(quantity="OS", above=3.5, hysteresis=0.1), max_times=9), values) == [
            1,
            5,
        ]
        assert fed(rules(Threshold(quantity="OS", above=3.5), max_times=9), values) == [1, 3, 5]

    def test_dwell_in_frames_is_broken_by_one_frame(self):
        trigger = Threshold(quantity="OS", above=3.5, dwell_frames=3)
        assert fed(rules(trigger), [3.6, 3.6, 3.4, 3.6, 3.6, 3.6]) == [6]

    def test_dwell_in_seconds(self):
        trigger = Threshold(quantity="OS", above=3.5, dwell_s=25)
        assert fed(rules(trigger), [3.6, 3.6, 3.6, 3.6]) == [4]

    def test_confidence_waits_until_the_interval_is_past(self):
        watched = rules(Threshold(quantity="OS", above=3.5, min_confidence=0.95))
        assert not watched(frame(1), estimate(3.55, sigma=0.05))
        assert watched(frame(2), estimate(3.59, sigma=0.05))

    def test_out_of_distribution_neither_counts_nor_breaks_the_dwell(self):
        trigger = Threshold(quantity="OS", above=3.5, dwell_frames=2)
        watched = rules(trigger)
        assert not watched(frame(1), estimate(3.6))
        assert not watched(frame(2), estimate(3.6, ood=1.5))
        assert not watched(frame(3), estimate(3.1, ood=math.nan))
        assert watched(frame(4), estimate(3.6))

    def test_every_frame_counts_without_max_ood(self):
        assert rules(Threshold(quantity="OS", above=3.5, max_ood=None))(frame(1), estimate(3.6, ood=9.0))

    def test_late_frame_is_not_judged(self):
        watched = rules(Threshold(quantity="OS", above=3.5))
        assert not watched(frame(5), estimate(3.4))
        assert not watched(frame(4), estimate(3.6))
        assert watched(frame(6), estimate(3.6))

    def test_continues_after_time_went_back(self):
        watched = rules(Threshold(quantity="OS", above=3.5), max_times=2)
        assert fed(watched, [3.6], time=1e12) == [1]
        assert fed(watched, [3.6] * 20, first=2) == [9]

    def test_glitch_at_the_newest_frame_does_not_carry_the_line(self):
        assert fed(rules(STOP_AT_HALF), [3.3] * 25 + [4.5, 4.5] + [3.3] * 10 + [4.5]) == []

    def test_no_verdict_before_the_window_is_full(self):
        assert fed(rules(STOP_AT_HALF), [3.8] * 22) == [21]


class TestPlateau:
    def test_decides_when_the_drift_is_over(self):
        trigger = Plateau(quantity="OS", tolerance=0.05, duration_s=100)
        values = [3 + 0.0112 * min(n, 40) for n in range(80)]
        [at] = fed(rules(trigger), values)
        assert 41 <= at <= 52

    def test_waits_for_the_whole_duration(self):
        assert fed(rules(Plateau(quantity="OS", tolerance=0.05, duration_s=100)), [3.0] * 30) == [11]
        assert fed(rules(Plateau(quantity="OS", tolerance=0.05, frames=20)), [3.0] * 30) == [20]

    def test_decision_gives_its_reason(self):
        watched = rules(Plateau(quantity="OS", tolerance=0.05, frames=7))
        [decision] = [d for n in range(7) for d in watched(frame(n), estimate(3.0))]
        assert decision.reason == "OS 3 e changes by +0 e in 60 s, within ± 0.05 e, over 7 frames"
        assert len(decision.evidence) == 7

    def test_decides_again_only_after_a_change(self):
        trigger = Plateau(quantity="OS", tolerance=0.05, frames=10)
        values = [3.0] * 30 + [3.5] * 30
        first, second = fed(rules(trigger, max_times=5), values)
        assert first == 10
        assert 31 < second <= 41

    def test_noisy_ramp_is_not_a_plateau(self):
        """The tolerance is a third of the drift over the window, for which 2 % of 100 noisy charges may be wrong."""
        trigger = Plateau(quantity="OS", tolerance=0.075, frames=20, min_confidence=0.95)
        wrong = 0
        for seed in range(100):
            follow = PlateauWatch(trigger)
            wrong += any(fires(follow, point) for point in charge(seed)[1])
        assert wrong <= 2

    def test_size_of_a_long_and_fast_series_is_limited(self):
        follow = PlateauWatch(Plateau(quantity="OS", tolerance=0.05, duration_s=60))
        made = [n for n in range(7000) if fires(follow, SeriesPoint(str(n), n / 100, 3.0, 0.01))]
        assert made == [6000]
        assert len(follow.series.points) <= 512


class TestSeries:
    def test_continues_over_the_runs_of_a_sample(self):
        watched = rules(Threshold(quantity="OS", above=3.5, dwell_frames=2))
        assert not watched(frame(1, run="a", sample="cell"), estimate(3.6))
        watched.forget("a")
        assert watched(frame(2, run="b", sample="cell"), estimate(3.6))

    def test_runs_without_a_sample_are_separate_and_forgotten(self):
        watched = rules(Threshold(quantity="OS", above=3.5, dwell_frames=2))
        assert not watched(frame(1, run="a"), estimate(3.6))
        assert not watched(frame(2, run="b"), estimate(3.6))
        watched.forget("a")
        assert not watched(frame(3, run="a"), estimate(3.6))
        assert watched(frame(4, run="b"), estimate(3.6))

    def test_edges_do_not_mix(self):
        watched = rules(Threshold(quantity="OS", above=3.5, dwell_frames=2))
        assert not watched(frame(1, el="Co"), estimate(3.6))
        assert not watched(frame(2, el="Ni"), estimate(3.6))

    def test_missing_descriptor_leaves_the_rule_idle(self):
        assert rules(Threshold(quantity="CN", above=3.5))(frame(1), estimate(3.6)) == []


class TestSettings:
    @pytest.mark.parametrize(
        ("trigger", "said"),
        [
            ({"kind": "threshold", "descriptor": "OS"}, "either above or below"),
            ({"kind": "threshold", "descriptor": "OS", "above": 1, "below": 2}, "either above or below"),
            ({"kind": "threshold", "descriptor": "OS", "above": 1, "window_frames": 4}, "at least 7"),
            ({"kind": "threshold", "descriptor": "OS", "above": 1, "dwel_frames": 2}, "dwel_frames"),
            ({"kind": "plateau", "descriptor": "OS", "tolerance": 0.1}, "either duration_s or frames"),
            (
                {"kind": "plateau", "descriptor": "OS", "tolerance": 1, "frames": 9, "min_frames": 10},
                "never true",
            ),
            ({"kind": "speed", "descriptor": "OS"}, "kind"),
        ],
    )
    def test_error_names_the_setting(self, trigger: dict, said: str):
        with pytest.raises(ValidationError, match=said):
            TypeAdapter(Trigger).validate_python(trigger)

    def test_rule_from_plain_values(self):
        rule = Rule.model_validate(
            {
                "name": "stop",
                "trigger": {"kind": "threshold", "descriptor": "OS", "above": 3.5},
                "action": "stop",
            }
        )
        assert rule.trigger == Threshold(quantity="OS", above=3.5)

    def test_two_rules_of_one_name(self):
        rule = Rule(name="stop", trigger=Threshold(quantity="OS", above=3.5))
        with pytest.raises(ValueError, match="found two rules named 'stop', expected"):
            Rules([rule, rule])


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(2, 5)
triggers = st.sampled_from(
    [
        Threshold(quantity="OS", above=3.5, dwell_frames=2, hysteresis=0.1),
        Threshold(quantity="OS", below=3.5, window_frames=7),
        Plateau(quantity="OS", tolerance=0.5, frames=7),
        Plateau(quantity="OS", tolerance=0.5, duration_s=3, max_ood=None),
    ]
)


@given(
    triggers,
    st.lists(
        st.tuples(st.floats(0, 100), numbers, numbers, numbers, numbers, st.sampled_from(["a", "b"])),
        max_size=40,
    ),
)
@settings(max_examples=150, deadline=None)
def test_any_frames_in_any_order(trigger: Threshold | Plateau, stream: list[tuple]):
    watched = rules(trigger, max_times=2)
    made: list[Decision] = []
    for n, (time, mean, lo, hi, ood, run) in enumerate(stream):
        told = Estimate({"OS": DescriptorEstimate(mean, lo, hi)}, ood_score=ood)
        made += watched(frame(n, time=time, run=run), told)
    assert len({d.id for d in made}) == len(made)
    for run in "ab":
        assert sum(d.run_uid == run for d in made) <= 2
    for decision in made:
        assert 0 <= decision.confidence <= 1
        assert all(math.isfinite(value) for _, value in decision.evidence)
        assert "nan" not in decision.reason


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("trigger", [STOP_AT_HALF, Plateau(quantity="OS", tolerance=0.1, frames=21)])
def test_values_too_large_to_square_never_raise(trigger: Threshold | Plateau):
    watched = rules(trigger)
    made = [d for n in range(60) for d in watched(frame(n), estimate(1e200 * (-1) ** n))]
    assert all(decision.confidence <= 0.5 for decision in made)


def charge(seed: int, noise: float = 0.03) -> tuple[np.ndarray, Iterator[SeriesPoint]]:
    """Return the true OS and the observed points: Gaussian noise, and 2 % of frames off by 0.2 to 1 e."""
    random = np.random.default_rng(seed)
    true = 3 + CHARGE_STEP * np.arange(81)
    seen = true + random.normal(0, noise, len(true))
    glitched = random.random(len(true)) < 0.02
    seen[glitched] += random.choice([-1, 1], glitched.sum()) * random.uniform(0.2, 1, glitched.sum())
    return true, (SeriesPoint(str(n), 10.0 * n, value, noise) for n, value in enumerate(seen))


def stopped_at(trigger: Threshold, seed: int) -> float:
    true, points = charge(seed)
    follow = LevelWatch(trigger)
    return next((true[n] for n, point in enumerate(points) if fires(follow, point)), math.nan)


def test_stops_a_noisy_charge_in_time():
    """All of 200 charges stop within 0.05 e of the level, including one frame of delay of the stop."""
    off = np.array([stopped_at(STOP_AT_HALF, seed) for seed in range(200)]) - 3.5
    assert np.all(np.abs(off) <= 0.05)
    assert np.all(off + CHARGE_STEP <= 0.05)
    assert abs(off.mean()) < 0.01


def test_bare_values_would_stop_it_early():
    """Without the window, the first noisy frame beyond the level stops the charge too early."""
    off = np.array([stopped_at(Threshold(quantity="OS", above=3.5), seed) for seed in range(50)]) - 3.5
    assert np.mean(off < -0.05) > 0.2


@pytest.mark.parametrize(("frames", "least"), [(7, 0.82), (15, 0.85), (30, 0.86)])
def test_interval_of_the_line_has_its_coverage(frames: int, least: float):
    random = np.random.default_rng(frames)
    time = 10.0 * np.arange(frames, dtype=np.float64)
    held_value = held_slope = 0
    for _ in range(1000):
        line = robust_line(time, 3 + 0.001 * time + random.normal(0, 0.03, frames))
        held_value += abs(line.value - (3 + 0.001 * time[-1])) <= Z90 * line.value_error
        held_slope += abs(line.slope - 0.001) <= Z90 * line.slope_error
    assert least < held_value / 1000 < 0.95
    assert least < held_slope / 1000 < 0.95


def test_error_that_all_frames_share_does_not_average_out():
    follow = LevelWatch(Threshold(quantity="OS", above=3.5, window_frames=15))
    random = np.random.default_rng(0)
    for n in range(15):
        follow.add(SeriesPoint(str(n), float(n), 3.6 + random.normal(0, 0.01), 0.1))
    assert follow.holds
    assert 0.8 < follow.confidence < 0.9
