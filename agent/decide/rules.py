"""Rules on the series of frames, and the decisions that they make."""

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from difflib import get_close_matches
from typing import Any

from cachetools import LRUCache
from pydantic import Field, field_validator, model_validator

from ..types import (
    COURSE_OF_A_RUN,
    ELEMENTS,
    Action,
    Decision,
    Estimate,
    Frame,
    Memory,
    Scan,
    SetAside,
    Settings,
    args_of_decision,
    get_logger,
    is_edge,
)
from .observed import Observed
from .standing import Standing, conditions_of
from .triggers import FramesSetAside, QuantityTrigger, Quiet, Trigger, Watch, start_watch, triggers_in

_log = get_logger()

_MAX_SERIES = 256
"""Number of series, and of runs, that are remembered; the least recently used ones are dropped."""

END = "end"
"""Stage without rules; only rules that have no stage are followed in it."""

_SeriesKey = tuple[str, str | None, str | None]
"""(series, element, edge)"""


class Rule(Settings):
    """A trigger and the action that it requests."""

    name: str = Field(min_length=1)
    """Unique name of the rule; its decisions carry it."""
    trigger: Trigger
    """Condition of the rule, with its ``kind``. The rule decides when the condition begins to hold."""
    action: Action = "notify"
    """Action that a decision of the rule requests."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments that the control receives with the action. If ``repeat_frame`` has no ``count_factor``, a trigger
    ``undecided`` computes it."""
    max_times: int = Field(default=1, ge=1)
    """Largest number of decisions per run."""
    element: str | None = None
    """Absorber whose frames the rule judges, for example ``Co``; unset: every absorber, each in its own series."""
    edge: str | None = None
    """Absorption edge whose frames the rule judges, such as ``K`` or ``L3``; ``L`` is any of L1 to L3; unset: all."""
    stage: str | None = None
    """Stage of the series during which the agent follows the rule; unset: in all stages. A series begins in the stage
    of the first rule for its absorber that has one; a new stage begins with the next frame."""
    go_to: str | None = None
    """Stage that a decision of the rule begins: the stage of another rule, or ``end``."""

    @field_validator("element")
    @classmethod
    def _is_an_element(cls, element: str | None) -> str | None:
        symbol = element and element.strip().capitalize()
        if symbol is not None and symbol not in ELEMENTS:
            raise ValueError(f"the symbol of an absorber, such as Co; {element} is not an element")
        return symbol

    @field_validator("edge")
    @classmethod
    def _is_an_edge(cls, edge: str | None) -> str | None:
        name = edge and edge.strip().upper()
        if name is not None and not is_edge(name):
            raise ValueError(f"an absorption edge, such as K or L3; {edge} is not one")
        return name

    @field_validator("stage")
    @classmethod
    def _is_a_stage(cls, stage: str | None) -> str | None:
        if stage == END:
            raise ValueError(f"found {stage!r}, expected another name: in the stage {END} no rule is followed")
        return stage

    def concerns(self, element: str | None, edge: str | None) -> bool:
        """Return whether the rule judges the frames of an absorber and edge."""
        return self.element in (None, element) and (self.edge is None or (edge or "").startswith(self.edge))

    @model_validator(mode="before")
    @classmethod
    def _limit_of_the_trigger(cls, values: Any) -> Any:
        """Accept ``max_times`` inside the trigger, where it was up to version 0.2."""
        trigger = values.get("trigger") if isinstance(values, dict) else None
        if isinstance(trigger, dict) and "max_times" in trigger and "max_times" not in values:
            rest = {key: value for key, value in trigger.items() if key != "max_times"}
            return {**values, "trigger": rest, "max_times": trigger["max_times"]}
        return values


def check_names(rules: Sequence[Rule]) -> None:
    """Raise ValueError if two rules have one name, or if a rule leads to a stage that no rule has."""
    names = Counter(rule.name for rule in rules)
    if repeated := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"found two rules named {repeated[0]!r}, expected a name for each")
    stages = [rule.stage for rule in rules if rule.stage is not None]
    for rule in rules:
        if rule.go_to is not None and rule.go_to not in (*stages, END):
            known = ", ".join(dict.fromkeys([*stages, END]))
            raise ValueError(f"found go_to {rule.go_to!r} in rule {rule.name!r}, expected a stage of a rule: {known}")


