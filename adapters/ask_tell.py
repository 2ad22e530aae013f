"""The agent's answers as outcomes for bluesky-adaptive and blop.

Both packages evaluate the suggestions of their optimiser with a function of an acquisition and its suggestions. They
recognise such a function by its interface alone, so that neither package is imported here.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np

from ..agent.decide import Observed
from ..agent.publish import Answered, Ended, PublishedReader
from ..agent.types import SetAside, Source, get_logger
from .objectives import Errors, Objective, OutcomeError, Quantities, averaged, error_of, value_of

__all__ = ["AgentOutcomes", "OutcomeError"]

log = get_logger()

Failed = Literal["raise", "nan"]

_ID = "_id"
_ORDER = "blop_acquisition_order"
_MAX_RUNS = 256
"""Number of watched runs whose answers are kept."""
_SETTLE_S = 5.0
"""Longest wait, s, until an agent in the same process has answered everything measured. A decision that waits for a
person would delay it longer."""


@dataclass
class _Answers:
    """The agent's published answers on one watched run."""

    order: list[Any] | None = None
    """Ids of the suggestions, in the order of their frames."""
    frames: dict[int, Observed] = field(default_factory=dict)
    """Answered frames, by number."""
    failed: dict[int, str] = field(default_factory=dict)
    """Why frames were set aside, by frame number."""
    notes: list[str] = field(default_factory=list)
    """Notes on other data set aside."""
    ended: bool = False
    """Whether the agent has ended its runs for the watched run."""
    used: int = 0
    """Number of the last frame that was evaluated or skipped while the run was open."""

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return max((*self.frames, *self.failed), default=0)

    @property
    def new(self) -> list[int]:
        """Numbers of the frames since the last evaluation."""
        return sorted(n for n in {*self.frames, *self.failed} if n > self.used)

    @property
    def found(self) -> str:
        """Description of the frames."""
        aside = [f"frame {n}: {why}" for n, why in sorted(self.failed.items())] + self.notes
        return f"{len(self.frames)} answered frames" + (f", set aside: {'; '.join(aside)}" if aside else "")


