"""``xas-agent rules test``: finds what rules would have decided on a recording, also with neighbouring settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import median
from typing import Any

from pydantic import ValidationError

from ...agent.decide import (
    READINGS,
    Observed,
    QuantityTrigger,
    Rule,
    Trigger,
    Unfamiliar,
    triggers_in,
    without_part,
)
from ...agent.relative import setting_for
from ...agent.types import Decision, InputError
from ..output.judged import Judgement
from ..output.judged import decided as judge_again
from .recording import Recording

_STEP = 0.05
"""Change of a level, relative to the quantity's span over the recording, if this exceeds its scatter."""
_LEVELS = ("above", "below", "low", "high")
_SIZES = (
    "above_per_hour",
    "below_per_hour",
    "tolerance",
    "drop",
    "seconds",
    "duration_s",
    "dwell_s",
    "within_s",
    "false_alarm_frames",
)
_COUNTS = ("frames", "dwell_frames", "window_frames")
_CONFIDENCES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Rehearsed:
    """The decisions that a rule would have made, also with one setting changed."""

    rule: Rule
    decisions: list[Decision]
    neighbours: list[tuple[str, list[Decision]]]
    """Each changed setting in words, with the decisions that follow."""
    judged: list[Judgement]
    """Comparisons at each frame that the rule followed."""


def rehearse(rules: Sequence[Rule], recording: Recording) -> list[Rehearsed]:
    """Judge a recording by rules, and by each rule with one setting changed at a time.

    A rule without a stage is varied alone, a rule with a stage among all rules.

    Raises
    ------
    InputError
        No frame has a rule's absorber, or none has a quantity that the rule watches.
    """
    for rule in rules:
        _check(rule, recording)
    judged: list[Judgement] = []
    made = decided(rules, recording, judged)
    return [
        Rehearsed(
            rule,
            [d for d in made if d.rule == rule.name],
            [
                (text, [d for d in decided(_with(rules, other), recording) if d.rule == rule.name])
                for text, other in neighbours(rule, recording)
            ],
            [j for j in judged if j.rule == rule.name],
        )
        for rule in rules
    ]


def decided(rules: Sequence[Rule], recording: Recording, judged: list[Judgement] | None = None) -> list[Decision]:
    """Return the decisions of rules on a recording.

    Parameters
    ----------
    judged : receives the comparisons at each frame
    """
    return judge_again(rules, recording.items, recording.units, judged)


def _check(rule: Rule, recording: Recording) -> None:
    if not recording.judged_by(rule):
        wanted = " ".join(filter(None, (rule.element, rule.edge)))
        found = ", ".join(dict.fromkeys(f"{f.element or ''} {f.edge or ''}".strip() for f, *_ in recording.frames))
        raise InputError(f"rule {rule.name}: no frame of the recording is of {wanted}; found {found}")
    for quantity in quantities_in(rule):
        if not recording.points(quantity, rule):
            remedy = _remedy(quantity, recording)
            raise InputError(f"rule {rule.name}: no frame of the recording has {quantity}; {remedy}")


def _remedy(quantity: str, recording: Recording) -> str:
    """Return advice, in words, for a quantity that a recording lacks."""
    names = dict.fromkeys(name for item in recording.frames for name in Observed(*item).names())
    if setting := setting_for(without_part(quantity), names):
        which = "which a frame meets" if setting == "anchors" else "in the config"
        again = "rehearse on the documents that the beamline recorded, or run again with this config"
        return f"it needs {setting}, {which}: {again}"
    by_lower = {name.lower(): name for name in names}
    if like := get_close_matches(quantity.lower(), by_lower, n=3):
        return f"similar: {', '.join(by_lower[name] for name in like)}"
    readings = [name for name in names if name.startswith(READINGS)]
    return f"its readings: {', '.join(readings) or 'none'}"


def neighbours(rule: Rule, recording: Recording) -> Iterator[tuple[str, Rule]]:
    """Yield the rule with one setting of its trigger changed, and this setting in words.

    Levels change by a twentieth of their quantity's span over the recording, and at least by its scatter between
    frames (the level of ``unfamiliar`` by a tenth of itself). Sizes and counts change to half and twice their value,
    and the least confidence to 0.5, 0.9 and 0.99.
    """
    steps = {quantity: _step_of(quantity, rule, recording) for quantity in quantities_in(rule)}
    for text, trigger in _neighbours(rule.trigger, steps):
        yield text, rule.model_copy(update={"trigger": trigger})


def _step_of(quantity: str, rule: Rule, recording: Recording) -> float:
    """Return the change of a quantity's level, rounded to one digit; 0 if no frame has the quantity.

    If nothing happens, a share of the span would be less than the noise, and the rule would appear robust.
    """
    points = recording.points(quantity, rule, "frame")
    if not points:
        return 0.0
    values = [point.value for point in points]
    return _rounded(max(_STEP * (max(values) - min(values)), median(point.sigma for point in points)))


def _neighbours(trigger: Trigger, steps: Mapping[str, float]) -> Iterator[tuple[str, Trigger]]:
    parts = getattr(trigger, "of", None)
    if parts is None or isinstance(parts, str):
        yield from _changed(trigger, steps)
        return
    several = parts if isinstance(parts, tuple) else (parts,)
    for k, part in enumerate(several):
        name = getattr(part, "quantity", part.kind)
        for text, other in _neighbours(part, steps):
            of = (*several[:k], other, *several[k + 1 :]) if isinstance(parts, tuple) else other
            yield f"{name}: {text}", trigger.model_copy(update={"of": of})


def _changed(trigger: Trigger, steps: Mapping[str, float]) -> Iterator[tuple[str, Trigger]]:
    values = trigger.model_dump()
    if isinstance(trigger, Unfamiliar):  # its bar has its own scale
        step = 2 * _STEP * trigger.above
    else:
        step = steps[trigger.quantity] if isinstance(trigger, QuantityTrigger) else 0.0
    for name, value in values.items():
        for other in _others(name, value, step):
            try:
                changed = type(trigger).model_validate({**values, name: other})
            except ValidationError:  # the value is not allowed
                continue
            yield f"{name} {other:.6g}", changed


def _others(name: str, value: Any, step: float) -> list[float]:
    """Return the other values of a setting to try."""
    if value is None:
        return []
    if name in _LEVELS and step:
        return [value - step, value + step]
    if name in _SIZES and value:
        return [value / 2, value * 2]
    if name in _COUNTS:
        return sorted({max(1, math.ceil(value / 2)), value * 2} - {value})
    return [c for c in _CONFIDENCES if c != value] if name == "min_confidence" else []


def _rounded(value: float) -> float:
    """Round to one digit, so that neighbouring levels are numbers that a person would write."""
    return float(f"{value:.1g}")


def _with(rules: Sequence[Rule], other: Rule) -> Sequence[Rule]:
    staged = any(r.stage is not None or r.go_to is not None for r in rules)
    return [other if r.name == other.name else r for r in rules] if staged else [other]


def quantities_in(rule: Rule) -> list[str]:
    """Return the names of the quantities that a rule watches."""
    named = [t.quantity for t in triggers_in(rule.trigger) if isinstance(t, QuantityTrigger)]
    scored = [t.quantity for t in triggers_in(rule.trigger) if isinstance(t, Unfamiliar)]
    return list(dict.fromkeys([*named, *scored]))
