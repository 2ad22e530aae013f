"""The agent as a callable that takes documents and serves them on a separate thread."""

import atexit
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..adapters.kafka import KafkaSink
from ..adapters.nats import NATSSink
from ..adapters.zmq import ZMQSink
from ..agent.decide import Paused, Rules, Standing
from ..agent.pipeline import Pipeline
from ..agent.relative import anchor_of
from ..agent.types import Control, Decision, Estimator, SharedSource, get_logger
from ..models.lazy import LazyModel, Loading
from .acknowledge import Acknowledgements
from .config import Config, load_config
from .delivery import Delivery
from .inbox import Inbox
from .journal import Journal
from .output.data_frames import Results
from .output.history import History
from .subscribers import Callback, Subscribers, SubscriberState
from .wiring import (
    check_rules,
    control_of,
    descriptor_units,
    frame_reader,
    load_models,
    load_tables,
    publishers,
    relative_quantities,
    units_of,
    versions,
    warn_if_nobody_is_told,
    warn_if_unfenced,
)
from .worker import Worker

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_log = get_logger()

T = TypeVar("T")

KEPT = 10_000
"""Number of the latest frames that an agent keeps for the program in which it runs."""

CLOSED_EARLY = "the agent was closed before the run ended"
_EXIT_TIMEOUT_S = 5.0
"""Longest delay of the interpreter's exit by an agent that is not closed, s."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """What waits in an agent, and whether its thread goes on."""

    documents: int
    """Number of documents that wait for the agent."""
    bytes: int
    """Their size."""
    document_age_s: float | None
    """Time since the newest document came, s; None before the first one."""
    progress_age_s: float
    """Time since the agent's thread began its last turn, s; without documents a turn takes 0.1 s."""
    subscribers: list[SubscriberState]


