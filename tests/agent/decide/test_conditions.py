"""Bands, rates, extrema, changes, notes, silence, combinations and stages of rules."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from xas_agent.agent.decide import Rule, Rules, Threshold, Trigger, out_of_reach, start_watch
from xas_agent.agent.decide.observed import SeriesPoint
from xas_agent.agent.decide.triggers.base import QuantityWatch
from xas_agent.agent.types import DescriptorEstimate, Estimate, Flag, Frame, Reach, Reason, SetAside

Z90 = 1.6449
NOISE = 0.03


def frame(n: int, *, time: float | None = None, received: float = 0.0, **readings: float) -> Frame:
    at = 10.0 * n if time is None else time
    energy = np.array([7700.0, 7720.0, 7740.0])
    mu = np.array([0.0, 1.0, 1.0])
    return Frame(f"f{n}", "run", n, at, energy, mu, element="Co", edge="K", readings=readings, received=received)


def estimate(value: float, *, half: float = 0.0, ood: float = 0.1) -> Estimate:
    return Estimate({"OS": DescriptorEstimate(value, value - half, value + half)}, ood)


def rules(*triggers: dict[str, Any], **more: Any) -> Rules:
    return Rules([Rule.model_validate({"name": f"r{n}", "trigger": t, **more}) for n, t in enumerate(triggers)])


def numbers(watched: Rules, values: Iterable[float], **more: Any) -> list[int]:
    """Return the numbers of the frames, from 1, that gave a decision."""
    return [n for n, v in enumerate(values, 1) if watched(frame(n), estimate(v, **more))]


def alarms(trigger: dict[str, Any], values: Sequence[float]) -> list[int]:
    """Return the indices of the points with which the condition began to hold."""
    watch = start_watch(TypeAdapter(Trigger).validate_python(trigger), {})
    assert isinstance(watch, QuantityWatch)
    found: list[int] = []
    for n, value in enumerate(values):
        begun = watch.begun
        watch.add(SeriesPoint(str(n), 10.0 * n, float(value), 0.0))
        if watch.begun > begun:
            found.append(n)
    return found


OS_ABOVE = {"kind": "threshold", "quantity": "OS", "above": 3.5}


class TestQuantities:
    @pytest.mark.parametrize(
        ("quantity", "above", "decided"),
        [
            ("OS_half_width", 0.25, True),
            ("OS_half_width", 0.35, False),
            ("OS_hi", 3.25, True),
            ("ood_score", 0.05, True),
            ("noise", 0.01, True),
            ("noise", 0.03, False),
            ("readings.Ewe_V", 3.9, True),
            ("Ewe_V", 3.9, False),
        ],
    )
    def test_any_published_number_can_be_watched(self, quantity, above, decided):
        watched = rules({"kind": "threshold", "quantity": quantity, "above": above})
        made = watched(frame(1, Ewe_V=4.0), estimate(3.0, half=0.3), {"noise": 0.02})
        assert bool(made) is decided

    def test_a_quantity_that_no_frame_has_is_named_once_with_similar_ones(self, caplog):
        watched = rules({"kind": "threshold", "quantity": "readings.Ewe", "above": 1})
        for n in range(3):
            assert not watched(frame(n, Ewe_V=4.0), estimate(3.0))
        [record] = [r for r in caplog.records if "no such quantity" in r.getMessage()]
        assert "readings.Ewe_V" in record.getMessage()


class TestLevels:
    def test_band(self):
        inside = {"kind": "band", "quantity": "OS", "low": 3.2, "high": 3.4}
        assert numbers(rules(inside, max_times=9), [3.0, 3.3, 3.35, 3.5, 3.3]) == [2, 5]
        assert numbers(rules({**inside, "outside": True}, max_times=9), [3.0, 3.3, 3.35, 3.5, 3.3]) == [1, 4]

    def test_confidence_of_a_band_is_the_probability_inside(self):
        [decision] = rules({"kind": "band", "quantity": "OS", "low": 3.2, "high": 3.4})(
            frame(1), estimate(3.3, half=0.1 * Z90)
        )
        assert decision.confidence == pytest.approx(0.6827, abs=1e-3)
        assert decision.reason == "OS 3.3 (3.14…3.46) within 3.2…3.4 for 1 frame"

    def test_unfamiliar_spectra(self):
        watched = rules({"kind": "unfamiliar", "dwell_frames": 2})
        made = [bool(watched(frame(n), estimate(3.0, ood=s))) for n, s in enumerate([0.5, 1.5, 0.9, 1.2, 3.0])]
        assert made == [False, False, False, False, True]

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"above": 3.9}, ""),
            ({"above": 4.1}, "ends at 4"),
            ({"below": 0.9}, "ends at 1"),
            ({"above": 3.9, "min_confidence": 0.95}, "with min_confidence 0.95"),
            ({"above": 3.0, "min_confidence": 0.95}, ""),
            ({"above": 3.9, "min_confidence": 0.95, "uncertainty": "frame"}, ""),
        ],
    )
    def test_a_bar_that_no_estimate_reaches_is_found(self, settings, said):
        why = out_of_reach(Threshold(quantity="OS", **settings), Reach(1.0, 4.0, 0.3))
        assert said in why
        assert bool(why) is bool(said)


class TestTrends:
    def test_rate_is_found_among_noise_and_ends(self):
        values = [3.0] * 30 + [3.0 + 0.02 * n for n in range(30)] + [3.6] * 30
        noisy = values + np.random.default_rng(1).normal(0, NOISE / 3, 90)
        trigger = {"kind": "rate", "quantity": "OS", "above_per_hour": 3.6}  # 0.01 per frame of 10 s
        [at] = alarms(trigger, noisy)
        assert 33 <= at <= 48

    def test_constant_quantity_has_no_rate(self):
        noise = np.random.default_rng(2).normal(3, NOISE, 500)
        trigger = {"kind": "rate", "quantity": "OS", "above_per_hour": 5.0, "min_confidence": 0.99}
        assert alarms(trigger, noise.tolist()) == []

    def test_rate_gives_its_reason(self):
        watched = rules({"kind": "rate", "quantity": "OS", "above_per_hour": 3.0, "window_frames": 7})
        [decision] = [d for n in range(7) for d in watched(frame(n), estimate(3 + 0.01 * n))]
        assert decision.reason.startswith("OS changes by +3.6 ± ")
        assert decision.reason.endswith("/h, above 3/h, by a line through 7 frames")

    @pytest.mark.parametrize("seed", range(20))
    def test_turning_points_of_two_cycles(self, seed):
        cycle = [3 + 0.02 * n for n in range(30)] + [3.6 - 0.02 * n for n in range(30)]
        noisy = (cycle * 2) + np.random.default_rng(seed).normal(0, 0.01, 120)
        top, bottom = ({"kind": "extremum", "quantity": "OS", "of": of, "drop": 0.1} for of in ("maximum", "minimum"))
        first, second = alarms(top, noisy)
        assert 30 < first <= 45
        assert 90 < second <= 105
        assert [60 < n <= 75 for n in alarms(bottom, noisy) if n > 20] == [True]

    def test_a_pause_makes_no_rate(self):
        noise = np.random.default_rng(0).normal(0, 0.002, 39)
        watch = start_watch(
            TypeAdapter(Trigger).validate_python({"kind": "rate", "quantity": "OS", "above_per_hour": 1.0}), {}
        )
        assert isinstance(watch, QuantityWatch)
        for n in range(39):
            time = 10.0 * n + (1000.0 if n >= 20 else 0.0)
            watch.add(SeriesPoint(str(n), time, 3 + 1e-4 * time + noise[n], 0.0))  # 0.36 per hour
            assert not watch.holds

    def test_a_glitch_is_no_extremum(self):
        values = [3 + 0.01 * n for n in range(60)]
        values[30] = values[31] = 4.5
        assert alarms({"kind": "extremum", "quantity": "OS", "of": "maximum", "drop": 0.1}, values) == []


class TestChange:
    def test_jump_is_found_and_located(self):
        jumped = np.random.default_rng(0).normal(3, NOISE, 80)
        jumped[50:] += 5 * NOISE
        [at] = alarms({"kind": "change", "quantity": "OS"}, jumped.tolist())
        assert 50 <= at <= 54

    def test_each_of_two_jumps_is_found(self):
        values = np.random.default_rng(3).normal(3, NOISE, 120)
        values[40:] += 0.3
        values[80:] -= 0.2
        first, second = alarms({"kind": "change", "quantity": "OS"}, values.tolist())
        assert 40 <= first <= 42
        assert 80 <= second <= 84

    def test_line_is_no_change_but_its_end_is(self):
        values = [3 + 0.01 * min(n, 60) for n in range(100)] + np.random.default_rng(0).normal(0, 0.01, 100)
        [at] = alarms({"kind": "change", "quantity": "OS", "baseline": "line"}, values)
        assert 60 <= at <= 72

    def test_a_step_on_a_line_is_told_by_its_height(self):
        steps = [3 + 0.01 * n + (0.1 if n >= 40 else 0) for n in range(60)]
        values = steps + np.random.default_rng(0).normal(0, 0.002, 60)
        watched = rules({"kind": "change", "quantity": "OS", "baseline": "line"})
        [decision] = [d for n, v in enumerate(values) for d in watched(frame(n), estimate(v))]
        height = float(decision.reason.partition("left its line by ")[2].partition(",")[0])
        assert height == pytest.approx(0.1, abs=0.01)

    def test_a_count_that_has_been_zero_gives_no_alarm_at_its_first_one(self):
        assert alarms({"kind": "change", "quantity": "OS"}, [0.0] * 20 + [1.0] + [0.0] * 20) == []

    def test_a_change_that_does_not_matter_is_passed_over(self):
        values = np.random.default_rng(0).normal(3, 0.001, 100)
        values[50:] += 0.02
        assert len(alarms({"kind": "change", "quantity": "OS"}, values.tolist())) == 1
        assert alarms({"kind": "change", "quantity": "OS", "least": 0.1}, values.tolist()) == []

    @pytest.mark.parametrize("baseline", ["level", "line"])
    def test_false_alarms_are_as_rare_as_stated(self, baseline):
        """At 200 frames a rate of at most one in 200: in 40 series of 100 frames at most 20 are expected."""
        trigger = {"kind": "change", "quantity": "OS", "baseline": baseline, "false_alarm_frames": 200}
        random = np.random.default_rng(5)
        found = sum(len(alarms(trigger, random.normal(3, NOISE, 100).tolist())) for _ in range(40))
        assert found <= 20 + 3 * math.sqrt(20)

    def test_decision_gives_its_reason(self):
        values = [3.0 + 0.01 * (n % 2) for n in range(20)] + [3.4, 3.4, 3.4]
        watched = rules({"kind": "change", "quantity": "OS"})
        [decision] = [d for n, v in enumerate(values) for d in watched(frame(n), estimate(v))]
        assert "OS changed from 3 to 3.4" in decision.reason
        assert "one false alarm in 10000 frames" in decision.reason


class TestMissing:
    @staticmethod
    def note(n: int, *, count: int = 1, reason: Reason = Reason.NO_PRE_EDGE) -> SetAside:
        return SetAside("run", f"n{n}", 10.0 * n, reason, count=count)

    def test_frames_set_aside_are_counted(self):
        watched = rules({"kind": "set_aside", "frames": 3, "within_s": 60})
        assert [bool(watched.note(self.note(n))) for n in (1, 20, 21, 22)] == [False, False, False, True]

    def test_decision_names_reasons_and_run(self):
        watched = rules({"kind": "set_aside", "frames": 3})
        [decision] = watched.note(self.note(1, count=4))
        assert decision.run_uid == "run"
        assert decision.reason == f"4 frames set aside within 600 s ({Reason.NO_PRE_EDGE}), bar 3"

    def test_other_reasons_do_not_count(self):
        watched = rules({"kind": "set_aside", "frames": 1, "reasons": [str(Reason.EVENTS_LOST)]})
        assert not watched.note(self.note(1))
        assert watched.note(self.note(2, reason=Reason.EVENTS_LOST))

    def test_a_late_frame_is_no_silence(self):
        watched = rules({"kind": "quiet", "seconds": 30})
        times = enumerate([0.0, 10.0, 20.0, 30.0, 40.0, 5.0, 50.0])
        assert not [n for n, t in times if watched(frame(n, time=t), estimate(3.0))]

    def test_a_frame_that_is_too_old_to_be_judged_ends_the_silence(self):
        watched = rules({"kind": "quiet", "seconds": 60})
        watched(frame(1, received=1000.0), estimate(3.0))
        watched.heard(frame(2, received=900.0), 1050.0)
        assert not watched.quiet(1100.0)
        assert watched.quiet(1111.0)

    def test_silence_by_the_clock(self):
        watched = rules({"kind": "quiet", "seconds": 60})
        watched(frame(1, received=1000.0), estimate(3.0))
        assert not watched.quiet(1030.0)
        [decision] = watched.quiet(1061.0)
        assert decision.reason == "no frame for 61 s, bar 60 s"
        assert decision.time == pytest.approx(71.0)
        assert not watched.quiet(1090.0)

    def test_silence_by_the_frames_own_times(self):
        watched = rules({"kind": "quiet", "seconds": 60}, max_times=9)
        made = [
            bool(watched(frame(n, time=t), estimate(3.0))) for n, t in enumerate([0.0, 50.0, 100.0, 200.0, 210.0])
        ]
        assert made == [False, False, False, True, False]

    def test_a_run_that_stopped_is_not_silent(self):
        watched = rules({"kind": "quiet", "seconds": 60})
        watched(frame(1, received=1000.0), estimate(3.0))
        watched.forget("run")
        assert not watched.quiet(5000.0)


LOST = {"kind": "set_aside", "frames": 1}
LOW_VOLTAGE = {"kind": "threshold", "quantity": "readings.V", "below": 4.0}


class TestCombinations:
    def fed(self, trigger: dict[str, Any], series: Iterable[tuple[float, float]]) -> list[int]:
        watched = rules(trigger, max_times=9)
        return [n for n, (os, v) in enumerate(series, 1) if watched(frame(n, V=v), estimate(os))]

    def test_all(self):
        both = {"kind": "all", "of": [OS_ABOVE, LOW_VOLTAGE]}
        assert self.fed(both, [(3.6, 4.2), (3.4, 3.9), (3.6, 3.9), (3.6, 3.8), (3.6, 4.1), (3.6, 3.9)]) == [3, 6]

    def test_any_and_not(self):
        assert self.fed({"kind": "any", "of": [OS_ABOVE, LOW_VOLTAGE]}, [(3.4, 4.2), (3.6, 4.2), (3.6, 3.9)]) == [2]
        assert self.fed({"kind": "not", "of": OS_ABOVE}, [(3.6, 4.0), (3.4, 4.0), (3.6, 4.0), (3.4, 4.0)]) == [2, 4]

    def test_not_of_a_condition_that_cannot_be_judged_yet(self):
        level = {"kind": "threshold", "quantity": "OS", "above": 3.5, "window_frames": 7}
        assert self.fed({"kind": "not", "of": level}, [(3.0, 4.0)] * 9) == [7]

    def test_not_is_unknown_until_there_is_something_to_judge(self):
        """Nothing is decided on a frame without the quantity, on one that the model does not know, or on a note."""
        never = rules({"kind": "not", "of": OS_ABOVE}, max_times=9)
        assert not never(frame(1), estimate(math.nan))
        assert not never(frame(2), estimate(3.0, ood=5.0))
        assert never(frame(3), estimate(3.0))
        quiet = rules({"kind": "all", "of": [{"kind": "not", "of": {"kind": "quiet", "seconds": 60}}, LOST]})
        assert not quiet.note(SetAside("run", "n1", 5.0, Reason.NO_PRE_EDGE))

    def test_not_is_unknown_again_where_time_went_back(self):
        level = {"kind": "threshold", "quantity": "OS", "above": 3.5, "window_frames": 12}
        watched = rules({"kind": "any", "of": [{"kind": "not", "of": level}, OS_ABOVE]}, max_times=99)
        first = [n for n in range(20) if watched(frame(n, time=1e6 + n), estimate(3.0))]
        again = [n for n in range(20) if watched(frame(n, time=10.0 * n), estimate(3.0))]
        assert (first, again) == ([11], [11])

    def test_not_of_any_ends_with_the_condition_that_can_be_judged(self):
        either = {"kind": "any", "of": [OS_ABOVE, {"kind": "threshold", "quantity": "readings.V", "above": 4.2}]}
        watched = rules({"kind": "not", "of": either}, max_times=9)
        series = [(3.0, 0.1, 4.0), (3.0, 5.0, 4.5), (3.0, 0.1, 4.0)]
        made = [bool(watched(frame(n, V=v), estimate(os, ood=ood))) for n, (os, ood, v) in enumerate(series)]
        assert made == [True, False, True]

    def test_all_ends_with_the_condition_that_can_be_judged(self):
        both = {"kind": "all", "of": [OS_ABOVE, {"kind": "threshold", "quantity": "readings.V", "above": 4.2}]}
        watched = rules(both, max_times=9)
        series = [(0.1, 4.5), (5.0, 4.5), (0.1, 4.5), (5.0, 4.0), (5.0, 4.5), (0.1, 4.5)]
        made = [bool(watched(frame(n, V=v), estimate(3.6, ood=ood))) for n, (ood, v) in enumerate(series)]
        assert made == [True, False, False, False, False, True]

    @pytest.mark.parametrize(
        ("condition", "values", "confidence"),
        [
            ({**OS_ABOVE, "dwell_frames": 3}, [3.7], 1.0),
            ({"kind": "any", "of": [OS_ABOVE, {**OS_ABOVE, "above": 3.6}]}, [3.5 - 0.1 * Z90], 1 - 0.05 - 0.0041),
            ({"kind": "all", "of": [OS_ABOVE, {**OS_ABOVE, "above": 3.6}]}, [3.5 - 0.1 * Z90], 1 - 0.0041),
            ({"kind": "change", "quantity": "OS"}, [3.0] * 9, 1.0),
            ({"kind": "set_aside"}, [3.0], 1.0),
        ],
    )
    def test_confidence_of_not_is_a_lower_bound(self, condition, values, confidence):
        watched = rules({"kind": "not", "of": condition})
        [decision] = [d for n, v in enumerate(values) for d in watched(frame(n), estimate(v, half=0.1 * Z90))]
        assert decision.confidence == pytest.approx(confidence, abs=1e-4)

    def test_not_names_the_frames_that_it_judged(self):
        [decision] = rules({"kind": "not", "of": OS_ABOVE})(frame(1), estimate(3.0))
        assert decision.evidence == (("f1", 3.0),)
        assert decision.reason == "not (OS 3 above 3.5 for 0 frames)"

    def test_then_counts_only_frames_that_are_judged(self):
        """OS held before the voltage fell; an unfamiliar frame after that says nothing of it."""
        watched = rules({"kind": "then", "of": [LOW_VOLTAGE, OS_ABOVE]})
        series = [(3.6, 0.1, 4.2), (3.6, 5.0, 3.9), (3.6, 5.0, 3.9), (3.4, 0.1, 3.9), (3.6, 0.1, 3.9)]
        made = [bool(watched(frame(n, V=v), estimate(os, ood=ood))) for n, (os, ood, v) in enumerate(series)]
        assert made == [False, False, False, False, True]

    def test_then_of_conditions_that_hold_at_the_same_frame_waits_for_the_next(self):
        series = [(3.4, 4.2), (3.6, 3.9), (3.6, 3.9), (3.6, 3.9)]
        assert self.fed({"kind": "then", "of": [LOW_VOLTAGE, OS_ABOVE]}, series) == [3]
        assert (
            self.fed({"kind": "then", "of": [LOW_VOLTAGE, {"kind": "not", "of": OS_ABOVE}, OS_ABOVE]}, series) == []
        )

    def test_then_is_not_continued_by_late_frames_and_begins_anew_where_time_went_back(self):
        watched = rules({"kind": "then", "of": [LOW_VOLTAGE, OS_ABOVE]})
        assert not watched(frame(1, time=1e6, V=3.9), estimate(3.4))
        late = [watched(frame(n, time=float(n), V=4.2), estimate(3.6)) for n in range(20)]
        assert not any(late)
        assert not watched(frame(30, time=30.0, V=3.9), estimate(3.6))
        assert watched(frame(31, time=31.0, V=4.2), estimate(3.6))

    def test_then_with_notes_and_silence(self):
        """What a frame showed before the note does not follow it; a silence after a frame does."""
        watched = rules({"kind": "then", "of": [LOST, OS_ABOVE]})
        watched(frame(1), estimate(3.6))
        notes = [SetAside("run", f"n{n}", 10.0 + n, Reason.NO_PRE_EDGE) for n in (1, 2)]
        assert [watched.note(note) for note in notes] == [[], []]
        assert watched(frame(2), estimate(3.6))
        silent = rules({"kind": "then", "of": [OS_ABOVE, {"kind": "quiet", "seconds": 60}]})
        assert not silent(frame(1, received=1000.0), estimate(3.6))
        assert silent.quiet(1070.0)

    def test_then_begins_again_at_the_frame_at_which_it_ends(self):
        bands = [{"kind": "band", "quantity": "OS", "low": n, "high": n + 0.9} for n in (2, 3)]
        assert self.fed({"kind": "then", "of": bands}, [(2.5, 4), (3.5, 4), (2.5, 4), (3.5, 4)]) == [2, 4]

    def test_then_needs_the_order(self):
        after = {"kind": "then", "of": [LOW_VOLTAGE, OS_ABOVE]}
        assert self.fed(after, [(3.6, 4.2), (3.4, 3.9), (3.4, 4.2), (3.6, 4.2)]) == [4]
        assert self.fed(after, [(3.6, 3.9)]) == []
        assert self.fed({**after, "within_s": 15}, [(3.4, 3.9), (3.4, 4.2), (3.6, 4.2)]) == []
        assert self.fed({**after, "within_s": 15}, [(3.4, 3.9), (3.4, 3.9), (3.6, 3.9), (3.4, 3.9)]) == [3]

    def test_reasons_and_confidence_are_joined(self):
        watched = rules({"kind": "all", "of": [OS_ABOVE, {"kind": "threshold", "quantity": "OS", "below": 3.7}]})
        [decision] = watched(frame(1), estimate(3.6, half=0.1 * Z90))
        assert decision.confidence == pytest.approx(1 - 2 * 0.1587, abs=1e-3)
        assert " and " in decision.reason
        assert "above 3.5" in decision.reason
        assert "below 3.7" in decision.reason

    def test_alarm_of_a_metal_does_not_let_the_series_decide(self):
        watched = rules(OS_ABOVE, {"kind": "unfamiliar"})
        [decision] = watched(frame(1), estimate(4.0, ood=4.0))
        assert decision.rule == "r1"

    def test_a_reading_is_judged_while_the_spectra_are_unfamiliar(self):
        hot = {"kind": "threshold", "quantity": "readings.V", "above": 4.5}
        assert rules(hot)(frame(1, V=5.0), estimate(3.0, ood=2.0))
        assert not rules({**hot, "max_ood": 1.0})(frame(1, V=5.0), estimate(3.0, ood=2.0))

    def test_conditions_of_different_frames_are_not_combined(self):
        both = rules({"kind": "all", "of": [OS_ABOVE, {"kind": "threshold", "quantity": "readings.V", "above": 4.2}]})
        assert not both(frame(1, V=4.3), estimate(3.0))
        assert not both(frame(2), estimate(3.6))
        assert both(frame(3, V=4.3), estimate(3.6))

    def test_not_of_notes_is_certain(self):
        watched = rules({"kind": "all", "of": [OS_ABOVE, {"kind": "not", "of": {"kind": "set_aside"}}]})
        [decision] = watched(frame(1), estimate(3.6))
        assert decision.confidence == 1


class TestUndone:
    def test_a_decision_that_was_not_sent_does_not_use_the_rule_up(self):
        watched = rules(OS_ABOVE)
        [decision] = watched(frame(1), estimate(3.6))
        watched.undo(decision)
        assert not watched(frame(2), estimate(3.4))
        assert watched(frame(3), estimate(3.6))

    @pytest.mark.parametrize("dwell", [1, 2])
    @pytest.mark.parametrize("restarts", [False, True])
    def test_its_stage_goes_on_and_the_condition_must_end_before_the_rule_decides_again(self, dwell, restarts):
        trigger = {**OS_ABOVE, "dwell_frames": dwell}
        up = Rule.model_validate({"name": "up", "trigger": trigger, "stage": "a", "go_to": "end"})
        watched = Rules([up])
        [decision] = [d for n in range(dwell) for d in watched(frame(n), estimate(3.6))]
        if restarts:
            memory, watched = json_of(watched.memory("run")), Rules([up])
            watched.restore(memory)
        watched.undo(decision)
        series = [3.6] * 5 + [3.4] + [3.6] * 5
        made = [n for n, os in enumerate(series) if watched(frame(10 + n), estimate(os))]
        assert made == [5 + dwell]

    def test_a_rule_of_the_stage_left_is_judged_by_what_it_saw(self):
        up = {"name": "up", "trigger": OS_ABOVE, "stage": "a", "go_to": "end"}
        low = {"name": "low", "trigger": LOW_VOLTAGE, "stage": "a", "max_times": 9}
        watched = Rules([Rule.model_validate(rule) for rule in (low, up)])
        _, decision = watched(frame(1, V=2.0), estimate(3.6))
        watched.undo(decision)
        assert not watched(frame(2, V=2.0), estimate(3.6))
        assert not watched(frame(3, V=5.0), estimate(3.6))
        assert [d.rule for d in watched(frame(4, V=2.0), estimate(3.6))] == ["low"]

    def test_a_rule_without_a_stage_returns_to_the_stage_that_it_left(self):
        leads = {"name": "up", "trigger": OS_ABOVE, "go_to": "hold"}
        low = {"name": "low", "trigger": LOW_VOLTAGE, "stage": "charge"}
        hold = {"name": "hold", "trigger": LOW_VOLTAGE, "stage": "hold"}
        watched = Rules([Rule.model_validate(rule) for rule in (leads, low, hold)])
        [decision] = watched(frame(1, V=4.2), estimate(3.6))
        watched.undo(decision)
        assert [d.rule for d in watched(frame(2, V=3.9), estimate(3.4))] == ["low"]


class TestAbsorbers:
    """A sample with two absorbers, measured in turn."""

    @staticmethod
    def of(n: int, element: str, edge: str = "K") -> Frame:
        return replace(frame(n), element=element, edge=edge)

    def test_a_rule_judges_the_frames_of_its_absorber(self):
        watched = rules({**OS_ABOVE, "dwell_frames": 2}, element="co")
        series = [("Co", 3.6), ("Ni", 3.6), ("Ni", 3.6), ("Co", 3.4), ("Co", 3.6), ("Ni", 3.0), ("Co", 3.6)]
        made = [n for n, (element, os) in enumerate(series) if watched(self.of(n, element), estimate(os))]
        assert made == [6]

    @pytest.mark.parametrize(("edge", "decided"), [("k", []), ("L3", [1]), ("L", [0, 1])])
    def test_a_rule_judges_the_frames_of_its_edge(self, edge, decided):
        watched = rules(OS_ABOVE, edge=edge, max_times=9)
        assert [n for n, e in enumerate(("L2", "L3")) if watched(self.of(n, "Co", e), estimate(3.6))] == decided

    def test_each_absorber_goes_through_the_stages_of_its_rules(self):
        up = {"name": "up", "element": "Co", "trigger": OS_ABOVE, "stage": "charge", "go_to": "end"}
        rest = {"name": "rest", "element": "Ni", "trigger": OS_ABOVE, "stage": "rest", "go_to": "end"}
        watched = Rules([Rule.model_validate(rule) for rule in (up, rest)])
        made = [d.rule for n, e in enumerate(("Ni", "Co", "Co", "Ni")) for d in watched(self.of(n, e), estimate(3.6))]
        assert made == ["rest", "up"]

    def test_an_undone_decision_returns_to_the_stage_of_its_absorber(self):
        up = {"name": "up", "trigger": OS_ABOVE, "stage": "charge", "go_to": "end", "max_times": 2}
        watched = Rules([Rule.model_validate(up)])
        [decision] = watched(self.of(1, "Co"), estimate(3.6))
        assert not watched(self.of(2, "Ni"), estimate(3.0))
        watched.undo(decision)
        assert not watched(self.of(3, "Co"), estimate(3.4))
        assert watched(self.of(4, "Co"), estimate(3.6))

    @pytest.mark.parametrize(
        ("given", "said"), [({"element": "Oxide"}, "Oxide is not an element"), ({"edge": "X"}, "edge")]
    )
    def test_unknown_symbols_are_refused(self, given, said):
        with pytest.raises(ValidationError, match=said):
            rules(OS_ABOVE, **given)


class TestStages:
    CHARGE = Rule.model_validate({"name": "up", "trigger": OS_ABOVE, "stage": "charge", "go_to": "hold"})
    HOLD = Rule.model_validate(
        {
            "name": "still",
            "trigger": {"kind": "plateau", "quantity": "OS", "tolerance": 0.05, "frames": 7},
            "stage": "hold",
            "go_to": "end",
        }
    )

    def test_a_stage_begins_after_the_decision_of_the_one_before(self):
        watched = Rules([self.CHARGE, self.HOLD])
        made = [(n, d.rule) for n in range(40) for d in watched(frame(n), estimate(3.4 if n < 20 else 3.6))]
        assert made == [(20, "up"), (27, "still")]

    def test_a_stage_that_begins_again_forgets_what_held(self):
        up = Rule.model_validate({"name": "up", "trigger": OS_ABOVE, "stage": "a", "go_to": "a", "max_times": 9})
        low = Rule.model_validate({"name": "low", "trigger": LOW_VOLTAGE, "stage": "a", "max_times": 9})
        watched = Rules([up, low])
        series = [(3.6, 2.0), (3.4, 5.0), (3.4, 2.0), (3.6, 2.0), (3.4, 2.0)]
        made = [(n, d.rule) for n, (os, v) in enumerate(series) for d in watched(frame(n, V=v), estimate(os))]
        assert made == [(0, "up"), (2, "low"), (3, "up"), (4, "low")]

    def test_unknown_stage_is_refused(self):
        with pytest.raises(ValueError, match="expected a stage of a rule: charge, end"):
            Rules([self.CHARGE])

    def test_stage_is_restored(self):
        watched, again = Rules([self.CHARGE, self.HOLD]), Rules([self.CHARGE, self.HOLD])
        for n in range(23):
            watched(frame(n), estimate(3.6))
        again.restore(json_of(watched.memory("run")))
        assert [n for n in range(23, 40) if again(frame(n), estimate(3.6))] == [
            n for n in range(23, 40) if watched(frame(n), estimate(3.6))
        ]


def json_of(memory: Any) -> Any:
    """Return a memory as a journal keeps it."""
    return {key: json.loads(json.dumps(value)) for key, value in memory.items()}


LEAVES = [
    OS_ABOVE,
    {"kind": "band", "quantity": "OS", "low": 3.0, "high": 3.4, "window_frames": 7},
    {"kind": "unfamiliar", "dwell_frames": 2},
    {"kind": "plateau", "quantity": "OS", "tolerance": 0.3, "frames": 7},
    {"kind": "rate", "quantity": "OS", "above_per_hour": 10, "window_frames": 7},
    {"kind": "extremum", "quantity": "OS", "of": "maximum", "drop": 0.2, "window_frames": 7},
    {"kind": "change", "quantity": "OS", "false_alarm_frames": 50},
    {"kind": "set_aside", "frames": 2, "within_s": 100},
    {"kind": "quiet", "seconds": 40},
]
several = st.sampled_from(["all", "any", "then"])
trees = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        st.fixed_dictionaries({"kind": several, "of": st.lists(inner, min_size=2, max_size=3)})
        | st.fixed_dictionaries({"kind": st.just("not"), "of": inner})
    ),
    max_leaves=4,
)
happenings = st.lists(
    st.tuples(st.sampled_from(["frame", "note", "quiet"]), st.floats(0, 300), st.floats(2, 5), st.floats(0, 2)),
    max_size=40,
)


NOT_BOTH = {"kind": "not", "of": {"kind": "all", "of": [OS_ABOVE, LEAVES[5]]}}


@given(trees, happenings, st.integers(0, 40))
@example(NOT_BOTH, [("frame", 0.0, 2.0, 0.0)], 0)
@settings(max_examples=150, deadline=None)
def test_any_condition_goes_on_after_a_restart_as_without_one(trigger, happened, cut):
    """A restart at any point changes no later decision, and no series makes a rule fail."""
    one, other = rules(trigger, max_times=99), rules(trigger, max_times=99)

    def told(watched: Rules, n: int) -> list[tuple[str, float, str]]:
        kind, time, value, ood = happened[n]
        if kind == "frame":
            made = watched(frame(n, time=time, received=time), estimate(value, half=0.2, ood=ood))
        elif kind == "note":
            made = watched.note(SetAside("run", str(n), time, Reason.NO_PRE_EDGE))
        else:
            return []
        return [(d.rule, d.confidence, d.reason) for d in made]

    for n in range(min(cut, len(happened))):
        told(one, n)
    other.restore(json_of(one.memory("run")))
    for n in range(cut, len(happened)):
        made = told(one, n)
        assert all(0 <= confidence <= 1 and "nan" not in reason for _, confidence, reason in made)
        if happened[n][0] == "frame" and not any(h[0] == "note" for h in happened[:cut]):
            assert told(other, n) == made


@pytest.mark.parametrize(
    "trigger",
    [
        {"kind": "change", "least": 0.1},
        {"kind": "rate", "above_per_hour": 5.0, "window_frames": 7},
        {"kind": "extremum", "of": "minimum", "drop": 0.1, "window_frames": 7},
        {"kind": "threshold", "above": 3.2, "window_frames": 7, "min_confidence": 0.8},
    ],
    ids=lambda trigger: trigger["kind"],
)
def test_the_step_where_the_foil_is_forgotten_is_no_change_of_the_sample(trigger: dict[str, Any]):
    rng = np.random.default_rng(0)
    values = np.r_[np.full(60, 3.0), np.full(12, 3.3)] + rng.normal(0, 0.01, 72)

    def decided(flag: tuple[Flag, ...]) -> list[int]:
        watched = rules({"quantity": "OS", **trigger})
        answers = [estimate(value) for value in values[:60]]
        answers += [replace(estimate(value, half=1.0 if flag else 0.0), flags=flag) for value in values[60:]]
        return [n for n, answer in enumerate(answers) if watched(frame(n), answer)]

    assert decided(())
    assert decided((Flag.FOIL_FORGOTTEN,)) == []


@pytest.mark.parametrize(
    ("trigger", "warned"),
    [
        ({"kind": "band", "low": 33, "high": 36}, True),
        ({"kind": "band", "low": 3.3, "high": 3.32}, False),
        ({"kind": "band", "low": 0, "high": 5, "outside": True}, True),
        ({"kind": "band", "low": 3, "high": 3.5, "outside": True}, False),
        ({"kind": "threshold", "quantity": "OS_mean", "above": 35}, True),
        ({"kind": "threshold", "quantity": "OS_mean", "above": 3.5}, False),
        ({"kind": "threshold", "quantity": "OS_anchored", "above": 35}, True),
        ({"kind": "threshold", "quantity": "OS_anchored", "above": 4.4}, False),
    ],
)
def test_levels_and_bands_far_from_all_that_a_model_gives_are_named(trigger: dict[str, Any], warned: bool):
    made = TypeAdapter(Trigger).validate_python({"quantity": "OS", **trigger})
    assert bool(out_of_reach(made, Reach(1.0, 4.0, 0.3))) is warned


def test_a_reason_leaves_out_what_is_not_known_yet():
    (decision,) = rules(NOT_BOTH)(frame(0), estimate(2.0, half=0.2))
    assert decision.reason == "not (OS 2 (1.8…2.2) above 3.5 for 0 frames)"


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({"kind": "band", "quantity": "OS", "low": 4, "high": 3}, "less than high"),
        ({"kind": "rate", "quantity": "OS"}, "above_per_hour"),
        ({"kind": "all", "of": [OS_ABOVE]}, "at least 2"),
        ({"kind": "any", "of": [OS_ABOVE, {"kind": "threshold", "quantity": "OS"}]}, "either above or below"),
        ({"kind": "not", "of": {"kind": "nothing"}}, "kind"),
    ],
)
def test_error_names_the_setting(trigger, said):
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Trigger).validate_python(trigger)
