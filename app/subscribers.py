"""Delivers the agent's documents: a bounded queue and a thread for each subscriber."""

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..adapters.answers import Confirmations
from ..agent.publish import events_of
from ..agent.types import Document, get_logger, size_of
from .inbox import RESERVE

_log = get_logger()

Callback = Callable[[str, dict[str, Any]], Any]
_Numbered = tuple[str, dict[str, Any], int, int]
"""A document with its size, bytes, and its number among the documents sent."""

_BLOCKED_S = 10.0
"""Duration of one call above which a subscriber counts as blocked, s; nobody waits for it any more."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class SubscriberState:
    """The queue and the losses of a subscriber."""

    name: str
    documents: int
    """Number of waiting documents."""
    bytes: int
    """Size of the waiting documents, bytes."""
    lost: int
    """Number of documents lost because the subscriber was too slow."""
    failed: int
    """Number of documents on which the subscriber raised."""


class Subscribers:
    """Sends each document to every subscriber, in order; a slow one does not delay the others. Thread-safe.

    Parameters
    ----------
    documents : largest number of documents that wait for one subscriber
    size : largest size of these documents, bytes
    """

    def __init__(self, documents: int, size: float) -> None:
        self._documents, self._size = documents, size
        self._lock = threading.Lock()
        self._tokens = itertools.count(1)
        self._subscribers: dict[int, _Subscriber] = {}
        """Subscribers by token. A change replaces the mapping, because other threads iterate over it."""
        self._sent = 0
        """Number of documents sent."""

    @property
    def delivered(self) -> int:
        """Number of leading documents that every subscriber has received or lost."""
        waiting = [subscriber.oldest for subscriber in self._subscribers.values()]
        return min([self._sent, *(number - 1 for number in waiting if number)])

    @property
    def sent(self) -> int:
        """Number of documents sent."""
        return self._sent

    @property
    def lost(self) -> int:
        """Number of documents that some subscriber was too slow for or raised on."""
        return sum(subscriber.lost for subscriber in self._subscribers.values())

    def add(self, fn: Callback, *, pages: bool = False) -> int:
        """Return the token of a new subscriber; without ``pages`` it receives the Events of an EventPage."""
        with self._lock:
            token = next(self._tokens)
            new = _Subscriber(fn, self._documents, self._size, pages=pages)
            self._subscribers = {**self._subscribers, token: new}
        return token

    def remove(self, token: int) -> None:
        """Remove a subscriber with its waiting documents; do not wait for a call in progress."""
        with self._lock:
            removed = self._subscribers.get(token)
            self._subscribers = {k: s for k, s in self._subscribers.items() if k != token}
        if removed is not None:
            removed.end(discard=True)
            removed.report()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        self.send([(name, doc)])

    def send(self, documents: Sequence[Document]) -> None:
        """Send documents in order; the thread of each subscriber is woken once for all."""
        if not documents:
            return
        numbered = [(name, doc, size_of(doc), number) for number, (name, doc) in enumerate(documents, self._sent + 1)]
        self._sent += len(documents)
        for subscriber in self._subscribers.values():
            subscriber.put(numbered)

    def calling(self) -> bool:
        """Return whether the current thread is inside a subscriber's call."""
        return any(subscriber.is_current() for subscriber in self._subscribers.values())

    def wait(self, until: float) -> bool:
        """Wait until the subscribers have received all documents so far or are blocked; return False after ``until``.

        Parameters
        ----------
        until : end of the wait, ``time.monotonic()``. A subscriber that calls this method does not wait for itself.
        """
        waited = [subscriber.wait(until) for subscriber in self._subscribers.values()]
        return all(waited)

    def states(self) -> list[SubscriberState]:
        """Return the state of each subscriber by name; a repeated name is followed by the token."""
        found = [(token, subscriber.state()) for token, subscriber in self._subscribers.items()]
        names = Counter(state.name for _, state in found)
        return [replace(s, name=f"{s.name} {token}") if names[s.name] > 1 else s for token, s in found]

    def close(self) -> None:
        """Deliver the waiting documents, end the threads, and count the losses of blocked subscribers."""
        for subscriber in self._subscribers.values():
            subscriber.end()
        self.wait(float("inf"))
        self.report()

    def report(self) -> None:
        """Log how many documents each subscriber did not receive."""
        for subscriber in self._subscribers.values():
            subscriber.report()


