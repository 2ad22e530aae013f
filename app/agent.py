"""The agent as a callable: give it documents, it serves them on a thread of its own."""

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
from .wiring import _check_rules, frame_reader, load_models, tabulated, versions

_log = get_logger()

Callback = Callable[[str, dict[str, Any]], Any]
_IDLE_S = 0.1  # how soon a changed status of a decision is published when no document comes
_QUIET_S = 1.0  # after which documents that are still missing will not come


class XASAgent:
    """Watches documents and publishes what they mean.

    Call it with ``(name, doc)``: it returns at once and never raises. Its own documents go to every function given
    to :meth:`subscribe`, on the agent's thread, as a RunEngine would send them.

    Examples
    --------
    >>> from bluesky import RunEngine
    >>> from xas_agent import XASAgent
    >>> RE = RunEngine()
    >>> agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    >>> token = RE.subscribe(agent)
    >>> agent.close()
    """

    def __init__(self, config: Config, models: Sequence[Estimator], control: Control | None = None) -> None:
        _check_rules(config, models)
        self._config = config
        self._inbox: queue.Queue[Received] = queue.Queue(config.serving.queue)
        self._subscribing = threading.Lock()
        self._callbacks: dict[int, Callback] = {}
        """Replaced, never changed: the agent's thread iterates over it."""
        self._tokens = itertools.count(1)
        self._closed = threading.Event()
        self._progress = threading.Condition()
        """Guards the next three lines, which are all that other threads learn of the agent's own."""
        self._taken = self._served = self._dropped = 0
        self._hurry = 0
        self._idle = True
        self._reason = ""
        self.models = tuple(models)
        self._owned = ExitStack()
        """Sink and control that were made for the agent, closed with it."""
        self._pipeline = Pipeline(
            frame_reader(config),
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
            tabulated=tabulated(config, models),
        )
        self._thread = threading.Thread(target=self._work, name="xas-agent", daemon=True)
        self._thread.start()
        # A script that ends without closing still gets its run's stop document.
        atexit.register(self.close, 5.0)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | Config | None = None,
        *,
        RE: Any = None,
        control: Control | None = None,
    ) -> "XASAgent":
        """Connect what the config names, load its models and start.

        Parameters
        ----------
        config : YAML file, name of a shipped config, mapping, or None for the defaults
        RE : the RunEngine that decisions may act on, where ``control`` in the config enables them
        control : anything else that they may act on; without either, the config's ``control_endpoint``

        Raises
        ------
        InputError
            The config or a model cannot be used; before anything runs, with one message.
        EndpointUnreachable
            Nobody listens at the config's ``publish`` endpoint.
        """
        if not isinstance(config, Config):
            config = load_config(config)
        with ExitStack() as owned:
            sink = None
            if config.publish is not None:
                from ..adapters.zmq import ZMQSink

                sink = ZMQSink(config.publish)
                owned.callback(sink.close)
                sink.connect()  # before the models are loaded: a dead endpoint is told at once
            if RE is not None:
                from ..adapters.runengine import RunEngineControl

                control = RunEngineControl(RE)
            elif control is None and config.control_endpoint is not None:
                from ..adapters.zmq import ZMQControl

                control = ZMQControl(config.control_endpoint)
            if control is not None:
                owned.callback(control.close)
            agent = cls(config, load_models(config), control)
            agent._owned = owned.pop_all()
        if sink is not None:
            agent.subscribe(sink)
        return agent

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document; for any thread."""
        try:
            if self._closed.is_set():
                return
            document = Received(name, _own(doc) if name in ("event", "event_page") else doc, time.monotonic())
            with self._progress:
                try:
                    self._inbox.put_nowait(document)
                    self._taken += 1
                except queue.Full:
                    self._dropped += 1
        except Exception:
            # An exception here would end the user's plan.
            _log.exception("document not taken", name=name)

    def subscribe(self, fn: Callback) -> int:
        """Send the agent's own documents to ``fn(name, doc)``; gives a token for :meth:`unsubscribe`."""
        with self._subscribing:
            token = next(self._tokens)
            self._callbacks = {**self._callbacks, token: fn}
        return token

    def unsubscribe(self, token: int) -> None:
        """Stop sending documents to what ``subscribe`` gave this token for."""
        with self._subscribing:
            self._callbacks = {k: fn for k, fn in self._callbacks.items() if k != token}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every document taken so far is served and every decision settled.

        Documents that a stop announced and that have not come are given up. False if it takes more than
        ``timeout`` s, or when asked from one of the agent's own callbacks, which it would wait for.
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
        """Serve what is waiting, end the agent's runs (with ``reason``), stop the thread. Once."""
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
        self._owned.close()

    def _gather(self) -> list[Received]:
        """What is waiting now, until the latency budget of the first is spent."""
        try:
            batch = [self._inbox.get(timeout=_IDLE_S)]
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
            detail = f"{dropped} documents came faster than they were served; the queue holds {self._inbox.maxsize}"
            self._pipeline.note(SetAside("", "", time.time(), Reason.QUEUE_FULL, detail))

    def _emit(self, name: str, doc: dict[str, Any]) -> None:
        for fn in self._callbacks.values():
            try:
                fn(name, doc)
            except Exception:
                _log.exception("subscriber failed", name=name)


def _own(doc: dict[str, Any]) -> dict[str, Any]:
    """A copy of an event or page whose arrays are not its detector's: that may write the next spectrum into them."""
    data = doc.get("data")
    if not isinstance(data, dict):
        return doc
    return {**doc, "data": {k: _copied(v) for k, v in data.items()}}


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [_copied(v) for v in value]
    return value