class XASAgent:
    """Watches the documents of an experiment and publishes estimates and decisions as documents.

    A call with ``(name, doc)`` returns at once and never raises. The agent sends its own documents to each subscriber
    (:meth:`subscribe`) on a thread of its own, in order, in the form in which a RunEngine sends them. A subscriber
    that is slow or raises delays neither frames nor decisions nor the other subscribers.

    Parameters
    ----------
    config : Config
    models : sequence of Estimator
    control : Control, optional
        Receives the requests of decisions.
    journal : Journal, optional
        Keeps what is needed to go on after this process was killed. The agent then begins with :meth:`start`, and
        closes the journal.
    source : str, optional
        As for :meth:`from_config`.
    keep : int
        Number of the latest frames, decisions and notes that :attr:`results` has; 0 keeps none.

    Examples
    --------
    >>> from bluesky import RunEngine
    >>> from xas_agent import XASAgent
    >>> RE = RunEngine()
    >>> agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    >>> token = RE.subscribe(agent)
    >>> agent.close()
    True
    """

    def __init__(
        self,
        config: Config,
        models: Sequence[Estimator],
        control: Control | None = None,
        *,
        journal: Journal | None = None,
        source: str | None = None,
        keep: int = KEPT,
    ) -> None:
        check_rules(config, models)
        warn_if_nobody_is_told(config, control)
        warn_if_unfenced(config)
        serving = config.serving
        self._inbox = Inbox(serving.queue, serving.queue_mb * 1e6)
        self._subscribers = Subscribers(serving.subscriber_queue, serving.subscriber_queue_mb * 1e6)
        self._journal = journal
        self._delivery = None if journal is None else Delivery(journal, self._subscribers)
        self._history = History(keep)
        self._history.recorder.rules = tuple(config.rules)
        self.results = Results(self._history)
        """The latest frames, decisions and notes as tables, since this process began; from any thread."""
        self._emit = self._subscribers if self._delivery is None else self._delivery
        self._abandoned = threading.Event()
        self.models = tuple(models)
        relative = relative_quantities(config, models)
        self._pipeline = Pipeline(
            frame_reader(config, source),
            models,
            config.alignment,
            Rules(config.rules, units=units_of(config, models)),
            self._publish if keep else self._emit,
            controls=config.control,
            control=control,
            config_sha256=config.sha256,
            versions=versions(config.model.engine),
            spectra=serving.spectra,
            measured=serving.measured,
            pages=serving.pages,
            show_single_site=serving.single_site,
            max_batch=serving.max_batch,
            max_latency_s=serving.max_latency_s,
            relative=relative,
            tabulated=load_tables(config, models),
            abandoned=self._abandoned,
            committed=None if self._delivery is None else self._delivery.commit,
        )
        self._worker = Worker(
            config, self._inbox, self._pipeline, self._subscribers, journal, self._delivery, self._abandoned
        )
        if journal is None:
            self._worker.start()
        # Publishes the RunStop even if a script ends without ``close``.
        atexit.register(self.close, _EXIT_TIMEOUT_S)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | Config | None = None,
        *,
        RE: Any = None,
        control: Control | None = None,
        journal: Journal | None = None,
        source: str | None = None,
        keep: int = KEPT,
    ) -> "XASAgent":
        """Connect the endpoints of the config, load its models and start.

        The networks load while the agent already takes documents, except with ``model.device: cuda``. One that a
        frame needs loads at once.

        Parameters
        ----------
        config : str, Path, mapping, Config or None
            YAML file, name of a shipped config, or settings; None selects the defaults.
        RE : RunEngine, optional
            RunEngine on which decisions act, if ``control`` in the config enables them.
        control : Control, optional
            Control on which decisions act, instead of a RunEngine. Without both, the config's ``control_endpoint``
            or ``queue_server`` receives the requests. Those of a robot go to the config's ``robot``, if there is one.
        journal : Journal, optional
            As for the class.
        source : str, optional
            Source of the documents as ``xas-agent inspect`` takes it, for messages, if the config does not name it.
        keep : int
            As for the class.

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
            session = None if journal is None else str(journal.path.resolve().parent)
            control = control_of(config, RE, control, session)
            if control is not None:
                resources.callback(control.close)
            models = load_models(config, at_once=False)
            if lazy := [model for model in models if isinstance(model, LazyModel)]:
                resources.callback(Loading(lazy).close)
            agent = cls(config, models, control, journal=journal, source=source, keep=keep)
            agent._worker.resources = resources.pop_all()
        for sink in sinks:
            agent.subscribe(sink, pages=isinstance(sink, ZMQSink))
        agent._worker.sinks = [sink for sink in sinks if isinstance(sink, NATSSink | KafkaSink)]
        for sink in sinks:
            if isinstance(sink, KafkaSink) and config.kafka is not None:
                sink.holds = lambda run: False  # until runs are read
        return agent

    @property
    def live(self) -> bool:
        """Whether the source cannot wait. If it can, a call waits while many documents do, and every frame is
        answered."""
        return self._worker.live

    @live.setter
    def live(self, live: bool) -> None:
        self._worker.live = live

    def load_models(self) -> None:
        """Wait until the networks of all models are loaded."""
        for model in self.models:
            if isinstance(model, LazyModel):
                model.load(warm_up=True)

    def check_models(self) -> None:
        """Raise :class:`~xas_agent.models.card.ModelError` if a network could not be loaded; from any thread."""
        for model in self.models:
            if isinstance(model, LazyModel):
                model.check()

    def acknowledge_to(self, source: SharedSource) -> None:
        """Tell ``source`` which documents are safe. The agent needs a journal."""
        assert self._journal is not None
        self._worker.acknowledgements = Acknowledgements(source, self._journal, self._subscribers)
        sinks = [sink for sink in self._worker.sinks if isinstance(sink, KafkaSink)]
        for sink in sinks:
            sink.takeovers, sink.holds = lambda: source.takeovers, source.holds

        def hand_over() -> None:
            for sink in sinks:
                sink.hand_over()

        source.handing_over = hand_over

    def start(self) -> None:
        """Begin, if the agent has a journal.

        The subscribers must be known, because they receive first what they may lack.
        """
        self._worker.start()

    def __call__(
        self, name: str, doc: dict[str, Any], position: Mapping[str, Any] | None = None, age_s: float = 0.0
    ) -> None:
        """Take one document, from any thread.

        Parameters
        ----------
        name, doc : str, dict
        position : mapping, optional
            What changed in the position of a source that can go on from there after a restart.
        age_s : float
            Age of a document that waited elsewhere, s. It is then never dropped, and no rule decides on it if it is
            older than ``control.max_age_s``.
        """
        try:
            if self._worker.ending:
                return
            doc = _with_copied_arrays(doc) if name in ("event", "event_page") else doc
            self._inbox.put(name, doc, wait=not self.live or age_s > 0, position=position, age_s=age_s)
        except Exception:
            # An exception would end the user's plan.
            _log.exception("document not taken", name=name)

    def anchor(self, values: Mapping[str, float], sd: float = 0.02, series: str | None = None) -> None:
        """Declare the state of the newest answered frame as known, from any thread.

        The values of the following frames are then published on its footing too, as ``OS_anchored`` and the like. If
        no frame is answered yet, or the model does not know its spectrum, the next one is taken.

        Parameters
        ----------
        values : mapping
            Known values by descriptor, in its unit, as ``{"OS": 3.0}``.
        sd : float
            Their standard deviation.
        series : str or None
            Sample, or uid of the run if the sample is not named; None for that of the newest frame.

        Raises
        ------
        ConfigError
            There is no value, one is not finite, or its name is no descriptor of a loaded model.
        """
        anchor = anchor_of(values, sd, descriptor_units(self.models))
        self.perform(lambda pipeline: pipeline.anchor(series, anchor))

    def frame(self) -> "pd.DataFrame":
        """Return the latest answered frame as a table of one row; see :meth:`Results.frame`."""
        return self.results.frame()

    def series(self, sample: str | None = None, element: str | None = None) -> "pd.DataFrame":
        """Return the frames in the order of time, also those set aside; see :meth:`Results.series`."""
        return self.results.series(sample, element)

    def dataset(self, sample: str | None = None, element: str | None = None) -> "xr.Dataset":
        """Return the frames with their aligned spectra, and units; see :meth:`Results.dataset`."""
        return self.results.dataset(sample, element)

    def _publish(self, name: str, doc: dict[str, Any]) -> None:
        """Keep a document of the agent, and send it."""
        self._history(name, doc)
        self._emit(name, doc)

    @property
    def paused(self) -> Paused | None:
        """The pause that the agent requested of the experiment, until it is over; from any thread."""
        return self._pipeline.decisions.paused

    @property
    def unconfirmed(self) -> list[tuple[Decision, float]]:
        """Decisions that wait for a person, with the time that remains, s; from any thread."""
        return self._pipeline.decisions.unconfirmed

    @property
    def halted(self) -> str:
        """Who made an emergency stop, and why; empty if nobody did; from any thread."""
        return self._pipeline.decisions.halted

    @property
    def standing(self) -> tuple[Standing, ...]:
        """How the rules stand on the series of the newest frame; from any thread."""
        return self._pipeline.standing

    def perform(self, work: Callable[[Pipeline], T], timeout: float = 10.0) -> T:
        """Call ``work`` with the pipeline on the agent's thread; return what it returns, raise what it raises.

        Raises
        ------
        TimeoutError
            The agent did not come to it within ``timeout`` s, or has ended; it will not do it later.
        """
        return self._worker.perform(work, timeout)

    def halt(self, by: str, why: str = "") -> None:
        """Let no decision of a rule but to stop be sent; from any thread, also while the agent is busy."""
        self._pipeline.decisions.halt_at_once(by, why)

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and of the planned ones (0 if unknown)."""
        return self._pipeline.points

    def subscribe(self, fn: Callback, *, pages: bool = False) -> int:
        """Send the agent's documents to ``fn(name, doc)``; return a token for :meth:`unsubscribe`.

        Documents that a slow subscriber has not taken wait in a queue (``serving.subscriber_queue``). If it is full,
        this subscriber loses Events, which are counted and logged. With ``pages``, ``fn`` also takes EventPages, in
        which ``serving.pages`` publishes frames that come fast, and whose arrays it cannot change; else it receives
        their Events.
        """
        return self._subscribers.add(fn, pages=pages)

    def unsubscribe(self, token: int) -> None:
        """Stop sending documents to the subscriber with this token; it does not receive those that wait for it."""
        self._subscribers.remove(token)

    @property
    def unanswered(self) -> dict[str, int]:
        """Number of documents taken and not served, and of frames that were complete and not answered.

        Documents that still wait count, and documents that could not be served. Frames count that :meth:`abandon`
        gave up.
        """
        return {"documents": self._worker.unserved, "frames": self._pipeline.unanswered}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all documents taken so far are served, all decisions settled, and the results delivered.

        Documents that a RunStop announces but that are missing are given up. A subscriber that does not return from
        one call within 10 s is not waited for, nor is one that calls this method itself.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s; None waits without limit.

        Returns
        -------
        bool
            False after the timeout.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        return self._worker.wait(timeout) and self._subscribers.wait(until)

    @property
    def alive(self) -> bool:
        """Whether the agent's thread runs, or has ended because the agent was closed."""
        return self._worker.running or self._worker.ending

    @property
    def ending(self) -> bool:
        """Whether the agent was closed or abandoned, so that it takes no more documents."""
        return self._worker.ending

    def state(self) -> AgentState:
        """Return what waits in the agent at present; from any thread."""
        now, newest_at = time.monotonic(), self._inbox.newest_at
        return AgentState(
            documents=len(self._inbox),
            bytes=self._inbox.bytes,
            document_age_s=None if newest_at is None else now - newest_at,
            progress_age_s=now - self._worker.turn_at,
            subscribers=self._subscribers.states(),
        )

    def abandon(self, timeout: float | None = 2.0) -> bool:
        """Close the agent without answering what it has taken; the frames in progress may still be answered.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the thread, s; None waits without limit.

        Returns
        -------
        bool
            Whether the thread has ended.
        """
        self._abandoned.set()
        return self.close(timeout)

    def close(self, timeout: float | None = 30.0, reason: str = CLOSED_EARLY) -> bool:
        """Serve the waiting documents, end the agent's runs, deliver the results and stop the agent's threads.

        Further calls have no effect. What is not served or not delivered at the end is logged with its number.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the thread, s; None waits without limit. After 0 s, :meth:`ended` waits for it.
        reason : str
            Reason in the RunStops.

        Returns
        -------
        bool
            Whether the thread has ended.
        """
        self._worker.end(reason)
        atexit.unregister(self.close)
        if self._subscribers.calling():  # the agent's thread waits for the call to return
            return False
        self.start()
        if not self.ended(timeout) and timeout != 0:
            _log.warning("agent closed before it was done", unanswered=self.unanswered)
            self._subscribers.report()
        return self.ended(0)

    def ended(self, timeout: float | None) -> bool:
        """Wait for the end of the agent's thread after :meth:`close`; return whether it has ended.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s; None waits without limit.
        """
        return self._worker.join(timeout)

    def __enter__(self) -> "XASAgent":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_SCALARS = {float, int, bool, str, np.float64}


def _with_copied_arrays(doc: dict[str, Any]) -> dict[str, Any]:
    """Copy the arrays of an event or page, because a detector may overwrite them with its next spectrum."""
    data = doc.get("data") if isinstance(doc, dict) else None
    if not isinstance(data, dict):
        return doc
    copied = {**data}
    for key, value in data.items():
        if type(value) not in _SCALARS:
            copied[key] = _copy(value)
    return {**doc, "data": copied}


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [_copy(item) for item in value]
    return value
