"""Finds the agent's run to which a result or a note on a watched run belongs."""

import reprlib
from collections import deque
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from typing import Any

from ..types import Estimator, Memory, RunInfo, Scan, SetAside, as_number, get_logger
from .agent_run import AgentRun, Emit
from .provenance import PastRun, Provenance

_log = get_logger()

_MAX_ENDED_RUNS = 1000
"""Number of ended runs to remember, so that late notes do not open a second run of the agent."""


class AgentRuns:
    """The agent's runs by watched run and model, from the first result or note until the watched run is over.

    A watched run has several of them only if it measures several edges.

    Parameters
    ----------
    models : models from which one is chosen for each frame
    emit : receives the documents
    no_run : properties of a watched run that the config states before its start arrives
    config_sha256, versions : hash of the config and versions, for the RunStarts
    spectra : whether to publish the aligned spectra
    show_single_site : whether to hint for display the descriptors that have no meaning for a mixture of sites, or
        that the model hardly knows
    set_aside : publishes a note in a run
    units : units of all published quantities except a model's descriptors, by name
    """

    def __init__(
        self,
        models: Sequence[Estimator],
        emit: Emit,
        *,
        no_run: RunInfo,
        config_sha256: str,
        versions: Mapping[str, str],
        spectra: bool,
        show_single_site: bool,
        set_aside: Callable[[AgentRun, SetAside], None],
        units: Mapping[str, str],
    ) -> None:
        self._models, self._emit, self._no_run = models, emit, no_run
        self._config_sha256, self._versions = config_sha256, versions
        self._spectra, self._show_single_site = spectra, show_single_site
        self._set_aside, self._units = set_aside, units
        self._watched: dict[str, RunInfo] = {}
        """Watched runs, from their start until the agent's runs for them end."""
        self._runs: dict[tuple[str, str], AgentRun] = {}
        self._ended: deque[str] = deque(maxlen=_MAX_ENDED_RUNS)
        self._held_notes: dict[str, list[SetAside]] = {}
        """Notes on watched runs whose model is still unknown."""
        self._past: dict[str, list[PastRun]] = {}
        """The agent's runs of an earlier process, by watched run, until its start is read again."""

    @property
    def with_held_notes(self) -> KeysView[str]:
        """Watched runs whose notes wait until their model is known."""
        return self._held_notes.keys()

    @property
    def resuming(self) -> bool:
        """Whether the start of an earlier process's watched run has yet to be read again."""
        return bool(self._past)

    def ended(self, uid: str) -> bool:
        """Return whether a watched run is over."""
        return uid in self._ended

    def names(self, uid: str, file: str = "") -> dict[str, Any]:
        """Return the known properties of a watched run for a log line; ``file`` replaces the run's file."""
        info = self._watched.get(uid, self._no_run)
        names = {"run": uid, **info.scan.named(), **({"element": info.element} if info.element else {})}
        return {**names, "file": file} if file else names

    def scan(self, uid: str) -> Scan:
        """Return the sample, number and file in the start of a watched run."""
        return self._watched.get(uid, self._no_run).scan

    def watch(self, info: RunInfo) -> None:
        """Take the start of a watched run; continue an earlier process's runs for it."""
        self._watched[info.uid] = info
        self._restore(info.uid, info.uid)

    def resume(self, past: Iterable[PastRun]) -> None:
        """Take the agent's runs of an earlier process; each continues when the start of its watched run is read."""
        for run in past:
            self._past.setdefault(str(run.start["parent_uid"]), []).append(run)
        self._restore("", "")

    def end_past(self) -> None:
        """End an earlier process's runs whose watched run was not read again."""
        for uid in list(self._past):
            _log.warning("run of the agent ended: its journal lacks the start of the watched run", run=uid)
            self._restore(uid, uid)
            for key in [k for k in self._runs if k[0] == uid]:
                self._runs.pop(key).close("abort", "the journal lacks the start of the watched run", watched=False)

    def open(self, uid: str, at: float, model: Estimator | None, past: PastRun | None = None) -> AgentRun:
        """Return the agent's run for a watched run and model; open it with the first result or note."""
        key = uid, model.name if model is not None else ""
        if key not in self._runs:
            watched = self._watched.get(uid, self._no_run)
            start = {"uid": uid, **watched.start}
            started = as_number(start.get("time"), texts=True)
            start["time"] = at if started is None else started
            if model is not None:
                _log.info("watching", model=model.name, sha256=model.sha256[:12], **self.names(uid))
            self._runs[key] = AgentRun(
                start, self._provenance(model), self._emit, spectra=self._spectra, scan=watched.scan, past=past
            )
        if self._held_notes:
            for note in self._held_notes.pop(uid, []) + self._held_notes.pop("", []):
                self._set_aside(self._runs[key], note)
        return self._runs[key]

    @property
    def newest(self) -> str | None:
        """Uid of the watched run that started last and has not ended; None if there is none."""
        return next(reversed(self._watched), None)

    def of(self, uid: str) -> AgentRun | None:
        """Return the first open run for a watched run."""
        return next((run for (watched, _), run in self._runs.items() if watched == uid), None)

    def note(self, note: SetAside) -> None:
        """Publish a note in its run, or hold it until the model of its watched run is known."""
        uid = "" if note.run_uid in self._ended else note.run_uid
        key = next((k for k in reversed(self._runs) if uid in (k[0], "")), None)
        if key is not None:
            self._set_aside(self._runs[key], note)
        elif (model := self._expected_model(uid)) is not None:
            self._set_aside(self.open(uid, note.time, model), note)
        else:
            self._held_notes.setdefault(uid, []).append(note)

    def end(self, uid: str, stop: Mapping[str, Any]) -> None:
        """End the runs for a watched run with the status of its RunStop, which is empty if it did not arrive."""
        if uid in self._held_notes:
            self.open(uid, self._held_notes[uid][0].time, None)
        self._watched.pop(uid, None)
        self._ended.append(uid)
        for key in [k for k in self._runs if k[0] == uid]:
            _close(self._runs.pop(key), stop)

    def give_up(self, uid: str) -> None:
        """Forget a watched run that another agent reads from its start, and end the agent's runs for it."""
        self._held_notes.pop(uid, None)
        self._watched.pop(uid, None)
        if uid in self._ended:
            self._ended.remove(uid)
        for key in [k for k in self._runs if k[0] == uid]:
            self._runs.pop(key).close("abort", "another agent answers the watched run", watched=False)

    def close(self, reason: str, *, with_notes: bool = True) -> None:
        """End all runs; publish or drop the notes on watched runs whose model is still unknown."""
        while self._held_notes and with_notes:
            uid, notes = next(iter(self._held_notes.items()))
            try:
                self.open(uid, notes[0].time, None)
            except Exception as error:
                _log.error("notes on a run not published", run=uid, notes=len(notes), exc_info=error)
                self._held_notes.pop(uid, None)
        runs, self._runs = self._runs, {}
        for (uid, _), run in runs.items():
            try:
                run.close("abort", reason, watched=False)
            except Exception as error:
                _log.error("run of the agent not ended", run=uid, exc_info=error)
        self._watched.clear()

    def memory(self) -> Memory:
        """Return the states of all runs."""
        return {key: state for run in self._runs.values() for key, state in run.memory().items()}

    def _restore(self, past_uid: str, uid: str) -> None:
        """Continue an earlier process's runs; end those with another config or model."""
        models = {model.name: model for model in self._models}
        for past in self._past.pop(past_uid, ()):
            model = models.get(past.start["model"]["name"])
            sha256 = model.sha256 if model is not None else ""
            same = (past.start["config_sha256"], past.start["model"]["sha256"]) == (self._config_sha256, sha256)
            run = self.open(uid, past.latest, model, past)
            if not same:
                self._runs.popitem()
                run.close("abort", "the agent goes on with another config or model, in another run", watched=False)

    def _provenance(self, model: Estimator | None) -> Provenance:
        if model is None:
            return Provenance("none", "", self._config_sha256, self._versions)
        return Provenance(
            model_name=model.name,
            model_sha256=model.sha256,
            config_sha256=self._config_sha256,
            versions=self._versions,
            element=model.absorber,
            edge=model.edge_name,
            hidden=frozenset() if self._show_single_site else model.single_site | model.hardly_known,
            units={**self._units, **model.units},
            grid=model.grid.energy,
        )

    def _expected_model(self, uid: str) -> Estimator | None:
        """Return the only model, or the only one for the element and edge in the RunStart or the config."""
        if len(self._models) == 1:
            return self._models[0]
        watched = self._watched.get(uid, self._no_run)
        matches = [m for m in self._models if m.absorber == watched.element and watched.edge in (None, m.edge_name)]
        return matches[0] if len(matches) == 1 else None


def _close(run: AgentRun, stop: Mapping[str, Any]) -> None:
    """End an agent's run with the exit status of its watched run."""
    if not stop:
        run.close("abort", "the watched run never stopped", watched=False)
        return
    stopped = as_number(stop.get("time"), texts=True)
    run.close(_text(stop.get("exit_status", "fail")), _text(stop.get("reason", "")), stopped)


def _text(value: Any) -> str:
    """Return a text unchanged, and the beginning of any other value, however deeply nested."""
    return value if isinstance(value, str) else reprlib.repr(value)
