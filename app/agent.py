"""The agent as a callable that takes documents and serves them on a separate thread."""

import atexit
import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..agent.decide import Rules
from ..agent.pipeline import Pipeline
from ..agent.types import Control, Estimator, Reason, Received, SetAside, get_logger
from .config import Config, load_config
from .wiring import check_rules, frame_reader, load_models, load_tables, publishers, versions

_log = get_logger()

Callback = Callable[[str, dict[str, Any]], Any]
_IDLE_POLL_S = 0.1
"""Interval at which changed statuses of decisions are published while no document arrives, s."""
_QUIET_S = 1.0
"""Time without a document after which missing documents are given up, s."""
_EXIT_TIMEOUT_S = 5.0
"""Longest delay of the interpreter's exit by an agent that is not closed, s."""


class XASAgent:
    """Watches the documents of an experiment and publishes estimates and decisions as documents.

    A call with ``(name, doc)`` returns at once and never raises. The agent sends its own documents to the subscribers
    (:meth:`subscribe`) on its own thread, in the form in which a RunEngine sends them.

    Parameters
    ----------
    config : Config
    models : sequence of Estimator
    control : Control, optional
        Receives the requests of decisions.
    source : str, optional
        As for :meth:`from_config`.

    Examples
    --------
    >>> from bluesky import RunEngine
    >>> from xas_agent import XASAgent
    >>> RE = RunEngine()
    >>> agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    >>> token = RE.subscribe(agent)
    >>> agent.close()
    """

    def __init__(
        self,
        config: Config,
        models: Sequence[Estimator],
        control: Control | None = None,
        *,
        source: str | None = None,
    ) -> None:
        check_rules(config, models)
        self._config = config
        self._inbox: queue.Queue[Received] = queue.Queue(config.serving.queue)
        self._subscribing = threading.Lock()
        self._callbacks: dict[int, Callback] = {}
        """By token. A change replaces the mapping, because the agent's thread iterates over it."""
        self._tokens = itertools.count(1)
        self._closed = threading.Event()
        self._progress = threading.Condition()
        """Guards the counters and flags below, which several threads use."""
        self._taken = self._served = self._dropped = 0
        self._hurry = 0
        self._idle = True
        self._reason = ""
        self.models = tuple(models)
        self._resources = ExitStack()
        """Sink and control that ``from_config`` creates; they are closed with the agent."""
        self._pipeline = Pipeline(
            frame_reader(config, source),
            models,
            config.alignment,
            Rules(config.rules, units={k: u for m in models for k, u in m.units.items()}),
            self._emit,
            controls=config.control,
            control=control,
            config_sha256=config.sha256,
            versions=versions(),
            spectra=config.serving.spectra,
            show_single_site=config.serving.single_site,
            max_batch=config.serving.max_batch,
            tabulated=load_tables(config, models),
        )
        self._thread = threading.Thread(target=self._work, name="xas-agent", daemon=True)
        self._thread.start()
        # Publishes the RunStop even if a script ends without ``close``.
        atexit.register(self.close, _EXIT_TIMEOUT_S)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | Config | None = None,
        *,
        RE: Any = None,
        control: Control | None = None,
        source: str | None = None,
    ) -> "XASAgent":
        """Connect the endpoints of the config, load its models and start.

        Parameters
        ----------
        config : str, Path, mapping, Config or None
            YAML file, name of a shipped config, or settings; None selects the defaults.
        RE : RunEngine, optional
            RunEngine on which decisions act, if ``control`` in the config enables them.
        control : Control, optional
            Control on which decisions act, instead of a RunEngine. Without both, the config's ``control_endpoint``
            receives the requests.
        source : str, optional
            Source of the documents as ``xas-agent inspect`` takes it, for messages, if the config does not name it.

        Returns
        -------
        XASAgent

        Raises
        ------
        InputError
            The config or a model is invalid.
        EndpointUnreachable
            Nothing subscribes to the ZMQ endpoint of the config's ``publish`` in time.
        """
        if not isinstance(config, Config):
            config = load_config(config)
        with ExitStack() as resources:
            sinks = publishers(config)
            for sink in sinks:
                resources.callback(sink.close)
                sink.connect()  # before the models load, so that a dead endpoint fails early
            if RE is not None:
                from ..adapters.runengine import RunEngineControl

                control = RunEngineControl(RE)
            elif control is None and config.control_endpoint is not None:
                from ..adapters.zmq import ZMQControl

                control = ZMQControl(config.control_endpoint)
            if control is not None:
                resources.callback(control.close)
            agent = cls(config, load_models(config), control, source=source)
            agent._resources = resources.pop_all()
        for sink in sinks:
            agent.subscribe(sink)
        return agent

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document, from any thread."""
        try:
            if self._closed.is_set():
                return
            doc = _with_copied_arrays(doc) if name in ("event", "event_page") else doc
            document = Received(name, doc, time.monotonic())
            with self._progress:
                try:
                    self._inbox.put_nowait(document)
                    self._taken += 1
                except queue.Full:
                    self._dropped += 1
        except Exception:
            # An exception would end the user's plan.
            _log.exception("document not taken", name=name)

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and of the planned ones (0 if unknown)."""
        return self._pipeline.points

    def subscribe(self, fn: Callback) -> int:
        """Send the agent's documents to ``fn(name, doc)``; return a token for :meth:`unsubscribe`."""
        with self._subscribing:
            token = next(self._tokens)
            self._callbacks = {**self._callbacks, token: fn}
        return token

    def unsubscribe(self, token: int) -> None:
        """Stop sending documents to the subscriber with this token."""
        with self._subscribing:
            self._callbacks = {k: fn for k, fn in self._callbacks.items() if k != token}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all documents taken so far are served and all decisions are settled.

        Documents that a RunStop announces but that are missing are given up.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s; None waits without limit.

        Returns
        -------
        bool
            False after the timeout, or if a subscriber calls this method on the agent's thread.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._progress:
            target = self._taken
            self._hurry += 1
            try:
                return self._progress.wait_for(lambda: self._drained(target), timeout)
            finally:
                self._hurry -= 1

    def close(self, timeout: float | None = 30.0, reason: str = "the agent was closed before the run ended") -> None:
        """Serve the waiting documents, end the agent's runs and stop its thread; further calls have no effect.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the thread, s; None waits without limit.
        reason : str
            Reason in the RunStops.
        """
        if not self._closed.is_set():
            self._reason = reason
            self._closed.set()
        atexit.unregister(self.close)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _drained(self, target: int) -> bool:
        return (self._served >= target and self._idle) or not self._thread.is_alive()

    def __enter__(self) -> "XASAgent":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _work(self) -> None:
        quiet_since = time.monotonic()
        while not (self._closed.is_set() and self._inbox.empty()):
            batch = self._gather()
            quiet_since = time.monotonic() if batch else quiet_since
            idle = False
            try:
                self._report_dropped()
                if batch:
                    self._pipeline.feed(batch)
                elif self._hurry or time.monotonic() - quiet_since > _QUIET_S:
                    self._pipeline.idle()
                else:
                    self._pipeline.feed(())
                idle = not self._pipeline.busy
            except Exception:
                _log.exception("documents not served", documents=len(batch))
            with self._progress:
                self._served += len(batch)
                self._idle = idle
                self._progress.notify_all()
        try:
            self._pipeline.close(self._reason)
        except Exception:
            _log.exception("agent's runs not closed")
        self._resources.close()

    def _gather(self) -> list[Received]:
        """Return the waiting documents, gathered for at most the latency budget."""
        try:
            batch = [self._inbox.get(timeout=_IDLE_POLL_S)]
        except queue.Empty:
            return []
        until = time.monotonic() + self._config.serving.latency_budget_ms / 1e3
        while time.monotonic() < until:
            try:
                batch.append(self._inbox.get_nowait())
            except queue.Empty:
                break
        return batch

    def _report_dropped(self) -> None:
        if self._dropped:
            with self._progress:
                dropped, self._dropped = self._dropped, 0
            detail = f"{dropped} documents dropped: the queue of {self._inbox.maxsize} documents is full"
            self._pipeline.note(SetAside("", "", time.time(), Reason.QUEUE_FULL, detail))

    def _emit(self, name: str, doc: dict[str, Any]) -> None:
        for fn in self._callbacks.values():
            try:
                fn(name, doc)
            except Exception:
                _log.exception("subscriber failed", name=name)


def _with_copied_arrays(doc: dict[str, Any]) -> dict[str, Any]:
    """Copy the arrays of an event or page, because a detector may overwrite them with its next spectrum."""
    data = doc.get("data") if isinstance(doc, dict) else None
    if not isinstance(data, dict):
        return doc
    return {**doc, "data": {key: _copy(value) for key, value in data.items()}}


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [_copy(item) for item in value]
    return value
