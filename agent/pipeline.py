"""Turns watched documents into the agent's documents and decisions, batch by batch, without thread or transport."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .attempt import attempt
from .decide import ControlSettings, Requests, Rules
from .decisions import Decisions
from .estimate import EnergyUncertainty, FrameServer
from .left_out import LeftOut
from .load import Load
from .progress import Past, Progress, Published
from .publication import Publication
from .publish import AgentRun, AgentRuns, Emit, Pages
from .relative import Anchor, RelativeQuantities
from .serving import Serving
from .spectra import AlignmentSettings, SeriesAlignment
from .stream import FrameReader, Outcome
from .told import Told
from .types import (
    Control,
    Estimator,
    Frame,
    Memory,
    Reason,
    Received,
    RunDocument,
    SetAside,
    Tabulated,
    get_logger,
)

_log = get_logger()


class Pipeline:
    """documents → frames → aligned spectra → estimates → decisions. Not thread-safe.

    Parameters
    ----------
    reader : turns documents into frames
    models : models from which one is chosen for each frame
    emit : receives every document of the agent's own runs
    controls : limits for the control
    control : control that receives the decisions; None to advise only
    config_sha256, versions : hash of the config and versions, for the RunStart of the agent's runs
    spectra : whether to publish the aligned spectra
    measured : whether to publish the spectra as measured
    pages : whether the Events of frames are published together, as EventPages
    show_single_site : whether to hint for display the descriptors that have no meaning for a mixture of sites, or
        that the model hardly knows
    max_batch : largest number of frames in one pass of the network
    max_latency_s : latency, s, above which the agent leaves out frames; None answers every frame
    relative : adds the quantities of a series to the estimates; None: only the anchors of RunStarts or :meth:`anchor`
    tabulated : tabulated quantities that ``alignment`` needs, by model name
    abandoned : the host sets it to end the pipeline without answers to the frames already taken
    committed : receives the progress after each batch, before the batch's decisions are sent; None: not needed
    limit : number of frames to answer or set aside; further ones are left to a later process. None: no limit
    """

    def __init__(
        self,
        reader: FrameReader,
        models: Sequence[Estimator],
        alignment: AlignmentSettings,
        rules: Rules,
        emit: Emit,
        *,
        controls: ControlSettings,
        control: Control | None,
        config_sha256: str,
        versions: Mapping[str, str],
        spectra: bool = True,
        measured: bool = True,
        pages: Pages = "never",
        show_single_site: bool = False,
        max_batch: int = 256,
        max_latency_s: float | None = None,
        relative: RelativeQuantities | None = None,
        tabulated: Mapping[str, Tabulated] | None = None,
        abandoned: threading.Event | None = None,
        committed: Callable[[Progress], None] | None = None,
        limit: int | None = None,
    ) -> None:
        self._abandoned = abandoned or threading.Event()
        self.unread = 0
        """Number of documents of the last batch that were not read because the host ended the pipeline."""
        self.lost = 0
        """Number of documents, frames and notes that failed without any published result."""
        self._reader = reader
        self._models = models
        self._align = SeriesAlignment(alignment, tabulated=tabulated)
        self._energy_uncertainty = EnergyUncertainty()
        self._serve = FrameServer(models, self._align, self._energy_uncertainty, max_batch=max_batch)
        self._relative = relative or RelativeQuantities(units={k: u for m in models for k, u in m.units.items()})
        self._rules = rules
        self._requests = Requests(controls, control)
        self._runs = AgentRuns(
            models,
            emit,
            no_run=reader.no_run,
            config_sha256=config_sha256,
            versions=versions,
            spectra=spectra,
            show_single_site=show_single_site,
            units=self._relative.units,
            set_aside=self._set_aside,
        )
        self._stops: dict[str, Mapping[str, Any]] = {}
        """RunStops of watched runs whose agent runs are still open; empty if the RunStop did not arrive."""
        self._load = Load(max_latency_s)
        self._left_out = LeftOut(self.note)
        self._told = Told()
        self.standing = rules.standing()
        """How the rules stand on the newest frame's series; replaced as a whole, so that any thread may read it."""
        self._committed, self._progress = committed, Progress()
        self.decisions = Decisions(rules, self._requests, self._runs, self._commit)
        """Open decisions, and the orders of persons."""
        self._publish = Publication(
            self._runs,
            self._relative,
            rules,
            self.decisions,
            self.note,
            measured=measured,
            max_age_s=controls.max_age_s,
        )
        self._serving = Serving(
            self._serve,
            self._publish,
            pages=pages,
            max_batch=max_batch,
            in_turn=self._is_in_turn,
            commit=self._commit_proposed,
            abandoned=self._abandoned,
        )
        self._advanced: set[str] = set()
        """Runs that have outcomes since their position was last reported."""
        self._published = Published(Past())
        self._closing = False
        self._left = math.inf if limit is None else limit
        """Number of frames that may still be answered or set aside."""
        self._cut: set[str] = set()
        """Runs with frames beyond the limit; like runs cut off by the end of the process, they do not end here."""
        self.full = self._left <= 0
        """Whether the frames up to the limit are answered or set aside; safe to read from any thread."""

    @property
    def unanswered(self) -> int:
        """Number of complete frames that were not answered because the host ended the pipeline."""
        return self._serving.unanswered

    @property
    def busy(self) -> bool:
        """Whether results of documents already fed are outstanding: missing documents or statuses of decisions.

        Read it only on the thread that feeds.
        """
        return self._reader.waiting or bool(self._requests.open or self._stops or self._left_out.notes)

    def plan(self, waiting: int) -> int:
        """Return how many of the waiting documents to feed at once; decide what to skip of them.

        A page counts as the documents in it.
        """
        self._load.plan(waiting)
        self._reader.answer_every(self._load.every)
        self._serve.hurried = self._load.hurried
        return self._load.documents

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and its planned number (0 if unknown)."""
        return self._reader.points

    def feed(self, received: Sequence[Received]) -> None:
        """Process documents; the frames that they complete are served together."""
        began = time.monotonic()
        self.unread, left_out = len(received), self._left_out.now
        self._serving.begin(ahead=self._rules.are_none)
        reading = self._reader.read(received)
        while not self._abandoned.is_set() and (read := next(reading, None)) is not None:
            self.unread -= read[0]
            self._take(read[1])
            if self._serving.is_due:
                self._serving(more=True)
        if self._reader.waiting:
            self._take(self._reader.poll(time.monotonic()))
        self._serving()
        if self._requests.paused is None:
            attempt(lambda: self.decisions.propose_in_runs(self._rules.quiet(time.monotonic())))
        answered, serving_s = self._serving.answered, self._serving.taken_s
        frames = answered + self._left_out.now - left_out
        reading_s = time.monotonic() - began - serving_s
        rows = sum(document.rows for document in received)
        attempt(lambda: self._load.learn(rows, frames, answered, reading_s, serving_s))
        attempt(self._note_standing)
        attempt(self.decisions.publish_statuses)
        attempt(lambda: self._left_out.report(idle=not received))
        self._end_runs()
        self._commit(all_done=True)
        self.full = self._left <= 0

    def _note_standing(self) -> None:
        self.standing = self._rules.standing()

    def resume(self, past: Past, inputs: Iterable[Sequence[Received]]) -> None:
        """Continue where an earlier process ended.

        Frames and notes of that process are not published again. Decisions without a final status are sent again
        under the same id, unless they are too old.

        Parameters
        ----------
        past : results of the earlier process
        inputs : its documents, in order and in batches; complete for all runs that are not over
        """
        for part in (
            self._reader,
            self._align,
            self._energy_uncertainty,
            self._relative,
            self._rules,
            self._requests,
        ):
            part.restore(past.memory)
        self._published = Published(past)
        self._runs.resume(past.runs)
        for decision, age_s in past.decisions:
            self._requests.take_up(decision, age_s)
        for batch in inputs:
            self.feed(batch)
        self._runs.end_past()
        self.decisions.publish_statuses()
        self._commit()

    def give_up(self, runs: Iterable[str]) -> None:
        """Forget watched runs that another agent reads from their starts, and end the agent's runs for them.

        A run that comes back is new, since its earlier results may not have been published.
        """
        for uid in runs:
            self._take(self._reader.give_up(uid))
            self._stops.pop(uid, None)
            self._left_out.notes.pop(uid, None)
            attempt(partial(self._requests.run_stopped, uid), run=uid)
            self._forget(uid)
            attempt(partial(self._runs.give_up, uid), run=uid)
            self._advanced.discard(uid)
            self._publish.forget(uid)
            self._progress.given_up.append(uid)
        self._commit()

    def _forget(self, uid: str) -> None:
        """Forget all data of one run."""
        for part in (self._rules, self._requests, self._relative, self._published, self._told):
            attempt(partial(part.forget, uid), run=uid)

    def idle(self) -> None:
        """Stop waiting for missing documents, after the source has been quiet."""
        self._take(self._reader.settle())
        self.feed(())

    def anchor(self, series: str | None, anchor: Anchor) -> None:
        """Take the newest frame of a series as an anchor, as :meth:`RelativeQuantities.anchor` does.

        Call it only on the thread that feeds.
        """
        self._progress.memory |= self._relative.anchor(series, anchor)

    def note(self, note: SetAside) -> None:
        """Publish and log a note on data set aside."""
        names = self._runs.names(note.run_uid, file=note.file)
        self._told.tell(note, **names)
        if not attempt(lambda: self._runs.note(note), frame=note.seq_num, uid=note.uid, **names):
            self.lost += note.count
        attempt(lambda: self.decisions.propose_in_runs(self._rules.note(note)), frame=note.seq_num, **names)

    def close(self, reason: str = "the agent was closed before the run ended", *, handed_on: bool = False) -> None:
        """Serve all complete frames, then end every open run.

        Parameters
        ----------
        reason : reason in the RunStops
        handed_on : whether another agent reads the watched runs in progress from their starts; then the agent
            publishes nothing about scans cut off here, since the other agent will see them whole
        """
        self._commit()
        self._closing = True
        outcomes = self._reader.finish()
        self._take(item for item in outcomes if (item.doc if isinstance(item, RunDocument) else not handed_on))
        self._serving()
        self._commit()
        self._serving.close()
        attempt(lambda: self._requests.close(hurried=self._abandoned.is_set()))
        attempt(self.decisions.publish_statuses)
        attempt(lambda: self._left_out.report(idle=True))
        self._told.close()
        attempt(lambda: self._runs.close(reason, with_notes=not handed_on))
        self._stops.clear()
        self._commit()

    def _take(self, outcomes: Iterable[Outcome]) -> None:
        for item in outcomes:
            try:
                self._take_one(item)
            except Exception as error:
                if isinstance(item, Frame):
                    self._publish.note_failure(item, error)
                    continue
                self.lost += 1
                name, run = ("note", item.run_uid) if isinstance(item, SetAside) else (item.name, item.run.uid)
                uid = item.uid if isinstance(item, SetAside) else str(item.doc.get("uid", ""))
                _log.error("document not served", name=name, uid=uid, run=run, exc_info=error)

    def _take_one(self, item: Outcome) -> None:
        if isinstance(item, Frame | SetAside):
            if item.seq_num:
                attempt(partial(self._requests.measured, item.run_uid, item.seq_num), run=item.run_uid)
            if item in self._published or self._is_beyond_limit(item):
                return
        if isinstance(item, Frame):
            self._serving.add(item)
        elif isinstance(item, SetAside) and item.reason is Reason.OVERLOAD:
            self._left_out.add(item, self._load.every)
        elif isinstance(item, SetAside):
            self.note(item)
        else:
            self._follow(item)

    def _is_beyond_limit(self, item: Frame | SetAside) -> bool:
        """Count a frame, and return whether it comes after the last one to answer."""
        if not item.seq_num:
            return False
        if self._left <= 0:
            self._cut.add(item.run_uid)
            return True
        self._left -= 1 if isinstance(item, Frame) else item.count
        return False

    def _follow(self, document: RunDocument) -> None:
        """Record the start or the stop of a run."""
        uid = document.run.uid
        if document.run.sample_uid is not None:
            self._progress.memory |= self._reader.memory(document.run.sample_uid)
        if not document.run.watched:
            runs = self._progress.unwatched if document.name == "start" else self._progress.ended
            runs.append(uid)
        elif document.name == "start":
            self._runs.watch(document.run)
            self._keep(partial(self._relative.begin, document.run), uid)
        else:
            if uid not in self._cut:
                self._stops[uid] = document.doc
            self._requests.run_stopped(uid)
            self._end_runs()

    def _is_in_turn(self) -> bool:
        """Whether one batch must be over before the next: with rules, since decisions come between the frames, and
        with decisions to send, since the progress reported before them holds the state of all aligned frames."""
        return bool(self._requests.proposed) or not self._rules.are_none

    def _commit_proposed(self) -> None:
        if self._requests.proposed:
            self._commit()

    def _commit(self, *, all_done: bool = False) -> None:
        """Report the progress, then send its decisions.

        Parameters
        ----------
        all_done : whether this or an earlier progress contains every frame and note that the reader returned
        """
        self._progress.outcomes += self._publish.take_outcomes()
        newest = self._publish.take_newest()
        if self._committed is not None:
            self._advanced |= {run for run, _ in self._progress.outcomes}
            if all_done and not self._abandoned.is_set():
                for uid in self._advanced - self._runs.with_held_notes - self._left_out.notes.keys() - self._cut:
                    self._keep(partial(self._reader.positions, uid), uid)
                self._advanced.clear()
            self._remember(newest)  # as far as possible; the results are sent in any case
            progress, self._progress = self._progress, Progress()
            attempt(partial(self._committed, progress))
        else:
            self._progress = Progress()
        attempt(self._requests.send)

    def _remember(self, newest: Sequence[tuple[Frame, Estimator]]) -> None:
        """Add the states changed since the last progress; ``newest`` are the newest answered frames by series."""
        for frame, model in newest:
            run, series = frame.run_uid, frame.series
            self._keep(partial(self._align.memory, frame, model), run)
            self._keep(partial(self._rules.memory, run, frame), run)
            self._keep(partial(self._energy_uncertainty.memory, series, model), run)
            self._keep(partial(self._relative.memory, series, model), run)
        for uid in self.decisions.changed:
            self._keep(partial(self._rules.memory, uid), uid)
        self.decisions.changed.clear()
        self._keep(self._runs.memory)
        self._keep(self._requests.memory)

    def _keep(self, states: Callable[[], Memory], run: str = "") -> None:
        """Add states to the progress; a failure loses no other states."""
        attempt(lambda: self._progress.memory.update(states()), run=run)

    def _set_aside(self, run: AgentRun, note: SetAside) -> None:
        names = {"run": note.run_uid, "frame": note.seq_num, "uid": note.uid}
        if not attempt(lambda: run.set_aside(note), **names):  # an error must not cost the other held notes
            self.lost += note.count
        if note.seq_num and not self._closing:  # otherwise the frame may still be completed after a restart
            self._progress.outcomes.append((note.run_uid, note.uid))
        elif self._committed is not None and not self._runs.ended(note.run_uid):
            self._progress.memory |= self._published.add(note)

    def _end_runs(self) -> None:
        """End the agent's runs for stopped runs whose decisions all have a final status."""
        if not self._stops:
            return
        self._serving()
        attempt(self.decisions.publish_statuses)
        for uid in [u for u in self._stops if u not in self._requests.open.values()]:
            stop = self._stops.pop(uid)
            attempt(partial(self._left_out.report_run, uid), run=uid)
            self._forget(uid)
            if not self._closing:
                self._progress.ended.append(uid)
            attempt(partial(self._runs.end, uid, stop), run=uid)
