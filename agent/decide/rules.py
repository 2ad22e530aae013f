"""Rules over the series of estimates, and the decisions that they ask for."""

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import Field

from ..types import Action, Decision, Estimate, Frame, Settings, get_logger
from .triggers import SeriesPoint, Trigger, Watch, start_watch

_log = get_logger()

_NAMESPACE = uuid.UUID("6f1d3a52-1d0c-5c6e-9b5f-0d6a3c1f7e24")
_MAX_SERIES = 256
"""Series and runs remembered; those unheard of for longest go first."""

_K = TypeVar("_K")
_V = TypeVar("_V")
_SeriesKey = tuple[str | None, str | None, str | None, str | None]
"""(sample, run where there is no sample, element, edge)"""


class Rule(Settings):
    """What to watch for and what to ask for then."""

    name: str = Field(min_length=1)
    """Unique among the rules; decisions carry it."""
    trigger: Trigger
    """Condition of the rule; its ``kind`` is ``threshold`` or ``plateau``."""
    action: Action = "notify"
    """Action that a decision requests."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments that the control receives with the action."""


class Rules:
    """Turns frames and their estimates into decisions.

    Series are kept per sample, or per run where a frame names no sample, and per absorption edge, so that a
    series goes on over the runs of one sample and two edges never mix. Frames may come out of order; what is
    not finite, or farther out of distribution than its rule allows, is left out. One thread.

    Args:
        rules: with unique names; ValueError otherwise.
        units: of the descriptors by name, for the reasons in words.
    """

    def __init__(self, rules: Sequence[Rule], units: Mapping[str, str] | None = None) -> None:
        names = Counter(rule.name for rule in rules)
        if repeated := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"two rules are named {repeated[0]!r}")
        self._rules = tuple(rules)
        self._units = dict(units or {})
        self._watches: dict[_SeriesKey, dict[str, Watch]] = {}
        self._taken: dict[str, Counter[str]] = {}
        self._warned: set[str] = set()

    def __call__(self, frame: Frame, estimate: Estimate) -> list[Decision]:
        """Judge one frame; decisions come in the order of the rules, at most one each."""
        key = (frame.sample_uid, None if frame.sample_uid else frame.run_uid, frame.element, frame.edge)
        watches = _recent(self._watches, key, dict)
        decisions = []
        for rule in self._rules:
            point = self._point(rule, frame, estimate)
            if point is None:
                continue
            if rule.name not in watches:
                watches[rule.name] = start_watch(rule.trigger, self._units.get(rule.trigger.descriptor, ""))
            verdict = watches[rule.name](point)
            if verdict is None:
                continue
            taken = _recent(self._taken, frame.run_uid, Counter)
            if taken[rule.name] >= rule.trigger.max_times:
                continue
            taken[rule.name] += 1
            decisions.append(
                Decision(
                    id=str(uuid.uuid5(_NAMESPACE, f"{frame.run_uid}/{rule.name}/{taken[rule.name]}")),
                    rule=rule.name,
                    action=rule.action,
                    reason=verdict.reason,
                    run_uid=frame.run_uid,
                    time=frame.time,
                    confidence=verdict.confidence,
                    evidence=verdict.evidence,
                    sample_uid=frame.sample_uid,
                    args=rule.args,
                )
            )
        return decisions

    def forget(self, run_uid: str) -> None:
        """Drop what was kept for a run that stopped; the series of a sample outlives its runs."""
        self._taken.pop(run_uid, None)
        for key in [key for key in self._watches if key[1] == run_uid]:
            del self._watches[key]

    def _point(self, rule: Rule, frame: Frame, estimate: Estimate) -> SeriesPoint | None:
        trigger = rule.trigger
        descriptor = estimate.descriptors.get(trigger.descriptor)
        if descriptor is None:
            if rule.name not in self._warned:
                self._warned.add(rule.name)
                _log.warning(
                    "the model gives no such descriptor: rule idle",
                    rule=rule.name,
                    descriptor=trigger.descriptor,
                )
            return None
        if trigger.max_ood is not None and not estimate.ood_score <= trigger.max_ood:
            return None
        return SeriesPoint.from_interval(frame.uid, frame.time, descriptor.mean, descriptor.lo, descriptor.hi)


def _recent(kept: dict[_K, _V], key: _K, new: Callable[[], _V]) -> _V:
    """The entry of ``key``, made if missing and moved to the end; the oldest beyond the limit goes."""
    kept[key] = entry = kept.pop(key) if key in kept else new()
    if len(kept) > _MAX_SERIES:
        del kept[next(iter(kept))]
    return entry
