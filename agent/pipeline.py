"""Documents in, the agent's own documents and decisions out: one call per batch, no thread, no transport."""

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
    get_logger,
)

_log = get_logger()


REMEMBERED_RUNS = 1000
FINAL = ("acknowledged", "rejected", "expired")


class Pipeline:
    """documents → frames → aligned spectra → estimates → decisions, for one thread.

    Parameters
    ----------
    reader : makes frames of documents
    models : the models to choose from, frame by frame
    emit : gets every document of the agent's own runs
    control : what may act on the experiment, within ``controls``; None to advise only
    tabulated : by model, what ``alignment`` asks for of tables
    config_sha256, versions : for the RunStart of the agent's runs
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
        self._patience_s = controls.timeout_s
        self._unsettled: dict[str, str] = {}
        """Watched run of each decision whose last status is still to come, by its id."""
        self._emit = emit
        self._config_sha256, self._versions = config_sha256, versions
        self._spectra, self._show_single_site = spectra, show_single_site
        self._watched: dict[str, RunInfo] = {}
        """Watched runs from their start until the agent's run beside them has ended."""
        self._stops: dict[str, Mapping[str, Any]] = {}
        """Stops of watched runs whose agent's runs are still open; empty where they never came."""
        self._over: deque[str] = deque(maxlen=REMEMBERED_RUNS)
        self._runs: dict[tuple[str, str], AgentRun] = {}
        """By watched run and model; a watched run has one, unless it goes over two edges."""
        self._held: dict[str, list[SetAside]] = {}
        """Notes on watched runs of which no frame has said yet which model is theirs."""
        self._waiting: list[Frame] = []

    @property
    def busy(self) -> bool:
        """Whether something of what was fed is still to come out: late documents, statuses of decisions.

        To be asked on the thread that feeds.
        """
        return self._reader.waiting or bool(self._unsettled or self._stops)

    def feed(self, received: Iterable[Received]) -> None:
        """Take documents in; every frame that they complete is served, together with the others."""
        for document in received:
            self._take(self._reader(document))
        if self._reader.waiting:
            self._take(self._reader.poll(time.monotonic()))
        self._serve_waiting()
        self._publish_statuses()
        self._end_runs()

    def idle(self) -> None:
        """Give up waiting for documents that others announced: the source has been quiet."""
        self._take(self._reader.settle())
        self.feed(())

    def note(self, note: SetAside) -> None:
        """Publish that something could not be served."""
        _log.warning("set aside", reason=str(note.reason), detail=note.detail, run=note.run_uid, frame=note.seq_num)
        uid = "" if note.run_uid in self._over else note.run_uid
        key = next((k for k in reversed(self._runs) if uid in (k[0], "")), None)
        if key is not None:
            self._runs[key].set_aside(note)
        elif (model := self._named(uid)) is not None:
            self._run(uid, note.time, model).set_aside(note)
        else:
            self._held.setdefault(uid, []).append(note)

    def close(self, reason: str = "the agent was closed before the run ended") -> None:
        """Serve what is complete, then end every open run."""
        found = self._reader.finish()
        self._take(item for item in found if not isinstance(item, RunDocument) or item.doc)
        self._serve_waiting()
        self._dispatcher.drain(self._patience_s)
        self._dispatcher.close()
        self._publish_statuses()
        while self._held:
            uid, notes = next(iter(self._held.items()))
            self._run(uid, notes[0].time, None)
        for run in self._runs.values():
            run.close("abort", reason, watched=False)
        self._runs.clear()
        self._watched.clear()
        self._stops.clear()

    def _take(self, found: Iterable[Outcome]) -> None:
        for item in found:
            if isinstance(item, Frame):
                self._waiting.append(item)
            elif isinstance(item, SetAside):
                self.note(item)
            elif item.run.watched:
                self._follow(item)

    def _follow(self, document: RunDocument) -> None:
        """Take in the start or the stop of a watched run."""
        uid = document.run.uid
        if document.name == "start":
            self._watched[uid] = document.run
        else:
            self._stops[uid] = document.doc
            self._end_runs()

    def _serve_waiting(self) -> None:
        while self._waiting:
            frames, self._waiting = self._waiting, []
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
            _log.exception("frame not published, or not judged", frame=frame.seq_num)
            self.note(_set_aside(frame, Refusal(Reason.INTERNAL_ERROR, f"{type(e).__name__}: {e}")))

    def _decide(self, decision: Decision, run: AgentRun) -> None:
        _log.info("decision", rule=decision.rule, action=decision.action, reason=decision.reason)
        taken = self._dispatcher.submit(decision)
        if taken.status == "proposed" and not taken.status_reason:
            self._unsettled[taken.id] = taken.run_uid
        run.decision(taken)

    def _publish_statuses(self) -> None:
        while not self._statuses.empty():
            decision = self._statuses.get()
            _log.info("decision", action=decision.action, status=decision.status, reason=decision.status_reason)
            for (uid, _), run in self._runs.items():
                if uid == decision.run_uid:
                    run.decision(decision)
                    break
            if decision.status in FINAL:
                self._unsettled.pop(decision.id, None)

    def _named(self, uid: str) -> Estimator | None:
        """The model of a watched run by what its RunStart or the config names, or the only one."""
        if len(self._models) == 1:
            return self._models[0]
        watched = self._watched.get(uid, self._reader.no_run)
        fits = [m for m in self._models if m.absorber == watched.element and watched.edge in (None, m.edge_name)]
        return fits[0] if len(fits) == 1 else None

    def _run(self, uid: str, at: float, model: Estimator | None) -> AgentRun:
        """The agent's run beside a watched run, begun when there is first something to say of it."""
        key = uid, model.name if model is not None else ""
        if key not in self._runs:
            start = {"uid": uid or "unknown", **self._watched.get(uid, self._reader.no_run).start}
            if not isinstance(start.get("time"), int | float):
                start["time"] = at
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
            _log.info("watching", run=uid, model=provenance.model_name, sha256=provenance.model_sha256[:12])
            self._runs[key] = AgentRun(start, provenance, self._emit, spectra=self._spectra)
        if self._held:
            for note in self._held.pop(uid, []) + self._held.pop("", []):
                self._runs[key].set_aside(note)
        return self._runs[key]

    def _end_runs(self) -> None:
        """End the agent's runs beside those that have stopped, each once its last decision is settled."""
        if not self._stops:
            return
        self._serve_waiting()
        self._publish_statuses()
        for uid in [u for u in self._stops if u not in self._unsettled.values()]:
            stop = self._stops.pop(uid)
            if uid in self._held:
                self._run(uid, self._held[uid][0].time, None)
            self._rules.forget(uid)
            self._watched.pop(uid, None)
            self._over.append(uid)
            for key in [k for k in self._runs if k[0] == uid]:
                _close(self._runs.pop(key), stop)


def _close(run: AgentRun, stop: Mapping[str, Any]) -> None:
    """End an agent's run as its watched run ended."""
    if not stop:
        run.close("abort", "the watched run never stopped", watched=False)
        return
    at = stop.get("time")
    time = float(at) if isinstance(at, int | float) else None
    run.close(str(stop.get("exit_status", "fail")), str(stop.get("reason", "")), time)


def _set_aside(frame: Frame, refusal: Refusal) -> SetAside:
    return SetAside(frame.run_uid, frame.uid, frame.time, refusal.reason, refusal.detail, frame.seq_num)
