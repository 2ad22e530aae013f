"""Turns watched documents into the agent's documents and decisions, batch by batch, without thread or transport."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .decide import ControlSettings, Dispatcher, Rules
from .estimate import Answer, EnergyUncertainty, FrameServer
from .load import Load
from .publish import AgentRun, Emit, Provenance
from .spectra import AlignmentSettings, SeriesAlignment
from .stream import FrameReader, Outcome
from .types import (
    Control,
    Decision,
    Estimator,
    Frame,
    Reason,
    Received,
    Refusal,
    RunDocument,
    RunInfo,
    SetAside,
    Tabulated,
    as_number,
    get_logger,
)

_log = get_logger()


_ABANDON_TIMEOUT_S = 1.0
"""Longest wait for a control after the host gave up, s."""
_MAX_ENDED_RUNS = 1000
"""Number of ended runs that are remembered, so that late notes do not open a second run of the agent."""
_OVERLOAD_NOTE_S = 1.0
"""Shortest time between two notes on the frames of a run that are left out under overload, s."""
_OVERLOAD_OVER_S = 2.0
"""Time without a frame left out after which an overload is over, s."""
_FINAL_STATUSES = ("acknowledged", "rejected", "expired")


class Pipeline:
    """documents → frames → aligned spectra → estimates → decisions. Not thread-safe.

    Parameters
    ----------
    reader : turns documents into frames
    models : models from which one is chosen for each frame
    emit : receives every document of the agent's own runs
    controls : limits for the control
    control : control that receives the decisions; None to advise only
    config_sha256, versions : for the RunStart of the agent's runs
    spectra : whether to publish the aligned spectra
    show_single_site : whether to hint descriptors for display that have no meaning for a mixture of sites
    max_batch : largest number of frames in one forward pass
    max_latency_s : latency, s, above which frames are left out under overload; None answers every frame
    tabulated : tabulated quantities that ``alignment`` needs, by model name
    abandoned : set by the host to end without answering what was taken
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
        show_single_site: bool = False,
        max_batch: int = 256,
        max_latency_s: float | None = None,
        tabulated: Mapping[str, Tabulated] | None = None,
        abandoned: threading.Event | None = None,
    ) -> None:
        self._abandoned = abandoned or threading.Event()
        self.unread = 0
        """Number of documents of the last batch that were not read, because the host gave them up."""
        self.unanswered = 0
        """Number of complete frames that were not answered, because the host gave them up."""
        self._reader = reader
        self._models = models
        align = SeriesAlignment(alignment, tabulated=tabulated)
        self._serve = FrameServer(models, align, EnergyUncertainty(), max_batch=max_batch)
        self._rules = rules
        self._statuses: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        self._dispatcher = Dispatcher(controls, control, self._statuses.put)
        self._control_timeout_s = controls.timeout_s
        self._unsettled: dict[str, str] = {}
        """Uid of the watched run, by the id of each decision without a final status."""
        self._emit = emit
        self._config_sha256, self._versions = config_sha256, versions
        self._spectra, self._show_single_site = spectra, show_single_site
        self._watched: dict[str, RunInfo] = {}
        """Watched runs from their start until the end of the agent's runs for them."""
        self._stops: dict[str, Mapping[str, Any]] = {}
        """Stops of watched runs for which the agent's runs are still open; empty if they did not arrive."""
        self._ended: deque[str] = deque(maxlen=_MAX_ENDED_RUNS)
        self._runs: dict[tuple[str, str], AgentRun] = {}
        """The agent's runs by watched run and model; a watched run has several only if it measures several edges."""
        self._held_notes: dict[str, list[SetAside]] = {}
        """Notes on watched runs whose model is not known yet."""
        self._waiting_frames: list[Frame] = []
        self._max_batch = max_batch
        self._load = Load(max_latency_s)
        self._left_out: dict[str, SetAside] = {}
        """Frames left out under overload that are not reported yet, by watched run."""
        self._left_out_at = self._reported_at = -math.inf
        """``time.monotonic()`` of the newest frame that was left out, and of the newest report."""
        self._left_out_now = 0
        """Number of frames left out in the present overload."""
        self._answered, self._serving_s = 0, 0.0
        """Number of frames that were served of the documents fed last, and the time that this took, s."""
        self._stale = False
        """Whether the newest frame was too old for the rules."""
        self._max_age_s = controls.max_age_s

    @property
    def busy(self) -> bool:
        """Whether results are outstanding for documents already fed: missing documents or statuses of decisions.

        To be read on the thread that feeds.
        """
        return self._reader.waiting or bool(self._unsettled or self._stops or self._left_out)

    def plan(self, waiting: int) -> int:
        """Return how many of the waiting documents to feed at once; decide what is left out of them."""
        self._load.plan(waiting)
        self._reader.answer_every(self._load.every)
        self._serve.hurried = self._load.hurried
        return self._load.documents

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and of the planned ones (0 if unknown)."""
        return self._reader.points

    def feed(self, received: Sequence[Received]) -> None:
        """Process documents; the frames that they complete are served together."""
        began = time.monotonic()
        self.unread = 0
        self._answered, self._serving_s, left_out = 0, 0.0, self._left_out_now
        for document in received:
            if self._abandoned.is_set():
                self.unread += 1
                continue
            self._take(self._reader(document))
            if len(self._waiting_frames) >= self._max_batch:
                self._serve_waiting()
        if self._reader.waiting:
            self._take(self._reader.poll(time.monotonic()))
        self._serve_waiting()
        frames = self._answered + self._left_out_now - left_out
        reading_s = time.monotonic() - began - self._serving_s
        self._load.learn(len(received), frames, self._answered, reading_s, self._serving_s)
        self._publish_statuses()
        self._report_left_out(idle=not received)
        self._end_runs()

    def idle(self) -> None:
        """Stop waiting for missing documents, after the source has been quiet."""
        self._take(self._reader.settle())
        self.feed(())

    def note(self, note: SetAside) -> None:
        """Publish and log that data could not be served."""
        names = self._names(note.run_uid, file=note.file)
        log = _log.debug if note.reason is Reason.OVERLOAD else _log.warning  # logged once, when it begins
        log("set aside", reason=str(note.reason), detail=note.detail, frame=note.seq_num, count=note.count, **names)
        uid = "" if note.run_uid in self._ended else note.run_uid
        key = next((k for k in reversed(self._runs) if uid in (k[0], "")), None)
        if key is not None:
            self._runs[key].set_aside(note)
        elif (model := self._expected_model(uid)) is not None:
            self._run(uid, note.time, model).set_aside(note)
        else:
            self._held_notes.setdefault(uid, []).append(note)

    def close(self, reason: str = "the agent was closed before the run ended") -> None:
        """Serve all complete frames, then end every open run."""
        outcomes = self._reader.finish()
        self._take(item for item in outcomes if not isinstance(item, RunDocument) or item.doc)
        self._serve_waiting()
        self._dispatcher.drain(0.0 if self._abandoned.is_set() else self._control_timeout_s)
        self._dispatcher.close(_ABANDON_TIMEOUT_S if self._abandoned.is_set() else None)
        self._publish_statuses()
        self._report_left_out(idle=True)
        while self._held_notes:
            uid, notes = next(iter(self._held_notes.items()))
            self._run(uid, notes[0].time, None)
        for run in self._runs.values():
            run.close("abort", reason, watched=False)
        self._runs.clear()
        self._watched.clear()
        self._stops.clear()

    def _take(self, outcomes: Iterable[Outcome]) -> None:
        for item in outcomes:
            if isinstance(item, Frame):
                self._waiting_frames.append(item)
            elif isinstance(item, SetAside) and item.reason is Reason.OVERLOAD:
                self._leave_out(item)
            elif isinstance(item, SetAside):
                self.note(item)
            elif item.run.watched:
                self._follow(item)

    def _leave_out(self, note: SetAside) -> None:
        """Count a frame that is left out, until the next report."""
        if not self._left_out_now:
            _log.warning("overload: some frames are left out", answered_every=self._load.every)
        self._left_out_now += note.count
        self._left_out_at = time.monotonic()
        earlier = self._left_out.get(note.run_uid)
        self._left_out[note.run_uid] = replace(note, count=note.count + (0 if earlier is None else earlier.count))

    def _report_left_out(self, *, idle: bool) -> None:
        """Report the frames that were left out, each run's in one note, and the end of an overload."""
        now = time.monotonic()
        if self._left_out and (idle or now - self._reported_at > _OVERLOAD_NOTE_S):
            self._reported_at = now
            for uid in list(self._left_out):
                self._report_left_out_of(uid)
        if self._left_out_now and now - self._left_out_at > _OVERLOAD_OVER_S:
            _log.warning("overload is over: every frame is answered", frames_left_out=self._left_out_now)
            self._left_out_now = 0

    def _report_left_out_of(self, uid: str) -> None:
        note = self._left_out.pop(uid, None)
        if note is not None:
            detail = f"{note.count} {'frame' if note.count == 1 else 'frames'} up to number {note.seq_num}"
            self.note(replace(note, detail=detail))

    def _follow(self, document: RunDocument) -> None:
        """Record the start or the stop of a watched run."""
        uid = document.run.uid
        if document.name == "start":
            self._watched[uid] = document.run
        else:
            self._stops[uid] = document.doc
            self._end_runs()

    def _serve_waiting(self) -> None:
        while self._waiting_frames:
            frames, self._waiting_frames = self._waiting_frames, []
            began = time.monotonic()
            for number, answer in enumerate(self._serve(frames)):
                if self._abandoned.is_set():
                    self.unanswered += len(frames) - number
                    return
                self._publish(answer)
            self._answered += len(frames)
            self._serving_s += time.monotonic() - began

    def _publish(self, answer: Answer) -> None:
        frame, model, estimate = answer.frame, answer.model, answer.estimate
        if answer.refusal is not None:
            self.note(_set_aside(frame, answer.refusal))
            return
        assert model is not None
        assert estimate is not None
        age_s = time.monotonic() - frame.received
        try:
            run = self._run(frame.run_uid, frame.time, model)
            run.frame(frame, answer.quantities, estimate, answer.mu, age_s * 1e3)
            if not self._is_stale(age_s, frame):
                for decision in self._rules(frame, estimate):
                    self._decide(decision, run)
        except Exception as e:
            names = self._names(frame.run_uid, file=frame.scan.file)
            _log.exception("frame not published or not checked by the rules", frame=frame.seq_num, **names)
            self.note(_set_aside(frame, Refusal(Reason.INTERNAL_ERROR, f"{type(e).__name__}: {e}")))

    def _is_stale(self, age_s: float, frame: Frame) -> bool:
        """Whether a frame is too old for the rules; logged once for all such frames in a row."""
        stale = age_s > self._max_age_s
        if stale and not self._stale:
            names = self._names(frame.run_uid, file=frame.scan.file)
            message = "frames older than control.max_age_s: no rule decides on them"
            _log.warning(message, age_s=round(age_s, 1), max_age_s=self._max_age_s, **names)
        self._stale = stale
        return stale

    def _decide(self, decision: Decision, run: AgentRun) -> None:
        names = self._names(decision.run_uid, file=decision.scan.file)
        _log.info("decision", rule=decision.rule, action=decision.action, reason=decision.reason, **names)
        submitted = self._dispatcher.submit(decision)
        if submitted.status == "proposed" and not submitted.status_reason:
            self._unsettled[submitted.id] = submitted.run_uid
        run.decision(submitted)

    def _publish_statuses(self) -> None:
        while not self._statuses.empty():
            decision = self._statuses.get()
            if decision.status in _FINAL_STATUSES:
                _log.info(
                    "decision answered",
                    rule=decision.rule,
                    action=decision.action,
                    status=decision.status,
                    reason=decision.status_reason,
                    **self._names(decision.run_uid, file=decision.scan.file),
                )
            for (uid, _), run in self._runs.items():
                if uid == decision.run_uid:
                    run.decision(decision)
                    break
            if decision.status in _FINAL_STATUSES:
                self._unsettled.pop(decision.id, None)

    def _expected_model(self, uid: str) -> Estimator | None:
        """Return the only model, or the only one for the element and edge of the RunStart or the config."""
        if len(self._models) == 1:
            return self._models[0]
        watched = self._watched.get(uid, self._reader.no_run)
        matches = [m for m in self._models if m.absorber == watched.element and watched.edge in (None, m.edge_name)]
        return matches[0] if len(matches) == 1 else None

    def _run(self, uid: str, at: float, model: Estimator | None) -> AgentRun:
        """Return the agent's run for a watched run and model, started with the first result or note."""
        key = uid, model.name if model is not None else ""
        if key not in self._runs:
            start = {"uid": uid or "unknown", **self._watched.get(uid, self._reader.no_run).start}
            started = as_number(start.get("time"), texts=True)
            start["time"] = at if started is None else started
            provenance = Provenance(
                model_name=model.name if model is not None else "none",
                model_sha256=model.sha256 if model is not None else "",
                config_sha256=self._config_sha256,
                versions=self._versions,
                element=model.absorber if model is not None else None,
                edge=model.edge_name if model is not None else None,
                hidden=model.single_site if model is not None and not self._show_single_site else frozenset(),
                units=model.units if model is not None else {},
                grid=model.grid.energy if model is not None else None,
            )
            if model is not None:
                _log.info("watching", model=model.name, sha256=model.sha256[:12], **self._names(uid))
            scan = self._watched.get(uid, self._reader.no_run).scan
            self._runs[key] = AgentRun(start, provenance, self._emit, spectra=self._spectra, scan=scan)
        if self._held_notes:
            for note in self._held_notes.pop(uid, []) + self._held_notes.pop("", []):
                self._runs[key].set_aside(note)
        return self._runs[key]

    def _names(self, uid: str, file: str = "") -> dict[str, Any]:
        """Return what is known of a watched run, for a log line; ``file`` replaces the run's."""
        info = self._watched.get(uid, self._reader.no_run)
        names = {"run": uid, **info.scan.named(), "element": info.element}
        return {**names, "file": file} if file else names

    def _end_runs(self) -> None:
        """End the agent's runs for stopped runs whose decisions all have a final status."""
        if not self._stops:
            return
        self._serve_waiting()
        self._publish_statuses()
        for uid in [u for u in self._stops if u not in self._unsettled.values()]:
            stop = self._stops.pop(uid)
            self._report_left_out_of(uid)
            if uid in self._held_notes:
                self._run(uid, self._held_notes[uid][0].time, None)
            self._rules.forget(uid)
            self._watched.pop(uid, None)
            self._ended.append(uid)
            for key in [k for k in self._runs if k[0] == uid]:
                _close(self._runs.pop(key), stop)


def _close(run: AgentRun, stop: Mapping[str, Any]) -> None:
    """End an agent's run with the status of its watched run."""
    if not stop:
        run.close("abort", "the watched run never stopped", watched=False)
        return
    stopped = as_number(stop.get("time"), texts=True)
    run.close(str(stop.get("exit_status", "fail")), str(stop.get("reason", "")), stopped)


def _set_aside(frame: Frame, refusal: Refusal) -> SetAside:
    return SetAside(
        frame.run_uid, frame.uid, frame.time, refusal.reason, refusal.detail, frame.seq_num, frame.scan.file
    )
