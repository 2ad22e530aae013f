"""``xas-agent rules test``: what rules would have decided on a recording, and with neighbouring settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...adapters.files import FileSource
from ...agent.decide import (
    Observed,
    QuantityTrigger,
    Rule,
    Rules,
    SeriesPoint,
    Trigger,
    Uncertainty,
    Unfamiliar,
    triggers_in,
)
from ...agent.publish import Answered, PublishedReader
from ...agent.types import Decision, Frame, InputError, SetAside
from ..output.folder import DOCUMENTS

_RECORDED_TIME = "recorded_time"
"""Reading of a replayed folder that holds the time at which it was measured."""
_STEP = 0.05
"""Change of a level, in spans of the quantity over the recording."""
_LEVELS = ("above", "below", "low", "high")
_SIZES = ("above_per_hour", "below_per_hour", "tolerance", "drop", "seconds", "duration_s", "dwell_s", "within_s")
_COUNTS = ("frames", "dwell_frames", "window_frames")
_CONFIDENCES = (0.5, 0.9, 0.99)
_CLOCKS = ((3600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class Recording:
    """What an agent has published of an experiment."""

    items: Sequence[Answered | SetAside]
    """Frames and notes in the order in which they were published."""
    units: Mapping[str, str]
    """Units of the quantities, by name."""

    @property
    def frames(self) -> list[Answered]:
        """The frames, of which there is at least one."""
        return [item for item in self.items if not isinstance(item, SetAside)]

    @property
    def clock(self) -> tuple[float, str]:
        """Length in s, and name, of the unit of time in which the recording is told."""
        span = max(frame.time for frame, *_ in self.frames) - self.start
        return next(((size, name) for size, name in _CLOCKS if span >= 2 * size), (1.0, "s"))

    @property
    def start(self) -> float:
        """Time of the earliest frame, Unix s."""
        return min(frame.time for frame, *_ in self.frames)

    def points(self, quantity: str, uncertainty: Uncertainty = "all") -> list[SeriesPoint]:
        """Return the values of a quantity in all frames that have it."""
        return [p for item in self.frames if (p := Observed(*item).point(quantity, uncertainty)) is not None]


@dataclass(frozen=True)
class Rehearsed:
    """What a rule would have decided, and what it would have decided with one setting changed."""

    rule: Rule
    decisions: list[Decision]
    neighbours: list[tuple[str, list[Decision]]]
    """(setting with its value, decisions)"""


def read_recording(folder: Path) -> Recording:
    """Read the frames and notes of a session's folder, in the order in which they were published.

    Frames of a replayed folder get the time at which they were measured.

    Raises
    ------
    InputError
        The folder has no documents of an agent, or these hold no frame.
    """
    path = folder / DOCUMENTS if folder.is_dir() else folder
    if not path.is_file():
        raise InputError(f"{folder}: found no {DOCUMENTS}; name the --out of a session of run or replay")
    read = PublishedReader()
    items = [item for name, doc in FileSource(path) for item in read(name, doc)]
    if all(isinstance(item, SetAside) for item in items):
        raise InputError(f"{path}: found no frame of an agent; name the documents of a session of run or replay")
    timed = [item if isinstance(item, SetAside) else (_at_its_time(item[0]), *item[1:]) for item in items]
    return Recording(timed, read.units)


def rehearse(rules: Sequence[Rule], recording: Recording) -> list[Rehearsed]:
    """Judge a recording by rules, and by each rule with one setting changed at a time.

    Rules without a stage are varied alone, those with one among all rules.

    Raises
    ------
    InputError
        No frame has a quantity that a rule watches.
    """
    for rule in rules:
        for quantity in quantities_in(rule):
            if not recording.points(quantity):
                raise InputError(
                    f"rule {rule.name}: no frame of the recording has {quantity}; anchored and relative values are "
                    "in it if the session had the same anchors and relative"
                )
    made = decided(rules, recording)
    return [
        Rehearsed(
            rule,
            [d for d in made if d.rule == rule.name],
            [
                (text, [d for d in decided(_with(rules, other), recording) if d.rule == rule.name])
                for text, other in neighbours(rule, recording)
            ],
        )
        for rule in rules
    ]


def decided(rules: Sequence[Rule], recording: Recording) -> list[Decision]:
    """Return the decisions of rules on a recording."""
    judge, made = Rules(rules, recording.units), list[Decision]()
    for item in recording.items:
        made += judge.note(item) if isinstance(item, SetAside) else judge(*item)
    return made


def neighbours(rule: Rule, recording: Recording) -> Iterator[tuple[str, Rule]]:
    """Yield the rule with one setting of its trigger changed, and this setting in words.

    Levels change by a twentieth of the span of their quantity over the recording, sizes and counts to half and twice
    their value, and the least confidence to 0.5, 0.9 and 0.99.
    """
    for text, trigger in _neighbours(rule.trigger, recording):
        yield text, rule.model_copy(update={"trigger": trigger})


def span_of(quantity: str, recording: Recording) -> float:
    """Return the difference of the largest and the smallest value of a quantity; 0 if it has none."""
    values = [point.value for point in recording.points(quantity)]
    return max(values) - min(values) if values else 0.0


def _neighbours(trigger: Trigger, recording: Recording) -> Iterator[tuple[str, Trigger]]:
    parts = getattr(trigger, "of", None)
    if parts is None or isinstance(parts, str):
        yield from _changed(trigger, recording)
        return
    several = parts if isinstance(parts, tuple) else (parts,)
    for k, part in enumerate(several):
        name = getattr(part, "quantity", part.kind)
        for text, other in _neighbours(part, recording):
            of = (*several[:k], other, *several[k + 1 :]) if isinstance(parts, tuple) else other
            yield f"{name}: {text}", trigger.model_copy(update={"of": of})


def _changed(trigger: Trigger, recording: Recording) -> Iterator[tuple[str, Trigger]]:
    values = trigger.model_dump()
    step = _rounded(_STEP * span_of(trigger.quantity, recording)) if isinstance(trigger, QuantityTrigger) else 0.0
    for name, value in values.items():
        for other in _others(name, value, step):
            try:
                changed = type(trigger).model_validate({**values, name: other})
            except ValidationError:  # the setting cannot have this value
                continue
            yield f"{name} {other:.6g}", changed


def _others(name: str, value: Any, step: float) -> list[float]:
    """Return the other values of a setting that are tried."""
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
    """Round to one digit, so that neighbouring levels are numbers that one would write."""
    return float(f"{value:.1g}")


def _with(rules: Sequence[Rule], other: Rule) -> Sequence[Rule]:
    staged = any(r.stage is not None or r.go_to is not None for r in rules)
    return [other if r.name == other.name else r for r in rules] if staged else [other]


def _at_its_time(frame: Frame) -> Frame:
    recorded = frame.readings.get(_RECORDED_TIME)
    return frame if recorded is None else replace(frame, time=recorded)


def quantities_in(rule: Rule) -> list[str]:
    """Return the names of the quantities that a rule watches."""
    named = [t.quantity for t in triggers_in(rule.trigger) if isinstance(t, QuantityTrigger)]
    scored = [t.quantity for t in triggers_in(rule.trigger) if isinstance(t, Unfamiliar)]
    return list(dict.fromkeys([*named, *scored]))