@dataclass
class _Left:
    """The state of a series before its stage changed last."""

    stage: str | None = None
    by: str = ""
    """Id of the decision that changed the stage."""
    watches: dict[str, Watch] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)


@dataclass
class _Series:
    """What the rules remember of one series."""

    rules: tuple[Rule, ...]
    """The rules that judge the absorber of the series."""
    stage: str | None = None
    left: _Left = field(default_factory=_Left)
    watches: dict[str, Watch] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)
    """How often the condition of each rule had begun to hold when it was last judged."""
    newest: tuple[str, float, Scan] | None = None
    """Run, time and scan of the newest frame; None before the first and after the run stopped."""
    received: float | None = None
    """Arrival time of the newest frame, monotonic seconds; None if an earlier process received it."""


class Rules:
    """Turns frames with estimates, notes on frames set aside, and silence into decisions.

    A series belongs to one absorption edge of one sample, so that it continues over the sample's runs. Frames without
    a sample form a series for each run. Frames may arrive out of order. Quantities that are not finite, or whose
    ``ood_score`` exceeds the trigger's limit, are left out. Not thread-safe.

    Parameters
    ----------
    rules : rules with unique names
    units : units of the quantities, by name, for the texts of the reasons

    Raises
    ------
    ValueError
        Raised by :func:`check_names`.
    """

    def __init__(self, rules: Sequence[Rule], units: Mapping[str, str] | None = None) -> None:
        check_names(rules)
        self._rules = tuple(rules)
        self._units = dict(units or {})
        self._counts_notes = _any_of(rules, FramesSetAside)
        self._waits = _any_of(rules, Quiet)
        self._series: LRUCache[_SeriesKey, _Series] = LRUCache(_MAX_SERIES)
        self._of_run: LRUCache[str, _SeriesKey] = LRUCache(_MAX_SERIES)
        """Series of the newest frame of each run."""
        self._decisions: LRUCache[str, Counter[str]] = LRUCache(_MAX_SERIES)
        """Number of decisions of each rule, by run."""
        self._newest: tuple[str, _SeriesKey] | None = None
        """Run and series of the newest frame; None before the first one, and after its run stopped."""
        self._stood = tuple(Standing(r.name, r.action, conditions_of(r.trigger, self._units)) for r in self._rules)
        """How the rules stood when the run of the newest frame stopped, or at the beginning."""
        self._checked: set[str] = set()
        """Rules whose quantities were already looked for in a frame."""

    def __call__(
        self, frame: Frame, estimate: Estimate, quantities: Mapping[str, float] | None = None
    ) -> list[Decision]:
        """Return the decisions for one frame, at most one per rule, in the order of the rules.

        Parameters
        ----------
        quantities : quantities of the frame's alignment, by name
        """
        key = self._of_run[frame.run_uid] = _key_of(frame)
        self._newest = frame.run_uid, key
        series = self._series_of(key)
        observed = Observed(frame, estimate, quantities or {})
        decisions: list[Decision] = []
        # The clock measures the silence before live frames (quiet); recorded frames have only their own times.
        if self._waits and not frame.received and series.newest and (gap := frame.time - series.newest[1]) > 0:
            decisions = self._silent(series, gap, frame.time)
        self._hear(series, frame)
        for rule, watch in self._followed(series):
            if rule.name not in self._checked:
                self._checked.add(rule.name)
                self._warn_of_unknown(rule, observed)
            watch.frame(observed)
        return decisions + self._judge(series, frame.run_uid, frame.time, frame.scan, frame.seq_num)

    def followed(self, frame: Frame) -> list[tuple[Rule, Watch]]:
        """Return the rules that a call with this frame would judge, with their watches."""
        return self._followed(self._series_of(_key_of(frame)))

    @property
    def are_none(self) -> bool:
        """Whether the agent has no rules."""
        return not self._rules

    def passed(self, frame: Frame) -> None:
        """Record the newest of several frames that no rule judges."""
        self.heard(frame, frame.received)
        self._newest = frame.run_uid, self._of_run[frame.run_uid]

    def heard(self, frame: Frame, now: float) -> None:
        """Record a frame that is too old to be judged.

        The age of the frame does not count as silence, since newer frames may wait behind it.

        Parameters
        ----------
        now : ``time.monotonic()``
        """
        key = self._of_run[frame.run_uid] = _key_of(frame)
        series = self._series_of(key)
        self._hear(series, frame)
        series.received = now

    def standing(self) -> tuple[Standing, ...]:
        """Return how the rules that concern the newest frame's series stand; before the first frame, all rules."""
        if self._newest is None:
            return self._stood
        run_uid, key = self._newest
        if (series := self._series.get(key)) is None:
            return self._stood
        made = self._decisions.get(run_uid, Counter[str]())
        return tuple(
            Standing(
                rule.name,
                rule.action,
                conditions_of(rule.trigger, self._units, watch := series.watches.get(rule.name)),
                holds=watch is not None and watch.holds,
                followed=rule.stage in (None, series.stage),
                decisions_left=rule.max_times - made[rule.name],
            )
            for rule in series.rules
        )

    def undo(self, decision: Decision) -> None:
        """Take back a decision that was never sent: its stage continues, and the rule may decide again.

        The rule decides only after its condition has ended, so that it does not ask a person the same at each frame.
        """
        rule = next((rule for rule in self._rules if rule.name == decision.rule), None)
        if rule is None:
            return
        counts = self._decisions.get(decision.run_uid)
        if counts is not None and counts[rule.name] > 0:
            counts[rule.name] -= 1
        for series in list(self._series.values()):
            if (left := series.left).by == decision.id:
                self._enter(series, left.stage)
                series.watches |= left.watches  # these know which conditions held when the rule decided
                series.judged |= left.judged

    def note(self, note: SetAside) -> list[Decision]:
        """Return the decisions that follow from data set aside."""
        if not self._counts_notes:
            return []
        series = self._series_of(self._of_run.get(note.run_uid, (note.run_uid, None, None)))
        for _, watch in self._followed(series):
            watch.note(note)
        scan = series.newest[2] if series.newest else Scan(file=note.file)
        return self._judge(series, note.run_uid, note.time, scan, note.seq_num)

    def quiet(self, now: float) -> list[Decision]:
        """Return the decisions that follow from the silence of series.

        Parameters
        ----------
        now : ``time.monotonic()``
        """
        if not self._waits:
            return []
        decisions: list[Decision] = []
        for series in [*self._series.values()]:
            if series.newest is not None and series.received is not None:
                gap = now - series.received
                decisions += self._silent(series, gap, series.newest[1] + gap)
        return decisions

    def forget(self, run_uid: str) -> None:
        """Forget a run that stopped; the series of its sample is kept."""
        if self._newest is not None and self._newest[0] == run_uid:
            self._stood, self._newest = self.standing(), None
        self._decisions.pop(run_uid, None)
        series = self._series.get(self._of_run.pop(run_uid, ("", None, None)))
        if series is not None:
            series.newest = None
        for key in [key for key in self._series if key[0] == run_uid]:
            del self._series[key]

    def memory(self, run_uid: str, newest: Frame | None = None) -> Memory:
        """Return the states of a run and of the series of its newest frame.

        Parameters
        ----------
        newest : that frame, if the run may be forgotten by now; the series of its sample goes on
        """
        memory: Memory = {}
        key = self._of_run.get(run_uid, (run_uid, None, None)) if newest is None else _key_of(newest)
        if (series := self._series.get(key)) is not None and (self._rules or series.watches):
            heard = None if series.newest is None else [*series.newest[:2], *astuple(series.newest[2])]
            left = series.left
            stages = [series.stage, left.stage, left.by, _states(left.watches), dict(left.judged)]
            memory[(key[0], "rules", *key[1:])] = [_states(series.watches), dict(series.judged), stages, heard]
        if counts := self._decisions.get(run_uid):
            memory[(run_uid, "decisions")] = dict(counts)
        return memory

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        for (name, owner, *absorber), states in memory.items():
            if owner == "decisions":
                self._decisions[name or ""] = Counter(states)
            elif owner == "rules":
                element, edge = absorber
                series = self._series_of((name or "", element, edge))
                watches, judged, (series.stage, stage, by, *before), newest = states
                left, left_judged = before or ({}, {})  # journals of version 0.2 lack it
                series.left = _Left(stage, by, self._restored(series, left), dict(left_judged))
                series.judged = dict(judged)
                if newest is not None:  # its silence is counted from now on
                    series.newest, series.received = (newest[0], newest[1], Scan(*newest[2:])), time.monotonic()
                series.watches = self._restored(series, watches)

    def _restored(self, series: _Series, states: Mapping[str, list[Any]]) -> dict[str, Watch]:
        """Return the watches with the saved states of a series, by the name of their rule."""
        watches = {r.name: start_watch(r.trigger, self._units) for r in series.rules if r.name in states}
        for name, watch in watches.items():
            watch.restore(states[name])
        return watches

    @staticmethod
    def _hear(series: _Series, frame: Frame) -> None:
        if series.newest is None or frame.time >= series.newest[1] or frame.run_uid != series.newest[0]:
            series.newest = frame.run_uid, frame.time, frame.scan
        series.received = frame.received

    def _series_of(self, key: _SeriesKey) -> _Series:
        if (series := self._series.get(key)) is None:
            rules = tuple(rule for rule in self._rules if rule.concerns(*key[1:]))
            first = next((rule.stage for rule in rules if rule.stage is not None), None)
            series = self._series[key] = _Series(rules, first)
        return series

    def _followed(self, series: _Series) -> list[tuple[Rule, Watch]]:
        """Return the rules of the present stage with their watches; new watches begin now."""
        rules = [rule for rule in series.rules if rule.stage in (None, series.stage)]
        for rule in rules:
            if rule.name not in series.watches:
                series.watches[rule.name] = start_watch(rule.trigger, self._units)
        return [(rule, series.watches[rule.name]) for rule in rules]

    def _silent(self, series: _Series, seconds: float, time: float) -> list[Decision]:
        for _, watch in self._followed(series):
            watch.quiet(seconds, time)
        assert series.newest is not None
        run_uid, _, scan = series.newest
        return self._judge(series, run_uid, time, scan)

    def _judge(
        self, series: _Series, run_uid: str, time: float, scan: Scan, frame: int | None = None
    ) -> list[Decision]:
        """Make a decision for each condition that has begun to hold, with a frame (its number) or by silence."""
        decisions: list[Decision] = []
        for rule, watch in self._followed(series):
            if series.watches.get(rule.name) is not watch:  # an earlier decision has begun another stage
                continue
            begins = watch.begun > series.judged.get(rule.name, 0)
            series.judged[rule.name] = watch.begun
            if not (begins and watch.holds):
                continue
            counts = self._decisions.setdefault(run_uid, Counter())
            if counts[rule.name] >= rule.max_times:
                continue
            counts[rule.name] += 1
            args = {**watch.args, **rule.args} if rule.action == "repeat_frame" else rule.args
            decisions.append(
                Decision(
                    id=str(uuid.uuid4()),  # random, so that nobody can guess the id and use it first
                    rule=rule.name,
                    action=rule.action,
                    reason=watch.reason,
                    run_uid=run_uid,
                    time=time,
                    confidence=watch.confidence,
                    evidence=watch.evidence,
                    scan=scan,
                    args=args_of_decision(rule.action, args, run_uid, frame),
                )
            )
            if rule.go_to is not None:
                self._enter(series, rule.go_to, decisions[-1].id)
        decisions.sort(key=lambda decision: COURSE_OF_A_RUN.get(decision.action, 0))  # safer actions supersede others
        return decisions

    def _enter(self, series: _Series, stage: str | None, by: str = "") -> None:
        """Begin a stage after the decision with the id ``by``; its rules see only future frames."""
        ended = [rule.name for rule in series.rules if rule.stage is not None]
        watches = {name: series.watches.pop(name) for name in ended if name in series.watches}
        judged = {name: series.judged.pop(name) for name in ended if name in series.judged}
        series.left, series.stage = _Left(series.stage, by, watches, judged), stage

    def _warn_of_unknown(self, rule: Rule, observed: Observed) -> None:
        """Log once the quantities that a rule needs and its first frame lacks."""
        known = [*observed.names()]
        for quantity in sorted(_quantities(rule) - {*known}):
            like = get_close_matches(quantity, known, n=3) or known[:5]
            message = "the frame has no such quantity: the rule waits for one that has"
            _log.warning(message, rule=rule.name, quantity=quantity, similar=", ".join(like))


def _key_of(frame: Frame) -> _SeriesKey:
    return frame.series, frame.element, frame.edge


def _states(watches: Mapping[str, Watch]) -> dict[str, list[Any]]:
    return {name: watch.state() for name, watch in watches.items()}


def _quantities(rule: Rule) -> set[str]:
    return {t.quantity for t in triggers_in(rule.trigger) if isinstance(t, QuantityTrigger)}


def _any_of(rules: Iterable[Rule], kind: type[Settings]) -> bool:
    return any(isinstance(trigger, kind) for rule in rules for trigger in triggers_in(rule.trigger))