class AgentOutcomes:
    """Waits until an agent has answered the frames of an acquisition, and returns outcomes for its suggestions.

    It is an ``EvaluationFunction`` of bluesky-adaptive and blop. It receives the agent's documents through
    :meth:`hear`, from an agent in the same process (:meth:`of`) or in another one (:meth:`listen`). The thread that
    delivers them must differ from the thread that calls this function, which waits.

    The frames belong to the suggestions in the order of ``blop_acquisition_order`` in the RunStart. Without it, a run
    must belong to a single suggestion. If the acquisition is part of a longer run (``optimize_in_run``), ``uid`` is
    the sequence of the suggestions' ids, and the frames are those of the newest open run since the last evaluation.
    Frames whose readings differ from the suggested parameters are left out. If more frames remain than were
    requested, the newest with the suggested readings count; without such readings they are refused and skipped.

    The frames of a suggestion are averaged. A frame that was set aside or has an unfamiliar spectrum is left out,
    with a warning; a suggestion without any other frame has no outcome.

    Parameters
    ----------
    outcomes : mapping
        Objectives and constraints by name: a quantity as named in rules (``OS``, ``OS_anchored``, ``OS_half_width``,
        ``readings.voltage``), or a function of all quantities, such as ``lambda q: abs(q["OS"] - 3.4)``.
    frames : int
        Number of frames of each suggestion; any other number is an error.
    errors : str
        Standard errors for optimisers that take pairs ``(mean, standard error)``: ``frame`` is the scatter of
        repeats, for comparisons among these outcomes; ``all`` is the error of the 90 % interval, for values in
        absolute terms, whose common part does not average out; ``none`` returns numbers.
    max_ood : float or None
        Largest score at which a spectrum counts as familiar to the model.
    failed : str
        Treatment of a suggestion without an outcome: ``raise`` ends the plan, which informs an optimiser that handles
        failures; ``nan`` returns NaN for it, for optimisers that continue without it.
    within : float
        Largest difference between a reading and the suggested parameter at which they count as equal, in the unit of
        the reading, or a thousandth of the value if that is larger.
    timeout_s : float
        Longest wait, s.

    Raises
    ------
    ValueError
        A setting has a value that is not listed here.
    """

    def __init__(
        self,
        outcomes: Mapping[str, Objective],
        *,
        frames: int = 1,
        errors: Errors = "none",
        max_ood: float | None = 1.0,
        failed: Failed = "raise",
        within: float = 0.01,
        timeout_s: float = 60.0,
    ) -> None:
        if not outcomes or _ID in outcomes or frames < 1:
            found = f"found outcomes {list(outcomes)} of {frames} frames"
            raise ValueError(f"{found}, expected names other than {_ID}, and at least one frame")
        for name, value, known in (("errors", errors, get_args(Errors)), ("failed", failed, get_args(Failed))):
            if value not in known:
                raise ValueError(f"found {name} = {value!r}, expected one of {', '.join(known)}")
        if not within >= 0:
            raise ValueError(f"found within = {within}, expected 0 or more")
        self._wanted, self._frames = dict(outcomes), frames
        self._errors: Errors = errors
        self._max_ood, self._failed, self._timeout_s, self._within = max_ood, failed, timeout_s, within
        self._reader = PublishedReader()
        self._runs: dict[str, _Answers] = {}
        """Answers by watched run, the newest last."""
        self._heard = threading.Condition()
        self._broken = ""
        self._source: Source | None = None
        self._settle: Callable[[float], bool] = lambda _: False
        """Waits until everything measured is answered; returns whether it can tell."""

    @classmethod
    def of(cls, agent: Any, outcomes: Mapping[str, Objective], **settings: Any) -> Self:
        """Return outcomes of an agent in the same process, an :class:`~xas_agent.XASAgent`.

        Parameters
        ----------
        agent, outcomes, settings
            The agent must receive the documents of the experiment; see the class for the other parameters.
        """
        self = cls(outcomes, **settings)
        agent.subscribe(self.hear)
        self._settle = agent.wait
        return self

    def listen(self, source: Source) -> Self:
        """Receive the documents of an agent in another process from a source, such as a ``ZMQSource``, on a thread.

        Documents published earlier are not received; connect the source first.
        """
        self._source = source
        threading.Thread(target=self._follow, args=(source,), name="agent-outcomes", daemon=True).start()
        return self

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def hear(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of the agent, from any thread; other documents are skipped."""
        with self._heard:
            if name == "start" and doc.get("xas_agent") is True:
                self._of(str(doc["parent_uid"])).order = doc.get(_ORDER)
            for found in self._reader(name, doc):
                self._keep(found)
            self._heard.notify_all()

    def __call__(self, uid: Any, suggestions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the outcomes of suggestions, each with its ``_id``.

        Parameters
        ----------
        uid : str or sequence
            Uid of the run, or the suggestions' ids in the order of acquisition.
        suggestions : sequence of mappings
            Suggestions with their ``_id``.

        Raises
        ------
        OutcomeError
            A suggestion has no outcome, or it is unknown which frames belong to which suggestion.
        TimeoutError
            The agent has not answered in time.
        """
        if isinstance(uid, str):
            with self._heard:
                answers = self._wait_for(lambda: self._ended(uid), f"run {uid}")
                asked = _in_order(self._order(uid, answers, suggestions), suggestions)
                numbers = [*range(1, answers.last + 1)]
                parts = [numbers[k * self._frames : (k + 1) * self._frames] for k in range(len(asked))]
        else:
            asked = _in_order([*uid], suggestions)
            settled = self._settle(min(self._timeout_s, _SETTLE_S))
            with self._heard:
                what = f"{len(asked) * self._frames} frames of suggestions {[*uid]} in an open run"
                answers = self._wait_for(lambda: self._with_next(asked), what)
                parts = self._next(answers, asked, settled)
        found = {str(s[_ID]): self._outcome(s[_ID], answers, part) for s, part in zip(asked, parts, strict=True)}
        return [{_ID: s[_ID], **found[str(s[_ID])]} for s in suggestions]

    def _follow(self, source: Source) -> None:
        try:
            for name, doc in source:
                self.hear(name, doc)
            why = "the agent's documents have ended"
        except Exception as error:
            log.exception("agent's documents not heard")
            why = f"the agent's documents cannot be heard: {error}"
        with self._heard:
            self._broken = why
            self._heard.notify_all()

    def _keep(self, found: Answered | SetAside | Ended) -> None:
        if isinstance(found, Ended):
            self._of(found.run_uid).ended = True
        elif isinstance(found, SetAside):
            answers = self._of(found.run_uid)
            why = f"{found.reason}: {found.detail}" if found.detail else str(found.reason)
            if found.seq_num:
                answers.failed[found.seq_num] = why
            else:
                answers.notes.append(why)
        else:
            frame = found[0]
            self._of(frame.run_uid).frames[frame.seq_num] = Observed(*found)

    def _of(self, run_uid: str) -> _Answers:
        answers = self._runs.setdefault(run_uid, _Answers())
        if len(self._runs) > _MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        return answers

    def _wait_for(self, ready: Callable[[], _Answers | None], what: str) -> _Answers:
        end = time.monotonic() + self._timeout_s
        while (answers := ready()) is None:
            left = end - time.monotonic()
            if self._broken:
                raise OutcomeError(f"no outcomes for {what}: {self._broken}")
            if left <= 0:
                newest = next(reversed([*self._runs.items()]), None)
                heard = "nothing was heard of any run" if newest is None else f"run {newest[0]}: {newest[1].found}"
                raise TimeoutError(
                    f"no outcomes for {what} within {self._timeout_s:g} s; the newest heard: {heard}. The agent must "
                    "receive the documents of the run, read its fields, and be heard from before the run on"
                )
            self._heard.wait(left)
        return answers

    def _ended(self, uid: str) -> _Answers | None:
        answers = self._runs.get(uid)
        return answers if answers is not None and answers.ended else None

    def _with_next(self, asked: Sequence[Mapping[str, Any]]) -> _Answers | None:
        newest = next((answers for answers in reversed([*self._runs.values()]) if not answers.ended), None)
        ready = newest is not None and len(self._possible(newest, asked)) >= len(asked) * self._frames
        return newest if ready else None

    def _possible(self, answers: _Answers, asked: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the numbers of the new frames, except those measured with other parameters."""
        return [n for n in answers.new if any(self._same(answers, n, s) is not False for s in asked)]

    def _same(self, answers: _Answers, number: int, suggestion: Mapping[str, Any]) -> bool | None:
        """Return whether a frame has the parameters of a suggestion; None if its readings do not tell."""
        observed = answers.frames.get(number)
        readings = observed.frame.readings if observed is not None else {}
        pairs = [
            (readings[name], wanted)
            for name, wanted in suggestion.items()
            if name in readings and isinstance(wanted, int | float | np.number)
        ]
        return all(math.isclose(*pair, rel_tol=1e-3, abs_tol=self._within) for pair in pairs) if pairs else None

    def _next(self, answers: _Answers, asked: Sequence[Mapping[str, Any]], settled: bool) -> list[list[int]]:
        """Return the numbers of the frames of each suggestion in an open run, and skip the others.

        Frames whose readings do not tell their parameters belong to the suggestions only if it is certain
        (``settled``) that no other frame has arrived.
        """
        possible, count, answers.used = self._possible(answers, asked), self._frames, answers.last
        if len(possible) == len(asked) * count:
            parts = [possible[k * count : (k + 1) * count] for k in range(len(asked))]
            same = [self._same(answers, n, s) for s, part in zip(asked, parts, strict=True) for n in part]
            told = [known for n, known in zip(possible, same, strict=True) if n in answers.frames]
            if False not in same and (settled or None not in told):
                return parts
        parts = [[n for n in possible if self._same(answers, n, s)][-count:] for s in asked]
        if len({n for part in parts for n in part}) == len(asked) * count:
            return parts
        names = sorted({name for s in asked for name in s} - {_ID, "reason"})
        raise OutcomeError(
            f"found frames {', '.join(map(str, possible))} of an open run, expected {len(asked) * count} for "
            f"suggestions {[s[_ID] for s in asked]}, and cannot tell which belong to them; they are passed over. "
            f"Record {', '.join(names) or 'the parameters'} with each frame, measure nothing else in this run, or "
            "acquire in runs of their own"
        )

    def _order(self, uid: str, answers: _Answers, suggestions: Sequence[Mapping[str, Any]]) -> list[Any]:
        expected = len(suggestions) * self._frames
        if answers.last != expected:
            raise OutcomeError(
                f"run {uid}: found {answers.found}, expected {expected} frames, {self._frames} for each of "
                f"{len(suggestions)} suggestions"
            )
        if answers.order is not None:
            return answers.order
        if len(suggestions) > 1:
            raise OutcomeError(
                f"run {uid}: found no {_ORDER} in its RunStart; add the suggestions' ids in the order of their "
                "acquisition, or suggest one at a time"
            )
        return [s[_ID] for s in suggestions]

    def _outcome(self, id: Any, answers: _Answers, numbers: Sequence[int]) -> dict[str, Any]:
        good, bad = list[Observed](), list[str]()
        for n in numbers:
            observed = answers.frames.get(n)
            if observed is None:
                bad.append(f"frame {n}: {answers.failed.get(n, 'not answered')}")
            elif not observed.familiar(self._max_ood):
                score = observed.estimate.ood_score
                bad.append(f"frame {n}: out of distribution, score {score:.3g}, at most {self._max_ood:g} expected")
            else:
                good.append(observed)
        if bad:
            log.warning("frames without an outcome", suggestion=str(id), left_out="; ".join(bad), averaged=len(good))
        if not good:
            why = f"suggestion {id}: {'; '.join(bad)}"
            if self._failed == "raise":
                raise OutcomeError(why)
            return dict.fromkeys(self._wanted, self._missing)
        found = averaged(good, self._errors)
        values = Quantities({name: value for name, (value, _) in found.items()})
        result: dict[str, Any] = {}
        for name, objective in self._wanted.items():
            value = value_of(objective, values)
            error = 0.0 if self._errors == "none" else error_of(objective, values, found)
            result[name] = value if self._errors == "none" else (value, error)
            if not (math.isfinite(value) and math.isfinite(error)):
                why = f"suggestion {id}: found {name} = {result[name]}, expected finite numbers"
                if self._failed == "raise":
                    raise OutcomeError(why)
                log.warning("no outcome", why=why)
                result[name] = self._missing
        return result

    @property
    def _missing(self) -> Any:
        return math.nan if self._errors == "none" else (math.nan, math.nan)


def _in_order(order: Sequence[Any], suggestions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the suggestions in the order of their acquisition."""
    suggested = {str(s[_ID]): s for s in suggestions}
    if len({*map(str, order)}) != len(order):
        raise OutcomeError(f"found acquisition order {order} ({_ORDER}) with an id twice, expected each once")
    if len(suggested) != len(suggestions) or {*suggested} != {*map(str, order)}:
        ids = [s[_ID] for s in suggestions]
        raise OutcomeError(f"found suggestions {ids}, expected those that were acquired: {[*order]}")
    return [suggested[str(id)] for id in order]
