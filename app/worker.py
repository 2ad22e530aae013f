"""The agent's thread: it moves documents from the inbox through the pipeline, and runs calls of other threads."""

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from ..adapters.kafka import KafkaSink
from ..adapters.nats import NATSSink
from ..agent.attempt import attempt
from ..agent.pipeline import Pipeline
from ..agent.types import Reason, Received, SetAside, get_logger
from .acknowledge import Acknowledgements
from .config import Config
from .delivery import Delivery
from .inbox import Inbox
from .journal import Journal
from .subscribers import Subscribers

_log = get_logger()

T = TypeVar("T")

_IDLE_POLL_S = 0.1
"""Interval at which new statuses of decisions are published while no document arrives, s."""
_QUIET_S = 1.0
"""Time without a document after which missing documents are given up, s."""
_DROPPED_NOTE_S = 1.0
"""Shortest time between two notes on dropped documents, s."""


class Worker:
    """Serves the documents of an inbox on a separate thread, until :meth:`end` is called.

    Parameters
    ----------
    config : Config
    inbox : Inbox
    pipeline : Pipeline
        Used by this thread alone, except for members that are safe for any thread.
    subscribers : Subscribers
    journal, delivery : Journal and Delivery, or None
        Store everything needed to continue after this process is killed.
    abandoned : threading.Event
        Set to end without answers to the documents taken.
    """

    def __init__(
        self,
        config: Config,
        inbox: Inbox,
        pipeline: Pipeline,
        subscribers: Subscribers,
        journal: Journal | None,
        delivery: Delivery | None,
        abandoned: threading.Event,
    ) -> None:
        self._config, self._inbox, self._pipeline, self._subscribers = config, inbox, pipeline, subscribers
        self._journal, self._delivery, self._abandoned = journal, delivery, abandoned
        self.live = True
        """Whether the source cannot wait, so that frames are left out under overload."""
        self.acknowledgements: Acknowledgements | None = None
        self.sinks: list[NATSSink | KafkaSink] = []
        """Sinks that must know the runs of an earlier process."""
        self.resources = ExitStack()
        """Resources to close together with the thread."""
        self.turn_at = time.monotonic()
        """``time.monotonic()`` at the beginning of the thread's last turn."""
        self._ending = threading.Event()
        self._reason = ""
        self._progress = threading.Condition()
        """Guards the counters and flags below, which several threads use."""
        self._served = self._failed = 0
        self._hurry = 0
        self._idle = True
        self._dropped_reported_at = -math.inf
        """``time.monotonic()`` of the newest note on dropped documents."""
        self._calls: queue.SimpleQueue[tuple[Callable[[Pipeline], Any], Future[Any]]] = queue.SimpleQueue()
        """Calls that other threads request on the pipeline."""
        self._thread = threading.Thread(target=self._work, name="xas-agent", daemon=True)

    def start(self) -> None:
        """Start the thread unless it was started before."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread has started and not ended."""
        return self._thread.is_alive()

    @property
    def ending(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._ending.is_set()

    def end(self, reason: str) -> None:
        """Take no more documents, and end the thread once the waiting ones are served.

        Parameters
        ----------
        reason : str
            Reason in the RunStops; the reason of the first call counts.
        """
        if not self._ending.is_set():
            self._reason = reason
            self._ending.set()
            self._inbox.close()

    def join(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` s for the end of the thread; return whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def perform(self, work: Callable[[Pipeline], T], timeout: float) -> T:
        """Call ``work`` on the agent's thread, from any other thread; see :meth:`XASAgent.perform`."""
        future: Future[T] = Future()
        self._calls.put((work, future))
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.cancel():
                raise
            return future.result()  # it has just begun

    @property
    def unserved(self) -> int:
        """Number of documents taken but not served: those that wait, and those that failed."""
        with self._progress:
            return self._inbox.taken - self._served + self._failed + self._pipeline.lost

    def wait(self, timeout: float | None) -> bool:
        """Wait until all documents taken so far are served and all decisions settled; False after the timeout."""
        with self._progress:
            target = self._inbox.taken
            self._hurry += 1
            try:
                return self._progress.wait_for(lambda: self._drained(target), timeout)
            finally:
                self._hurry -= 1

    def _drained(self, target: int) -> bool:
        return (self._served >= target and self._idle) or not self._thread.is_alive()

    def _work(self) -> None:
        self._resume()
        quiet_since = time.monotonic()
        while not (self._ending.is_set() and (not self._inbox or self._abandoned.is_set())):
            self.turn_at = time.monotonic()
            batch = self._gather()
            quiet_since = time.monotonic() if batch else quiet_since
            idle = failed = False
            try:
                self._perform_calls()
                self._prepare(now=not batch)
                if batch:
                    self._feed(batch)
                elif self._hurry or time.monotonic() - quiet_since > _QUIET_S:
                    self._pipeline.idle()
                else:
                    self._pipeline.feed(())
                idle = not self._pipeline.busy
            except Exception:
                _log.exception("documents not served", documents=len(batch))
                failed = True
                if batch and self.acknowledgements is not None:
                    self.acknowledgements.stop("served")
            attempt(self._acknowledge)
            with self._progress:
                self._served += len(batch) - (0 if failed else self._pipeline.unread)
                self._failed += len(batch) if failed else 0  # with those after a failure, which are not read again
                self._idle = idle
                self._progress.notify_all()
        self._prepare(now=True)
        attempt(lambda: self._pipeline.close(self._reason, handed_on=self.acknowledgements is not None))
        attempt(self._subscribers.close)
        attempt(self._acknowledge)
        if self._delivery is not None:
            attempt(self._delivery.close)
        attempt(self.resources.close)

    def _resume(self) -> None:
        """Continue where an earlier process ended."""
        if self._journal is None or self._delivery is None or self._ending.is_set():
            return
        try:
            for name, doc in self._journal.structure():
                for sink in self.sinks:
                    sink.know(name, doc)
            repeated = self._delivery.repeat()
            if self._config.kafka is not None:
                self._journal.give_up_undelivered()
            if self._config.shared is not None:
                self._journal.forget_events()
            self._pipeline.resume(self._journal.past(), self._journal.inputs())
            tiled = self._config.publish is not None and self._config.publish.tiled is not None
            if tiled and self._journal.resumed:
                _log.warning(
                    "runs of the agent in progress are not continued in the catalogue; documents.jsonl has them"
                )
            if self._journal.resumed:
                _log.info("resumed", documents_sent_again=repeated)
        except Exception:
            _log.exception("not resumed; what follows is served as new")

    def _gather(self) -> list[Received]:
        """Return the documents to serve together, gathered over at most the latency budget."""
        most = 1
        try:
            most = self._pipeline.plan(self._inbox.rows if self.live else 0)
        except Exception:
            _log.exception("no plan for the documents that wait: they are served one by one")
        batch = self._inbox.get(_IDLE_POLL_S, most)
        rows = sum(document.rows for document in batch)
        until = time.monotonic() + self._config.serving.latency_budget_ms / 1e3
        while batch and rows < most and time.monotonic() < until:
            more = self._inbox.get(0, most - rows)
            if not more:
                break
            batch += more
            rows += sum(document.rows for document in more)
        return batch

    def _perform_calls(self) -> None:
        while not self._calls.empty():
            work, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work(self._pipeline))
            except Exception as error:
                future.set_exception(error)

    def _prepare(self, *, now: bool) -> None:
        """Do the work that precedes a batch of documents."""
        attempt(self._give_up_runs)
        attempt(partial(self._report_dropped, now=now))

    def _give_up_runs(self) -> None:
        """Forget the runs that another agent has taken over."""
        if self.acknowledgements is not None and (runs := self.acknowledgements.take_given_up()):
            self._pipeline.give_up(runs)

    def _report_dropped(self, *, now: bool) -> None:
        """Report dropped documents, at most once a second unless ``now``."""
        if not now and time.monotonic() - self._dropped_reported_at < _DROPPED_NOTE_S:
            return
        if dropped := self._inbox.take_dropped():
            self._dropped_reported_at = time.monotonic()
            detail = f"{dropped} documents dropped: the queue of {self._inbox.bound} is full"
            self._pipeline.note(SetAside("", "", time.time(), Reason.QUEUE_FULL, detail, count=dropped))

    def _feed(self, batch: list[Received]) -> None:
        if self.acknowledgements is not None:
            batch = [*filter(self.acknowledgements.is_current, batch)]
        new = batch if self._journal is None else self._journal.accept(batch)
        self._pipeline.feed(new)
        if self.acknowledgements is not None:
            self.acknowledgements.add(batch, new)

    def _acknowledge(self) -> None:
        """Tell a shared source which documents have become safe."""
        ended = () if self._delivery is None else self._delivery.take_ended()
        if self.acknowledgements is not None:
            self.acknowledgements.send(ended)
