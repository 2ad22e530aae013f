"""Rules on the series of estimates, and the decisions that follow."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cachetools import LRUCache
from pydantic import Field

from ..types import Z90, Action, Decision, Estimate, Frame, Memory, Settings, get_logger
from .triggers import SeriesPoint, Threshold, Trigger, Watch, start_watch

_log = get_logger()

_MAX_SERIES = 256
"""Number of series, and of runs, that are remembered; the least recently used ones are dropped."""

_SeriesKey = tuple[str, str | None, str | None]
"""(series, element, edge)"""


class Rule(Settings):
    """A trigger with the action that it requests."""

    name: str = Field(min_length=1)
    """Unique name of the rule, which its decisions carry."""
    trigger: Trigger
    """Condition of the rule; its ``kind`` is ``threshold`` or ``plateau``."""
    action: Action = "notify"
    """Action that a decision requests."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments that the control receives with the action."""


class Rules:
    """Turns frames and their estimates into decisions.

    A series belongs to one absorption edge of one sample, or of one run for frames without a sample. It therefore
    continues over the runs of a sample. Frames may arrive out of order. Estimates that are not finite, or whose
    ``ood_score`` exceeds the rule's limit, are left out. Not thread-safe.

    Parameters
    ----------
    rules : rules with unique names
    units : units of the descriptors, by name, for the reasons in words

    Raises
    ------
    ValueError
        Two rules have the same name.
    """

    def __init__(self, rules: Sequence[Rule], units: Mapping[str, str] | None = None) -> None:
        names = Counter(rule.name for rule in rules)
        if repeated := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"two rules are named {repeated[0]!r}")
        self._rules = tuple(rules)
        self._units = dict(units or {})
        self._watches: LRUCache[_SeriesKey, dict[str, Watch]] = LRUCache(_MAX_SERIES)
        self._decisions: LRUCache[str, Counter[str]] = LRUCache(_MAX_SERIES)
        """Number of decisions of each rule, by run."""
        self._warned: set[str] = set()

    def __call__(self, frame: Frame, estimate: Estimate) -> list[Decision]:
        """Return the decisions for one frame, at most one per rule, in the order of the rules."""
        key = (frame.series, frame.element, frame.edge)
        watches = self._watches.setdefault(key, {})
        decisions = []
        for rule in self._rules:
            point = self._point(rule, frame, estimate)
            if point is None:
                continue
            if rule.name not in watches:
                watches[rule.name] = self._start_watch(rule)
            verdict = watches[rule.name](point)
            if verdict is None:
                continue
            counts = self._decisions.setdefault(frame.run_uid, Counter())
            if counts[rule.name] >= rule.trigger.max_times:
                continue
            counts[rule.name] += 1
            decisions.append(
                Decision(
                    id=str(uuid.uuid4()),  # random, so that nobody can guess it and send it first
                    rule=rule.name,
                    action=rule.action,
                    reason=verdict.reason,
                    run_uid=frame.run_uid,
                    time=frame.time,
                    confidence=verdict.confidence,
                    evidence=verdict.evidence,
                    scan=frame.scan,
                    args=rule.args,
                )
            )
        return decisions

    def forget(self, run_uid: str) -> None:
        """Forget a run that stopped; the series of a sample is kept."""
        self._decisions.pop(run_uid, None)
        for key in [key for key in self._watches if key[0] == run_uid]:
            del self._watches[key]

    def memory(self, frame: Frame) -> Memory:
        """Return the states of a frame's series and run."""
        watches = self._watches.get((frame.series, frame.element, frame.edge), {})
        counts = self._decisions.get(frame.run_uid, {})
        states = {name: watch.state() for name, watch in watches.items()}
        memory: Memory = {(frame.series, "rules", frame.element, frame.edge): states} if states else {}
        return memory | {(frame.run_uid, "decisions"): dict(counts)} if counts else memory

    def restore(self, memory: Memory) -> None:
        """Continue with the states of :meth:`memory`."""
        for (series, owner, *absorber), states in memory.items():
            if owner == "decisions":
                self._decisions[series or ""] = Counter(states)
            elif owner == "rules":
                element, edge = absorber
                watches = self._watches.setdefault((series or "", element, edge), {})
                for rule in self._rules:
                    if rule.name in states:
                        watches[rule.name] = self._start_watch(rule)
                        watches[rule.name].restore(states[rule.name])

    def _start_watch(self, rule: Rule) -> Watch:
        return start_watch(rule.trigger, self._units.get(rule.trigger.descriptor, ""))

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
        lo, hi = descriptor.lo, descriptor.hi
        if isinstance(trigger, Threshold) and trigger.uncertainty == "frame":
            half = Z90 * descriptor.sd_frame
            lo, hi = descriptor.mean - half, descriptor.mean + half
        return SeriesPoint.from_interval(frame.uid, frame.time, descriptor.mean, lo, hi)
