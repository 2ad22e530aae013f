"""Publishes the answers to frames, adds the quantities of their series, and lets the rules judge them."""

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
"""Neighbouring answers to publish together, with their estimates, packed and one by one."""


class Publication:
    """Publishes an answer as Events in the agent's run and decisions of the rules, or as a note. Not thread-safe.

    Parameters
    ----------
    runs : runs of the agent
    relative : adds the quantities of a series to the estimates
    rules, decisions : the rules that judge the frames, and the receiver of their decisions
    note : receives the notes on frames that were refused or failed
    measured : whether to publish the spectra as measured
    max_age_s : age, s, above which no rule judges a frame
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
        """Return run and uid of each frame published since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def take_newest(self) -> list[tuple[Frame, Estimator]]:
        """Return the newest frame of each series answered or refused since the last call, with its model."""
        newest, self._newest = self._newest, {}
        return [*newest.values()]

    def forget(self, run_uid: str) -> None:
        """Forget the newest frames of a run."""
        self._newest = {key: newest for key, newest in self._newest.items() if key[0] != run_uid}

    def neighbours(self, answers: Sequence[Answer], paged: bool) -> Iterator[list[Answer]]:
        """Yield groups of answers to publish together; with rules and without pages, each answer is its own group."""

        def kind(answer: Answer) -> tuple[Hashable, ...]:
            frame = answer.frame
            if answer.refusal is not None or not (paged or self._rules.are_none):
                return (id(answer),)
            batch = (id(answer.aligned), id(answer.estimates))
            return (*batch, frame.run_uid, frame.series, frame.element, frame.edge, *frame.readings)

        for _, group in groupby(answers, kind):
            yield [*group]

    def __call__(self, answers: Sequence[Answer], paged: bool) -> None:
        """Publish neighbouring answers and let the rules judge them; publish a note for a single refusal."""
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
        """Log an error, and note that it kept a frame from being published or judged."""
        names = self._runs.names(frame.run_uid, file=frame.scan.file)
        _log.error("frame not published or not checked by the rules", frame=frame.seq_num, exc_info=error, **names)
        self._note(_set_aside(frame, Refusal(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")))

    def _with_series(self, answers: Sequence[Answer], model: Estimator) -> Iterator[_Part]:
        """Yield neighbouring answers with the quantities of their series, in parts with the same descriptors.

        Each frame enters its series once, however often its publication is tried.
        """
        found, place, count = answers[0].estimates, answers[0].place, len(answers)
        assert found is not None
        alike = found.rows(slice(place, place + count)) if isinstance(found, Estimates) else None
        try:
            nothing = alike is not None and self._relative.adds_nothing([a.frame for a in answers], model, alike)
        except Exception as error:  # each frame is then tried alone, and its error reported
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
        """Publish neighbouring answers together or, if that fails, one by one; yield the published ones."""
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
        """Return whether a frame is too old for the rules; log this once for all such frames in a row."""
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
    """Return a frame with the edge of its model, so that the rules keep the edges of a sample apart."""
    if frame.element is not None and frame.edge is not None:
        return frame
    return replace(frame, element=model.absorber, edge=model.edge_name)


def _set_aside(frame: Frame, refusal: Refusal) -> SetAside:
    return SetAside(
        frame.run_uid, frame.uid, frame.time, refusal.reason, refusal.detail, frame.seq_num, frame.scan.file
    )
