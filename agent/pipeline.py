"""Turns watched documents into the agent's documents and decisions, batch by batch, without thread or transport."""

import queue
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .decide import ControlSettings, Dispatcher, Rules
from .estimate import Answer, EnergyUncertainty, FrameServer
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


_MAX_ENDED_RUNS = 1000
"""Number of ended runs that are remembered, so that late notes do not open a second run of the agent."""
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
    tabulated : tabulated quantities that ``alignment`` needs, by model name
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
        tabulated: Mapping[str, Tabulated] | None = None,
    ) -> None:
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

    @property
    def busy(self) -> bool:
        """Whether results are outstanding for documents already fed: missing documents or statuses of decisions.

        To be read on the thread that feeds.
        """
        return self._reader.waiting or bool(self._unsettled or self._stops)

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and of the planned ones (0 if unknown)."""
        return self._reader.points

    def feed(self, received: Iterable[Received]) -> None:
        """Process documents; the frames that they complete are served together."""
        for document in received:
            self._take(self._reader(document))
        if self._reader.waiting:
            self._take(self._reader.poll(time.monotonic()))
        self._serve_waiting()
        self._publish_statuses()
        self._end_runs()

    def idle(self) -> None:
        """Stop waiting for missing documents, after the source has been quiet."""
        self._take(self._reader.settle())
        self.feed(())

    def note(self, note: SetAside) -> None:
        """Publish and log that data could not be served."""
        names = self._names(note.run_uid, file=note.file)
        _log.warning("set aside", reason=str(note.reason), detail=note.detail, frame=note.seq_num, **names)
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
        self._dispatcher.drain(self._control_timeout_s)
        self._dispatcher.close()
        self._publish_statuses()
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
            elif isinstance(item, SetAside):
                self.note(item)
            elif item.run.watched:
                self._follow(item)

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
            for answer in self._serve(frames):
                self._publish(answer)

    def _publish(self, answer: Answer) -> None:
        frame, model, estimate = answer.frame, answer.model, answer.estimate
        if answer.refusal is not None:
            self.note(_set_aside(frame, answer.refusal))
            return
        assert model is not None
        assert estimate is not None
        latency_ms = (time.monotonic() - frame.received) * 1e3
        try:
            run = self._run(frame.run_uid, frame.time, model)
            run.frame(frame, answer.quantities, estimate, answer.mu, latency_ms)
            for decision in self._rules(frame, estimate):
                self._decide(decision, run)
        except Exception as e:
            names = self._names(frame.run_uid, file=frame.scan.file)
            _log.exception("frame not published or not checked by the rules", frame=frame.seq_num, **names)
            self.note(_set_aside(frame, Refusal(Reason.INTERNAL_ERROR, f"{type(e).__name__}: {e}")))

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
