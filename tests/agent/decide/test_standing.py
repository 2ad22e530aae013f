"""How rules stand: the judged value, the bar and the distance of each condition, before and after frames."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from xas_agent.agent.decide import Rule, Rules, Standing, Trigger
from xas_agent.agent.decide.standing import conditions_of
from xas_agent.agent.types import DescriptorEstimate, Estimate, Frame, Reason, SetAside

UNITS = {"OS": "e"}
ABOVE = {"kind": "threshold", "quantity": "OS", "above": 3.5}


def rules(*more: dict[str, Any]) -> Rules:
    return Rules([Rule.model_validate({"name": f"r{n}", **one}) for n, one in enumerate(more)], units=UNITS)


def serve(watched: Rules, *values: float, run: str = "run", begin: int = 1) -> None:
    for n, value in enumerate(values, begin):
        energy, mu = np.array([7700.0, 7720.0, 7740.0]), np.array([0.0, 1.0, 1.0])
        frame = Frame(f"{run}-{n}", run, n, 10.0 * n, energy, mu, element="Co", edge="K", readings={"T": 300.0 + n})
        watched(frame, Estimate({"OS": DescriptorEstimate(value, value - 0.1, value + 0.1, sd_frame=0.01)}, 0.2))


@pytest.mark.parametrize(
    ("trigger", "bar", "unit"),
    [
        (ABOVE, "above 3.5 e", "e"),
        ({"kind": "band", "quantity": "OS", "low": 3, "high": 4, "outside": True}, "outside 3…4 e", "e"),
        ({"kind": "unfamiliar"}, "above 1", ""),
        ({"kind": "plateau", "quantity": "OS", "tolerance": 0.1, "frames": 7}, "within ± 0.1 e", "e"),
        ({"kind": "rate", "quantity": "OS", "below_per_hour": 0.2}, "below 0.2 e/h", "e/h"),
        ({"kind": "extremum", "quantity": "OS", "of": "maximum", "drop": 0.1}, "0.1 e below its maximum", "e"),
        ({"kind": "change", "quantity": "OS"}, "10000", ""),
        ({"kind": "quiet", "seconds": 60}, "60 s", "s"),
        ({"kind": "set_aside", "frames": 3, "within_s": 90}, "3 in 90 s", ""),
    ],
)
def test_every_condition_says_its_bar_before_the_first_frame(trigger: dict[str, Any], bar: str, unit: str):
    [condition] = conditions_of(TypeAdapter(Trigger).validate_python(trigger), UNITS)
    assert (condition.bar, condition.unit, condition.value) == (bar, unit, None)


def test_a_rule_comes_closer_holds_and_has_decided():
    watched = rules({"trigger": ABOVE, "action": "stop"})
    assert watched.standing()[0].conditions[0].value is None
    serve(watched, 3.1, 3.4)
    [one] = watched.standing()
    [condition] = one.conditions
    assert (one.rule, one.action, one.holds, one.decisions_left) == ("r0", "stop", False, 1)
    assert (condition.value, condition.bars) == (3.4, (3.5,))
    assert condition.beyond == pytest.approx(-0.1)
    serve(watched, 3.6, begin=3)
    [one] = watched.standing()
    assert (one.holds, one.decisions_left) == (True, 0)
    assert one.conditions[0].beyond == pytest.approx(0.1)


def test_after_the_run_it_is_shown_how_the_rules_stood():
    watched = rules({"trigger": ABOVE})
    serve(watched, 3.6)
    before = watched.standing()
    watched.forget("run")
    assert watched.standing() == before
    serve(watched, 3.2, run="next")
    [one] = watched.standing()
    assert (one.conditions[0].value, one.decisions_left) == (3.2, 1)


def test_the_conditions_of_a_combination_and_of_a_negation():
    hot = {"kind": "threshold", "quantity": "readings.T", "above": 310}
    watched = rules({"trigger": {"kind": "all", "of": [ABOVE, {"kind": "not", "of": hot}]}})
    serve(watched, 3.6)
    [one] = watched.standing()
    assert one.holds
    assert [(c.quantity, c.value, c.negated) for c in one.conditions] == [
        *(("OS", 3.6, False), ("readings.T", 301.0, True)),
    ]
    assert one.conditions[1].beyond == pytest.approx(-9)


def test_a_window_that_is_not_full_a_rate_and_a_plateau():
    rate = {"kind": "rate", "quantity": "OS", "above_per_hour": 100, "window_frames": 7}
    plateau = {"kind": "plateau", "quantity": "OS", "tolerance": 0.1, "frames": 7}
    watched = rules({"trigger": rate}, {"trigger": plateau})
    serve(watched, 3.1, 3.2, 3.3)
    assert [c.value for s in watched.standing() for c in s.conditions] == [None, None]
    serve(watched, 3.4, 3.5, 3.6, 3.7, begin=4)
    (fast, still) = (s.conditions[0] for s in watched.standing())
    assert (fast.value, fast.what, fast.how) == (pytest.approx(36), "rate", "line of 7")
    assert fast.beyond == pytest.approx(-64)
    assert (still.value, still.what) == (pytest.approx(0.6), "change in 60 s")
    assert still.beyond == pytest.approx(-0.5)


def test_an_undecided_frame_a_silence_and_frames_set_aside():
    undecided = {"kind": "undecided", "of": ABOVE}
    watched = rules(
        {"trigger": undecided, "action": "repeat_frame"},
        {"trigger": {"kind": "quiet", "seconds": 60}},
        {"trigger": {"kind": "set_aside", "frames": 3}},
    )
    serve(watched, 3.49)
    watched.note(SetAside("run", "u", 12.0, Reason.NO_PRE_EDGE, "", 2, count=2))
    waits, silence, lost = (s.conditions[0] for s in watched.standing())
    assert (waits.quantity, waits.value) == ("OS", 3.49)
    assert (silence.value, silence.beyond) == (0.0, -60.0)
    assert (lost.value, lost.beyond) == (2, -1)


def test_a_rule_of_another_stage_is_not_followed():
    watched = rules(
        {"trigger": ABOVE, "stage": "first", "go_to": "second"},
        {"trigger": {**ABOVE, "above": 3.8}, "stage": "second"},
    )

    def followed(standing: tuple[Standing, ...]) -> list[bool]:
        return [one.followed for one in standing]

    serve(watched, 3.4)
    assert followed(watched.standing()) == [True, False]
    serve(watched, 3.6, begin=2)
    assert followed(watched.standing()) == [False, True]
