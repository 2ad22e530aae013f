"""The agent as a callable: it takes documents and serves them on a separate thread."""

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
"""Number of latest frames that an agent keeps for its host program."""

CLOSED_EARLY = "the agent was closed before the run ended"
_EXIT_TIMEOUT_S = 5.0
"""Longest delay of the interpreter's exit by an agent that was not closed, s."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """The queue of an agent, and the progress of its thread."""

    documents: int
    """Number of waiting documents."""
    bytes: int
    """Size of the waiting documents, bytes."""
    document_age_s: float | None
    """Time since the newest document arrived, s; None before the first one."""
    progress_age_s: float
    """Time since the agent's thread began its last turn, s; without documents, a turn takes 0.1 s."""
    subscribers: list[SubscriberState]


class XASAgent:
    """Watches the documents of an experiment and publishes estimates and decisions as documents.

    A call with ``(name, doc)`` returns at once and never raises. The agent sends its own documents to each subscriber
    (:meth:`subscribe`) on a separate thread, in order, in the form in which a RunEngine sends them. A slow or failing
    subscriber delays neither frames nor decisions nor the other subscribers.

    Parameters
    ----------
    config : Config
    models : sequence of Estimator
    control : Control, optional
        Receives the requests of decisions.
    journal : Journal, optional
        Stores everything that the agent needs to continue after this process is killed. The agent then begins with
        :meth:`start`, and closes the journal.
    source : str, optional
        As for :meth:`from_config`.
    keep : int
        Number of latest frames, decisions and notes in :attr:`results`; 0 keeps none.
    limit : int, optional
        Number of frames to answer or set aside; :attr:`full` then says that the others are not answered.

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
        limit: int | None = None,
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
        """The latest frames, decisions and notes of this process as tables; safe to read from any thread."""
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
            limit=limit,
        )
        self._worker = Worker(
            config, self._inbox, self._pipeline, self._subscribers, journal, self._delivery, self._abandoned
        )
        if journal is None:
            self._worker.start()
        # Publishes the RunStop even if a script ends without a call of ``close``.
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
        limit: int | None = None,
    ) -> "XASAgent":
        """Connect the endpoints of the config, load its models and start.

        The networks load while the agent already takes documents, except with ``model.device: cuda``. A network that
        a frame needs loads at once.

        Parameters
        ----------
        config : str, Path, mapping, Config or None
            YAML file, name of a shipped config, or settings; None selects the defaults.
        RE : RunEngine, optional
            RunEngine that decisions act on, if ``control`` in the config enables them.
        control : Control, optional
            Control that decisions act on, instead of a RunEngine. Without both, the config's ``control_endpoint``
            or ``queue_server`` receives the requests. Requests to a robot go to the config's ``robot``, if there is
            one.
        journal : Journal, optional
            As for the class.
        source : str, optional
            Source of the documents as ``xas-agent inspect`` takes it, for messages, if the config does not name it.
        keep, limit : int
            As for the class.

        Returns
        -------
        XASAgent

        Raises
        ------
        InputError
            The config or a model is invalid.
        EndpointUnreachable
            Nothing subscribes in time to the ZMQ endpoint in the config's ``publish``.
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
            agent = cls(config, models, control, journal=journal, source=source, keep=keep, limit=limit)
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
        """Whether the source cannot wait. If it can, a call blocks while many documents wait, and every frame is
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
        """Tell ``source`` which documents are safe; the agent must have a journal."""
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
        """Start the thread of an agent with a journal.

        The subscribers must be known by then, because they first receive documents that they may lack.
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
            Change in the position of a source that can continue from there after a restart.
        age_s : float
            Age of a document that waited elsewhere, s. Such a document is never dropped, and no rule decides on it if
            it is older than ``control.max_age_s``.
        """
        try:
            if self._worker.ending:
                return
            doc = _with_copied_arrays(doc) if name in ("event", "event_page") else doc
            self._inbox.put(name, doc, wait=not self.live or age_s > 0, position=position, age_s=age_s)
        except Exception:
            # An exception here would end the user's plan.
            _log.exception("document not taken", name=name)

    def anchor(self, values: Mapping[str, float], sd: float = 0.02, series: str | None = None) -> None:
        """Declare the state of the newest answered frame as known, from any thread.

        The agent then also publishes the values of the following frames relative to it, for example as
        ``OS_anchored``. If no frame is answered yet, or the newest is unfamiliar to the model, the next frame counts.

        Parameters
        ----------
        values : mapping
            Known values by descriptor, in its unit, for example ``{"OS": 3.0}``.
        sd : float
            Standard deviation of the known values, in their units.
        series : str or None
            Sample, or uid of the run if the sample is not named; None for the series of the newest frame.

        Raises
        ------
        ConfigError
            There is no value, a value is not finite, or a name is not a descriptor of a loaded model.
        """
        anchor = anchor_of(values, sd, descriptor_units(self.models))
        self.perform(lambda pipeline: pipeline.anchor(series, anchor))

    def frame(self) -> "pd.DataFrame":
        """Return the latest answered frame as a table of one row; see :meth:`Results.frame`."""
        return self.results.frame()

    def series(self, sample: str | None = None, element: str | None = None) -> "pd.DataFrame":
        """Return the frames, including those set aside, in the order of time; see :meth:`Results.series`."""
        return self.results.series(sample, element)

    def dataset(self, sample: str | None = None, element: str | None = None) -> "xr.Dataset":
        """Return the frames with their aligned spectra and units; see :meth:`Results.dataset`."""
        return self.results.dataset(sample, element)

    def _publish(self, name: str, doc: dict[str, Any]) -> None:
        """Store a document of the agent, and send it."""
        self._history(name, doc)
        self._emit(name, doc)

    @property
    def paused(self) -> Paused | None:
        """The pause that the agent requested, until it is over; safe to read from any thread."""
        return self._pipeline.decisions.paused

    @property
    def unconfirmed(self) -> list[tuple[Decision, float]]:
        """Decisions that wait for a person, with the time left, s; safe to read from any thread."""
        return self._pipeline.decisions.unconfirmed

    @property
    def halted(self) -> str:
        """Who made an emergency stop, and why; empty if nobody did. Safe to read from any thread."""
        return self._pipeline.decisions.halted

    @property
    def standing(self) -> tuple[Standing, ...]:
        """How the rules stand on the series of the newest frame; safe to read from any thread."""
        return self._pipeline.standing

    def perform(self, work: Callable[[Pipeline], T], timeout: float = 10.0) -> T:
        """Call ``work`` with the pipeline on the agent's thread; return its result or raise its exception.

        Raises
        ------
        TimeoutError
            The agent did not begin the call within ``timeout`` s, or has ended; it will not make the call later.
        """
        return self._worker.perform(work, timeout)

    def halt(self, by: str, why: str = "") -> None:
        """Allow the rules only to stop from now on; from any thread, even while the agent is busy."""
        self._pipeline.decisions.halt_at_once(by, why)

    @property
    def full(self) -> bool:
        """Whether as many frames as the limit are answered or set aside; safe to read from any thread."""
        return self._pipeline.full

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and its planned number (0 if unknown)."""
        return self._pipeline.points

    def subscribe(self, fn: Callback, *, pages: bool = False) -> int:
        """Send the agent's documents to ``fn(name, doc)``; return a token for :meth:`unsubscribe`.

        Documents wait for a slow subscriber in a queue (``serving.subscriber_queue``). If it is full, this subscriber
        loses Events, which are counted and logged. With ``pages``, ``fn`` also takes EventPages with read-only
        arrays, in which ``serving.pages`` publishes frames that arrive fast; otherwise it receives their Events.
        """
        return self._subscribers.add(fn, pages=pages)

    def unsubscribe(self, token: int) -> None:
        """Stop sending documents to the subscriber with this token; documents that wait for it are dropped."""
        self._subscribers.remove(token)

    @property
    def unanswered(self) -> dict[str, int]:
        """Number of documents taken but not served, and of complete frames that were not answered.

        The documents include those that still wait and those that could not be served; the frames include those that
        :meth:`abandon` gave up.
        """
        return {"documents": self._worker.unserved, "frames": self._pipeline.unanswered}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all documents taken so far are served, all decisions settled, and the results delivered.

        Missing documents that a RunStop announces are given up. The method does not wait for a subscriber whose call
        takes longer than 10 s, nor for one that itself calls this method.

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
        """Whether the agent's thread runs, or ended because the agent was closed."""
        return self._worker.running or self._worker.ending

    @property
    def ending(self) -> bool:
        """Whether the agent was closed or abandoned, so that it takes no further documents."""
        return self._worker.ending

    def state(self) -> AgentState:
        """Return the queue and the progress of the agent; safe to call from any thread."""
        now, newest_at = time.monotonic(), self._inbox.newest_at
        return AgentState(
            documents=len(self._inbox),
            bytes=self._inbox.bytes,
            document_age_s=None if newest_at is None else now - newest_at,
            progress_age_s=now - self._worker.turn_at,
            subscribers=self._subscribers.states(),
        )

    def abandon(self, timeout: float | None = 2.0) -> bool:
        """Close the agent without answering the documents taken; frames in progress may still be answered.

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

        Further calls have no effect. The log states how many documents were not served or delivered at the end.

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
        if self._subscribers.calling():  # the agent's thread waits for this call to return
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
    """Copy the arrays of an Event or page, because a detector may overwrite them with its next spectrum."""
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
