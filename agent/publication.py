"""Publishes the answers to frames with what their series adds, and lets the rules judge them."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from .decide import Rules
from .decisions import Decisions
from .estimate import Answer, rows_of
from .publish import AgentRun, AgentRuns, FrameRows
from .relative import RelativeQuantities
from .types import REPLAYED_S, Estimate, Estimates, Estimator, Frame, Reason, Refusal, SetAside, get_logger

_log = get_logger()

_Part = tuple[Sequence[Answer], Estimates, Sequence[Estimate]]
"""Neighbours that are published together, and their estimates, packed and one by one."""


class Publication:
    """What an answer becomes: Events in the agent's run and decisions of the rules, or a note. For one thread.

    Parameters
    ----------
    runs : runs of the agent
    relative : adds what a series tells to the estimates
    rules, decisions : what judges the frames, and what takes the decisions
    note : receives the notes on frames that are refused or on which something failed
    measured : whether to publish the spectra as measured
    max_age_s : age, s, above which no rule decides on a frame
    """

    def __init__(
        self,
        runs: AgentRuns,
        relative: RelativeQuantities,
        rules: Rules,
        decisions: Decisions,
        note: Callable[[SetAside], None],
        *,
        measured: bool,
        max_age_s: float,
    ) -> None:
        self._runs, self._relative, self._rules, self._decisions = runs, relative, rules, decisions
        self._note, self._measured, self._max_age_s = note, measured, max_age_s
        self._stale = False
        """Whether the newest frame was too old for the rules."""
        self._outcomes: list[tuple[str, str]] = []
        self._newest: dict[tuple[Any, ...], tuple[Frame, Estimator]] = {}

    def take_outcomes(self) -> list[tuple[str, str]]:
        """Return run and uid of each frame that was published since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def take_newest(self) -> list[tuple[Frame, Estimator]]:
        """Return the newest frame of each series that was answered or refused since the last call."""
        newest, self._newest = self._newest, {}
        return [*newest.values()]

    def forget(self, run_uid: str) -> None:
        """Forget the newest frames of a run."""
        self._newest = {key: newest for key, newest in self._newest.items() if key[0] != run_uid}

    def neighbours(self, answers: Sequence[Answer], paged: bool) -> Iterator[list[Answer]]:
        """Answers that are published together; without pages, decisions come between the frames."""

        def kind(answer: Answer) -> tuple[Hashable, ...]:
            frame = answer.frame
            if answer.refusal is not None or not (paged or self._rules.are_none):
                return (id(answer),)
            batch = (id(answer.aligned), id(answer.estimates))
            return (*batch, frame.run_uid, frame.series, frame.element, frame.edge, *frame.readings)

        for _, group in groupby(answers, kind):
            yield [*group]

    def __call__(self, answers: Sequence[Answer], paged: bool) -> None:
        """Publish the answers to neighbours and let the rules judge them; or note why the only one is refused."""
        frame, model, refusal = answers[-1].frame, answers[0].model, answers[0].refusal
        if model is not None:
            series = frame.element, frame.edge, model.name, frame.series, frame.formula, frame.normalised
            self._newest[frame.run_uid, *series] = frame, model
        if refusal is not None:
            self._note(_set_aside(frame, refusal))
            return
        assert model is not None
        now = time.monotonic()
        try:
            run = self._runs.open(frame.run_uid, answers[0].frame.time, model)
        except Exception as error:
            for answer in answers:
                self.note_failure(answer.frame, error)
            return
        parts = [*self._with_series(answers, model)]
        published = [done for part in parts for done in self._publish_part(run, part, now, paged)]
        if self._rules.are_none:
            self._is_stale(now - answers[0].frame.received, frame)
            self._rules.passed(_of_edge(frame, model))
            return
        for answer, estimate in (pair for part, _, found in published for pair in zip(part, found, strict=True)):
            try:
                self._judge(answer, _of_edge(answer.frame, model), estimate, now, run)
            except Exception as error:
                self.note_failure(answer.frame, error)

    def note_failure(self, frame: Frame, error: Exception) -> None:
        """Log an error, and note that a frame was not published, or not judged, for it."""
        names = self._runs.names(frame.run_uid, file=frame.scan.file)
        _log.error("frame not published or not checked by the rules", frame=frame.seq_num, exc_info=error, **names)
        self._note(_set_aside(frame, Refusal(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")))

    def _with_series(self, answers: Sequence[Answer], model: Estimator) -> Iterator[_Part]:
        """Yield neighbours with what their series adds, in parts with the same descriptors.

        Each frame is counted in its series once, however often its publication is tried.
        """
        found, place, count = answers[0].estimates, answers[0].place, len(answers)
        assert found is not None
        alike = found.rows(slice(place, place + count)) if isinstance(found, Estimates) else None
        try:
            nothing = alike is not None and self._relative.adds_nothing([a.frame for a in answers], model, alike)
        except Exception as error:  # each is then asked for alone, and reported if that fails
            _log.debug("series not asked for all frames together", exc_info=error, run=answers[0].frame.run_uid)
            nothing = False
        if nothing and alike is not None:
            yield answers, alike, alike
            return
        added: list[tuple[Answer, Estimate]] = []
        for a in answers:
            try:
                added.append((a, self._relative(a.frame, model, found[a.place], a.mu, a.quantities["noise"])))
            except Exception as error:
                self.note_failure(a.frame, error)
        for _, same in groupby(added, lambda pair: [(n, d.value is None) for n, d in pair[1].descriptors.items()]):
            part, estimates = zip(*same, strict=True)
            yield part, Estimates.of(estimates), estimates

    def _publish_part(self, run: AgentRun, part: _Part, now: float, paged: bool) -> Iterator[_Part]:
        """Publish neighbours together or, if that fails, one by one; yield those that are published."""
        answers, packed, estimates = part
        try:
            frames = [answer.frame for answer in answers]
            quantities, mu, lines = rows_of(answers, with_lines=self._measured)
            latency_ms = np.array([now - frame.received for frame in frames]) % REPLAYED_S * 1e3
            run.frames(FrameRows(frames, quantities, packed, mu, latency_ms, lines), paged=paged)
        except Exception as error:
            if len(answers) == 1:
                self.note_failure(answers[0].frame, error)
                return
            for k, answer in enumerate(answers):
                alone = [answer], packed.rows(slice(k, k + 1)), [estimates[k]]
                yield from self._publish_part(run, alone, now, paged)
        else:
            self._outcomes += [(frame.run_uid, frame.uid) for frame in frames]
            yield part

    def _judge(self, answer: Answer, frame: Frame, estimate: Estimate, now: float, run: AgentRun) -> None:
        if self._is_stale(now - frame.received, frame):
            self._rules.heard(frame, now)
            return
        for decision in self._rules(frame, estimate, answer.quantities):
            self._decisions.propose(decision, run)

    def _is_stale(self, age_s: float, frame: Frame) -> bool:
        """Whether a frame is too old for the rules; logged once for all such frames in a row."""
        stale = age_s > self._max_age_s
        if stale and not self._stale:
            names = self._runs.names(frame.run_uid, file=frame.scan.file)
            if age_s < REPLAYED_S:
                message = "frames older than control.max_age_s: no rule decides on them"
                _log.warning(message, age_s=round(age_s, 1), max_age_s=self._max_age_s, **names)
            else:
                _log.warning("frames of a past run, or of another agent before: no rule decides on them", **names)
        self._stale = stale
        return stale


def _of_edge(frame: Frame, model: Estimator) -> Frame:
    """Return a frame with the edge that its model is for, so that the rules keep the edges of a sample apart."""
    if frame.element is not None and frame.edge is not None:
        return frame
    return replace(frame, element=model.absorber, edge=model.edge_name)


def _set_aside(frame: Frame, refusal: Refusal) -> SetAside:
    return SetAside(
        frame.run_uid, frame.uid, frame.time, refusal.reason, refusal.detail, frame.seq_num, frame.scan.file
    )