class _Subscriber:
    def __init__(self, fn: Callback, documents: int, size: float, *, pages: bool = False) -> None:
        self._fn, self._documents, self._size, self._pages = fn, documents, size, pages
        self._waiting: deque[_Numbered] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._put = self._delivered = 0
        """Number of documents put into the queue, and number removed for good."""
        self._lost = self._lost_now = 0
        """Number of documents lost in total, and since the subscriber last kept up."""
        self._failed = 0
        """Number of documents on which the subscriber raised."""
        self._calling_since: float | None = None
        self._calling = 0
        """Number of the document in the present call."""
        self._ending = False
        self._name = getattr(fn, "__qualname__", type(fn).__qualname__)
        self._confirmations: Confirmations | None = getattr(fn, "confirmations", None)
        """Confirmations of a broker; None if a document is delivered once the call has returned."""
        self._unconfirmed: deque[tuple[int, int]] = deque()
        """Number of each delivered document, with the number that the broker must have confirmed."""
        self._thread = threading.Thread(target=self._work, name=f"subscriber {self._name}", daemon=True)
        self._thread.start()

    @property
    def oldest(self) -> int:
        """Number of the oldest document not yet received; 0 if there is none or the subscriber is blocked.

        A broker's document counts as received once the broker has confirmed it, however long that takes.
        """
        with self._changed:
            if self._confirmations is not None:
                confirmed = self._confirmations.confirmed
                while self._unconfirmed and self._unconfirmed[0][1] <= confirmed:
                    self._unconfirmed.popleft()
                if self._unconfirmed:
                    return self._unconfirmed[0][0]
            if self._calling_since is not None:
                return 0 if self._blocked() and self._confirmations is None else self._calling
            return self._waiting[0][-1] if self._waiting else 0

    @property
    def lost(self) -> int:
        """Number of documents that the subscriber was too slow for or raised on."""
        return self._lost + self._failed

    def put(self, documents: Iterable[_Numbered]) -> None:
        with self._changed:
            if self._ending:
                return
            kept_up, empty = not self._lost_now, not self._waiting
            for document in documents:
                self._put_one(document)
            if empty:
                self._changed.notify_all()
            first = kept_up and self._lost_now > 0
        if first:
            _log.warning(
                "subscriber too slow: documents lost",
                waiting=len(self._waiting),
                detail="make it faster, or raise serving.subscriber_queue and serving.subscriber_queue_mb",
                subscriber=self._name,
            )

    def _put_one(self, document: _Numbered) -> None:
        name, doc, size, _ = document
        times = RESERVE if name not in ("event", "event_page") else 1
        full = len(self._waiting) >= times * self._documents or self._bytes >= times * self._size
        if full and self._waiting:
            lost = len(doc["seq_num"]) if name == "event_page" else 1
            self._lost += lost
            self._lost_now += lost
        else:
            self._waiting.append(document)
            self._bytes += size
            self._put += 1

    def wait(self, until: float) -> bool:
        if self.is_current():
            return True
        with self._changed:
            target = self._put
            while self._delivered < target and not self._blocked():
                if time.monotonic() > until:
                    return False
                self._changed.wait(_POLL_S)
        return True

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _blocked(self) -> bool:
        since = self._calling_since
        return since is not None and time.monotonic() - since > _BLOCKED_S

    def end(self, *, discard: bool = False) -> None:
        """End the thread after the delivery of the waiting documents or, with ``discard``, after the present call."""
        with self._changed:
            self._ending = True
            if discard:
                self._delivered += len(self._waiting)
                self._waiting.clear()
            self._changed.notify_all()

    def state(self) -> SubscriberState:
        with self._changed:
            return SubscriberState(self._name, len(self._waiting), self._bytes, self._lost, self._failed)

    def report(self) -> None:
        undelivered = self._put - self._delivered if not self.is_current() else 0
        if undelivered or self._lost or self._failed:
            lost = undelivered + self._lost
            _log.warning("documents not delivered", lost=lost, failed=self._failed, subscriber=self._name)

    def _work(self) -> None:
        while (document := self._next()) is not None:
            name, doc = document
            if name != "event_page" or self._pages:
                self._call(name, doc)
                continue
            for event in events_of(doc):
                self._call("event", event)

    def _next(self) -> Document | None:
        """Record that the last call has returned; wait for and return the next document, or None at the end."""
        with self._changed:
            if self._calling_since is not None:
                self._calling_since = None
                self._delivered += 1
                if self._confirmations is not None:
                    self._unconfirmed.append((self._calling, self._confirmations.sent))
                if not self._waiting:
                    self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._ending)
            if not self._waiting:
                return None
            name, doc, size, self._calling = self._waiting.popleft()
            self._bytes -= size
            caught_up = self._lost_now if len(self._waiting) <= self._documents // 2 else 0
            self._lost_now -= caught_up
            self._calling_since = time.monotonic()
        if caught_up:
            _log.warning("subscriber receives again", documents_lost=caught_up, subscriber=self._name)
        return name, doc

    def _call(self, name: str, doc: dict[str, Any]) -> None:
        try:
            self._fn(name, doc)
        except Exception:
            self._failed += 1
            if self._failed == 1:
                _log.exception("subscriber failed; later failures are counted", name=name, subscriber=self._name)
