"""The trigger ``undecided``: when counting longer decides a level, how much longer, and when it cannot help."""

import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import norm

from xas_agent.agent.decide import Observed, Rule, Rules, Undecided, start_watch, triggers_in
from xas_agent.agent.decide.triggers.base import QuantityWatch
from xas_agent.agent.types import DescriptorEstimate, Estimate, Frame

Z90 = 1.6448536269514722


def frame(n: int, ood: float = 0.1, **of: float) -> tuple[Frame, Estimate]:
    """A frame whose OS has a value, the scatter ``sd`` and, in the interval, a ``shared`` part."""
    value, sd, shared = of["value"], of["sd"], of.get("shared", 0.0)
    half = Z90 * math.hypot(sd, shared)
    made = Frame(f"f{n}", "run", n, 10.0 * n, np.empty(0), np.empty(0), element="Co", edge="K")
    return made, Estimate({"OS": DescriptorEstimate(value, value - half, value + half, sd_frame=sd)}, ood)


def trigger(of: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    waiting = {"kind": "threshold", "quantity": "OS", "above": 3.5, **(of or {})}
    if "low" in waiting:
        waiting |= {"kind": "band"}
        del waiting["above"]
    return {"kind": "undecided", "of": waiting, **changes}


def rules(trigger: dict[str, Any], **rule: Any) -> Rules:
    made = {"name": "longer", "trigger": trigger, "action": "repeat_frame", "max_times": 10, **rule}
    return Rules([Rule.model_validate(made)], {"OS": "e"})


def factor(trigger: dict[str, Any], **of: float) -> float | None:
    decisions = rules(trigger)(*frame(1, **of))
    return decisions[0].args["count_factor"] if decisions else None


def test_the_counting_time_is_the_square_of_present_to_needed_scatter():
    # Needed: 0.04 / 1.2816 = 0.0312; (0.05 / 0.0312)² = 2.567, rounded up to two digits.
    [decision] = rules(trigger())(*frame(1, value=3.46, sd=0.05))
    assert decision.action == "repeat_frame"
    assert decision.args["count_factor"] == 2.6
    off, least = math.hypot(0.05, 0.05 / math.sqrt(2.6)), norm.ppf(0.9) * 0.05 / math.sqrt(2.6)
    gain = norm.sf(least, -0.04, off) + norm.cdf(-least, -0.04, off)
    assert decision.reason == (
        "OS 3.46 e is not decided against above 3.5 e: it scatters by 0.05 e, and 0.031 e is needed; counted "
        f"2.6 times longer, it is decided with a probability of {gain:.2f}"
    )
    assert decision.evidence == (("f1", 3.46),)


@pytest.mark.parametrize(
    ("of", "changes", "expected"),
    [
        ({"value": 3.43, "sd": 0.05}, {}, None),  # decided: 0.07 is more than 1.28 times 0.05
        ({"value": 3.57, "sd": 0.05}, {}, None),
        ({"value": 3.54, "sd": 0.05}, {}, 2.6),  # as far above as below
        ({"value": 3.46, "sd": 0.05}, {"confidence": 0.95}, 4.3),  # (1.645 · 0.05 / 0.04)² = 4.23
        ({"value": 3.499, "sd": 0.05}, {}, 10.0),  # at the level: as long as is permitted
        ({"value": 3.5, "sd": 0.05}, {"max_factor": 4.0}, 4.0),
        ({"value": 3.5, "sd": 0.05}, {"max_factor": 2.0}, None),  # decided with a probability of 0.46 only
        ({"value": 3.5, "sd": 0.05}, {"max_factor": 2.0, "min_gain": 0.4}, 2.0),
        ({"value": 3.46, "sd": 0.0}, {}, None),
    ],
)
def test_the_factor_depends_on_distance_and_scatter(of, changes, expected):
    assert factor(trigger(**changes), **of) == expected


def test_what_all_frames_share_is_allowed_for_as_the_condition_does():
    # All errors, 0.9: √((0.1 / 1.2816)² − 0.06²) = 0.04989 is needed of 0.08: factor 2.571.
    waits = {"min_confidence": 0.9}
    assert factor(trigger(waits), value=3.6, sd=0.08, shared=0.06) == 2.6
    # The scatter alone, 0.078, would be decided at 0.0780.
    assert factor(trigger({**waits, "uncertainty": "frame"}), value=3.6, sd=0.08, shared=0.06) == 1.1
    # The value decides (min_confidence 0.5): the shared part does not matter.
    assert factor(trigger(), value=3.6, sd=0.08, shared=0.5) == 1.1


def test_nothing_is_asked_for_where_counting_longer_cannot_help():
    # 0.1 / 1.2816 = 0.078 is less than what all frames share.
    assert factor(trigger({"min_confidence": 0.9}, min_gain=0.0), value=3.6, sd=0.2, shared=0.08) is None
    assert factor(trigger({"min_confidence": 0.9}, min_gain=0.0), value=3.6, sd=0.2, shared=0.07) == 10.0
    assert factor(trigger({"min_confidence": 0.9}, min_gain=0.0), value=3.5, sd=0.2, shared=0.01) is None


def test_in_a_band_both_ends_matter():
    band = {"low": 3.4, "high": 3.5}
    # In the middle P(inside) = 1 − 2·Φ(−0.05/σ) = 0.9 at σ = 0.05 / 1.6449 = 0.0304: (0.05 / 0.0304)² = 2.706.
    assert factor(trigger(band, min_gain=0.0), value=3.45, sd=0.05) == 2.8
    assert factor(trigger(band), value=3.45, sd=0.05) is None  # the repeat would lie near an end
    assert factor(trigger(band), value=3.54, sd=0.05) == 2.6  # outside: as for a threshold
    assert factor(trigger({**band, "outside": True}, min_gain=0.0), value=3.45, sd=0.05) == 2.8


@pytest.mark.parametrize("distance", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("shared", [0.0, 0.02])
def test_the_expected_gain_is_how_often_repeats_decide(distance, shared):
    settings = Undecided.model_validate(trigger({"min_confidence": 0.9}))
    draw = np.random.default_rng(1).normal
    repeated = 0.06 / 2
    sample = 3.5 + distance + draw(0, 0.06, 20_000)
    values = sample + draw(0, repeated, 20_000)
    often = np.mean([settings.decided(value, repeated, shared) for value in values])
    assert settings.gain(3.5 + distance, 0.06, shared, 4.0) == pytest.approx(often, abs=0.012)


def test_each_undecided_frame_asks_anew_until_max_times():
    watched = rules(trigger(), max_times=2)
    made = [watched(*frame(n, value=value, sd=0.05)) for n, value in enumerate((3.46, 3.47, 3.2, 3.48), 1)]
    assert [len(decisions) for decisions in made] == [1, 1, 0, 0]


def test_a_given_factor_counts_and_other_actions_receive_none():
    [decision] = rules(trigger(), args={"count_factor": 4})(*frame(1, value=3.46, sd=0.05))
    assert decision.args["count_factor"] == 4
    [decision] = rules(trigger(), action="notify")(*frame(1, value=3.46, sd=0.05))
    assert decision.args == {}


def test_it_is_combined_with_other_conditions():
    high = {"kind": "threshold", "quantity": "OS_hi", "above": 3.0}
    [decision] = rules({"kind": "all", "of": [high, trigger()]})(*frame(1, value=3.46, sd=0.05))
    assert decision.args["count_factor"] == 2.6
    assert "OS 3.46 e is not decided" in decision.reason


def test_unfamiliar_late_and_unknown_frames_are_passed_over():
    watched = rules(trigger())
    assert not watched(*frame(5, ood=2.0, value=3.46, sd=0.05))
    assert watched(*frame(5, value=3.46, sd=0.05))
    assert not watched(*frame(4, value=3.46, sd=0.05))
    assert not rules(trigger({"quantity": "CN"}))(*frame(1, value=3.46, sd=0.05))


def test_it_goes_on_after_a_restart():
    watched, again = rules(trigger(), max_times=2), rules(trigger(), max_times=2)
    watched(*frame(1, value=3.46, sd=0.05))
    memory = {key: json.loads(json.dumps(state)) for key, state in watched.memory("run").items()}
    again.restore(memory)
    assert not again(*frame(0, value=3.46, sd=0.05))
    assert len(again(*frame(2, value=3.46, sd=0.05))) == 1
    assert not again(*frame(3, value=3.46, sd=0.05))


def test_a_line_through_frames_and_other_conditions_are_refused():
    with pytest.raises(ValidationError, match="found window_frames 21 in of, expected 1"):
        rules(trigger({"window_frames": 21}))
    with pytest.raises(ValidationError, match="of"):
        rules({"kind": "undecided", "of": {"kind": "plateau", "quantity": "OS", "tolerance": 0.1, "frames": 20}})


def test_it_judges_again_where_time_went_back():
    watched = rules(trigger())
    watched(*frame(1000, value=3.46, sd=0.05))
    made = [watched(*frame(n, value=3.46, sd=0.05)) for n in range(1, 12)]
    assert made[-1]


def test_what_it_compares_is_that_of_the_condition_in_the_order_of_the_triggers():
    rule = Rule.model_validate({"name": "r", "trigger": trigger()})
    watch = start_watch(rule.trigger, {})
    watch.frame(Observed(*frame(1, value=3.46, sd=0.05)))
    watches, triggers = [*watch.parts()], [*triggers_in(rule.trigger)]
    assert len(watches) == len(triggers) == 2
    assert isinstance(watches[1], QuantityWatch)
    assert (watches[1].compared.value, watches[1].compared.bars) == (3.46, (3.5,))
