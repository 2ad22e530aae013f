"""The agent's answers as outcomes for bluesky-adaptive and blop.

Both evaluate what their optimiser suggested by a function of an acquisition and its suggestions, and know it by its
form alone, so that neither package is imported here.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, Self

import numpy as np

from ..agent.decide import Observed
from ..agent.publish import Answered, Ended, PublishedReader
from ..agent.types import SetAside, Source, get_logger

log = get_logger()

Objective = str | Callable[[Mapping[str, float]], float]
"""Name of a quantity, or a function of all quantities by name."""
Errors = Literal["none", "frame", "all"]

_ID = "_id"
_ORDER = "blop_acquisition_order"
_MAX_RUNS = 256
"""Number of watched runs whose answers are kept."""
_SAME = ("", "_mean", "_lo", "_hi")
"""Ends of the names of the quantities that move together with a descriptor."""


class OutcomeError(RuntimeError):
    """A suggestion has no outcome; the message says which, and why."""


@dataclass
class _Answers:
    """What the agent has published on one watched run."""

    order: list[Any] | None = None
    """Ids of the suggestions, in the order of their frames."""
    frames: dict[int, Observed] = field(default_factory=dict)
    """Answered frames by number."""
    failed: dict[int, str] = field(default_factory=dict)
    """Why frames were set aside, by number."""
    notes: list[str] = field(default_factory=list)
    """What else was set aside."""
    ended: bool = False
    """Whether the agent has ended its runs for the watched one."""
    used: int = 0
    """Number of frames that were evaluated while the run went on."""

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return max((*self.frames, *self.failed), default=0)

    @property
    def found(self) -> str:
        """The frames in words."""
        aside = [f"frame {n}: {why}" for n, why in sorted(self.failed.items())] + self.notes
        return f"{len(self.frames)} answered frames" + (f", set aside: {'; '.join(aside)}" if aside else "")


class AgentOutcomes:
    """Waits until an agent has answered the frames of an acquisition, and returns outcomes for its suggestions.

    It is an ``EvaluationFunction`` of bluesky-adaptive and blop. It hears the agent's documents by :meth:`hear`, from
    an agent in the same process (:meth:`of`) or from another one (:meth:`listen`). The thread that brings them must
    not be the one that calls this function, which waits.

    The frames belong to the suggestions in the order of the RunStart's ``blop_acquisition_order``. Without it, a run
    must be of one suggestion. Where the acquisition is part of a longer run (``optimize_in_run``), ``uid`` is the
    sequence of the suggestions' ids, and the next frames of the newest open run are meant.

    Frames of a suggestion are averaged. One that was set aside or whose spectrum the model does not know is left out,
    with a warning; a suggestion without any other has no outcome.

    Parameters
    ----------
    outcomes : mapping
        Objectives and constraints by name: the name of a quantity as rules name it (``OS``, ``OS_anchored``,
        ``OS_half_width``, ``readings.voltage``), or a function of all quantities, such as
        ``lambda q: abs(q["OS"] - 3.4)``.
    frames : int
        Number of frames of each suggestion; fewer or more are an error.
    errors : str
        Standard errors for optimisers that take pairs ``(mean, standard error)``: ``frame`` is the scatter of
        repeats, for comparisons among these outcomes; ``all`` is that of the 90 % interval, for values in absolute
        terms, whose common part does not average out; ``none`` returns numbers.
    max_ood : float or None
        Largest score of a spectrum that counts as known to the model.
    failed : str
        What becomes of a suggestion without an outcome: ``raise`` ends the plan, which tells an optimiser that
        knows failures; ``nan`` returns NaN for it, for optimisers that go on without it.
    timeout_s : float
        Longest wait, s.
    """

    def __init__(
        self,
        outcomes: Mapping[str, Objective],
        *,
        frames: int = 1,
        errors: Errors = "none",
        max_ood: float | None = 1.0,
        failed: Literal["raise", "nan"] = "raise",
        timeout_s: float = 60.0,
    ) -> None:
        if not outcomes or _ID in outcomes or frames < 1:
            found = f"found outcomes {list(outcomes)} of {frames} frames"
            raise ValueError(f"{found}, expected names other than {_ID}, and at least one frame")
        self._wanted, self._frames = dict(outcomes), frames
        self._errors: Errors = errors
        self._max_ood, self._failed, self._timeout_s = max_ood, failed, timeout_s
        self._reader = PublishedReader()
        self._runs: dict[str, _Answers] = {}
        """Answers by watched run, the newest last."""
        self._heard = threading.Condition()
        self._broken = ""
        self._source: Source | None = None

    @classmethod
    def of(cls, agent: Any, outcomes: Mapping[str, Objective], **settings: Any) -> Self:
        """Return outcomes of an agent in the same process, an :class:`~xas_agent.XASAgent`.

        Parameters
        ----------
        agent, outcomes, settings
            The agent needs the documents of the experiment; see the class for the rest.
        """
        self = cls(outcomes, **settings)
        agent.subscribe(self.hear)
        return self

    def listen(self, source: Source) -> Self:
        """Hear an agent in another process: take its documents from a source, such as a ``ZMQSource``, in a thread.

        Documents that were published before are not heard; connect the source first.
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
        """Take one document of the agent, from any thread; others are passed over."""
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
            Uid of the run, or the suggestions' ids in the order in which they were acquired.
        suggestions : sequence of mappings
            Each with its ``_id``.

        Raises
        ------
        OutcomeError
            A suggestion has no outcome, or the answers cannot be told apart.
        TimeoutError
            The agent has not answered in time.
        """
        with self._heard:
            if isinstance(uid, str):
                answers = self._wait_for(lambda: self._ended(uid), f"run {uid}")
                order, first = self._order(uid, answers, suggestions), 1
            else:
                order = [*uid]
                count = len(order) * self._frames
                answers = self._wait_for(lambda: self._with_next(count), f"the next {count} frames of an open run")
                first = answers.used + 1
                answers.used += count
        places = {str(id): first + k * self._frames for k, id in enumerate(order)}
        if len(places) != len(suggestions) or any(str(s[_ID]) not in places for s in suggestions):
            ids = [s[_ID] for s in suggestions]
            raise OutcomeError(f"found suggestions {ids}, expected those that were acquired: {order}")
        return [{_ID: s[_ID], **self._outcome(s[_ID], answers, places[str(s[_ID])])} for s in suggestions]

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

    def _with_next(self, count: int) -> _Answers | None:
        newest = next((answers for answers in reversed([*self._runs.values()]) if not answers.ended), None)
        return newest if newest is not None and newest.last >= newest.used + count else None

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

    def _outcome(self, id: Any, answers: _Answers, first: int) -> dict[str, Any]:
        numbers = range(first, first + self._frames)
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
            missing = math.nan if self._errors == "none" else (math.nan, math.nan)
            return dict.fromkeys(self._wanted, missing)
        found = _averaged(good, self._errors)
        values = _Quantities({name: value for name, (value, _) in found.items()})
        result: dict[str, Any] = {}
        for name, objective in self._wanted.items():
            value = _value(objective, values)
            if not math.isfinite(value):
                raise OutcomeError(f"suggestion {id}: found {name} = {value}, expected a finite number")
            result[name] = value if self._errors == "none" else (value, _error(objective, values, found))
        return result


class _Quantities(dict[str, float]):
    def __missing__(self, name: str) -> float:
        similar = ", ".join(get_close_matches(name, self, n=3) or [*self][:5])
        raise OutcomeError(f"found quantity {name!r}, which the frames do not have; similar: {similar}")


def _value(objective: Objective, values: _Quantities) -> float:
    return float(values[objective] if isinstance(objective, str) else objective(values))


def _error(objective: Objective, values: _Quantities, found: Mapping[str, tuple[float, float]]) -> float:
    """Return the standard error of an objective: its RMS change where a quantity is off by ± its own."""
    value, squares = _value(objective, values), 0.0
    for name, (_, sd) in found.items():
        for moved in (sd, -sd) if sd else ():
            others = {name + end: values[name + end] + moved for end in _SAME if name + end in values}
            squares += (_value(objective, _Quantities({**values, **others})) - value) ** 2 / 2
    return math.sqrt(squares)


def _averaged(frames: Sequence[Observed], errors: Errors) -> dict[str, tuple[float, float]]:
    """Return the means of the quantities that all frames have, with their standard errors."""
    found: dict[str, tuple[float, float]] = {}
    for name in frames[0].names():
        points = [point for observed in frames if (point := observed.point(name)) is not None]
        if len(points) < len(frames):
            continue
        scatter = np.array([p.sigma for observed in frames if (p := observed.point(name, "frame")) is not None])
        common = np.sqrt(np.maximum(np.square([p.sigma for p in points]) - scatter**2, 0.0)).mean()
        sd = math.hypot(np.linalg.norm(scatter) / len(frames), common if errors == "all" else 0.0)
        found[name] = float(np.mean([p.value for p in points])), sd
    return found
