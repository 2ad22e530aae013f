"""A live source whose lost documents are read from a catalogue."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from cachetools import FIFOCache

from ...agent.types import Document, get_logger, size_of
from .account import RunAccount, age_of
from .lost import LostDocuments, NewRuns, Request
from .server import begun
from .source import TiledEndpoint

log = get_logger()

_POLL_S = 0.1
_MAX_RUNS = 1000
"""Number of runs to remember; the oldest are forgotten first."""
_MAX_HELD_BYTES = 64 * 2**20
"""Largest size of the documents that wait for lost ones, bytes; beyond it they no longer wait."""
_MAX_ASKED = 20
"""Number of latest runs in progress that are queried after an interruption."""
_VAIN_S = 60.0
"""Time during which a run's documents wait for no further lost ones, after the catalogue lacked some, s."""
_QUEUE = 1000
"""Number of live documents waiting to be yielded at which the live source itself must queue them."""


class LiveSource(Protocol):
    """A source that loses documents sent while it is not connected."""

    @property
    def connected(self) -> bool: ...

    def connect(self) -> None: ...

    def __iter__(self) -> Iterator[Document]: ...

    def close(self) -> None: ...


class FilledSource:
    """The documents of a live source, with those that it lost, which come from a catalogue of the same runs.

    A document is lost if its number, or its run's start or descriptor, has not arrived before a later one, or if it
    was sent while the source was not connected. The later documents of such a run wait until the catalogue has the
    lost ones, for at most ``fill_s``; those of other runs do not wait.

    Parameters
    ----------
    live : LiveSource
    endpoint : TiledEndpoint
        The catalogue. It must not contain runs of other publishers, which would be read after an interruption.
    """

    def __init__(self, live: LiveSource, endpoint: TiledEndpoint) -> None:
        self.live, self.endpoint = live, endpoint
        self.age_s = 0.0
        """Age of the latest document, s: since it was recorded, if it came from the catalogue; since it arrived, if
        it waited; otherwise 0."""
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lost = LostDocuments(endpoint, self._events.put)
        self._runs: FIFOCache[str, RunAccount] = FIFOCache(_MAX_RUNS)
        """Runs in progress."""
        self._ended: FIFOCache[str, bool] = FIFOCache(_MAX_RUNS)
        """Runs that ended, and whether their stop came from the catalogue, so that nothing is missing."""
        self._run_of: FIFOCache[str, str] = FIFOCache(20 * _MAX_RUNS)
        """Run of each descriptor and resource, by uid."""
        self._held: dict[str, deque[tuple[Document, float]]] = {}
        """Waiting documents with their arrival times, by run, or by descriptor while the run is unknown."""
        self._held_bytes = 0
        self._vain: FIFOCache[str, float] = FIFOCache(_MAX_RUNS)
        """``time.monotonic()`` until which no documents of a run wait, after the catalogue lacked some of them."""
        self._newest = 0.0
        """Start time of the newest run."""
        self._latest_run = ""
        self._closing = threading.Event()

    @property
    def connected(self) -> bool:
        """Whether the live source is connected."""
        return self.live.connected

    def connect(self) -> None:
        """Connect the live source, then open the catalogue.

        Raises
        ------
        EndpointUnreachable
            One of them does not answer.
        InputError
            Tiled's client is not installed.
        """
        self.live.connect()
        self._newest = max(self._newest, self._lost.connect())

    @property
    def position(self) -> Mapping[str, Any]:
        """Change by the latest document: the account of its run; null after its stop."""
        account = self._runs.get(self._latest_run)
        return {"newest": self._newest, f"run {self._latest_run}": None if account is None else account.state()}

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue after the document with this position, with everything that the catalogue received since."""
        if not position:
            return
        self._newest = position["newest"]
        for key, state in position.items():
            if key.startswith("run "):
                account = RunAccount.of(key.removeprefix("run "), state)
                self._runs[account.uid] = account
                self._run_of.update(dict.fromkeys([*account.streams, *account.keys], account.uid))
        self._ask_what_came(self._newest)

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close`` or the end of the live source."""
        self.connect()
        for work in (self._read_live, self._lost.work):
            threading.Thread(target=work, name=f"filled {work.__name__}", daemon=True).start()
        connected, ended, lost_after = True, False, self._newest
        try:
            while not self._closing.is_set() and not (ended and not self._held):
                was_connected, connected = connected, self.live.connected
                if was_connected and not connected:
                    lost_after = self._newest
                elif connected and not was_connected:
                    self._ask_what_came(lost_after)
                with suppress(queue.Empty):
                    event = self._events.get(timeout=_POLL_S)
                    ended = ended or event is None
                    yield from self._handle(event)
            while self._held:
                yield from self._let_go(next(iter(self._held)))
        finally:
            self.close()

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._closing.set()
        self._lost.close()
        self.live.close()

    def _read_live(self) -> None:
        try:
            for document in self.live:
                self._events.put((document, time.monotonic()))
                while self._events.qsize() > _QUEUE and not self._closing.wait(_POLL_S / 10):
                    pass
            self._events.put(None)
        except Exception as error:  # raised where the documents are yielded
            self._events.put(error)

    def _ask_what_came(self, since: float) -> None:
        """Query the catalogue for runs that began after a time, and for new data of the latest runs in progress."""
        self._lost.look_for_runs(since)
        for uid, account in list(self._runs.items())[-_MAX_ASKED:]:
            if uid not in self._held:
                self._ask(uid, account)

    def _handle(self, event: Any) -> Iterator[Document]:
        match event:
            case None:  # the live source ended
                pass
            case Exception():
                raise event
            case Request():
                yield from self._take_lost(event)
            case NewRuns():
                for uid in event.uids:
                    if uid not in self._runs and uid not in self._ended and uid not in self._held:
                        self._ask(uid, RunAccount(uid))
            case _:
                yield from self._take_live(*event)

    def _take_live(self, document: Document, at: float) -> Iterator[Document]:
        name, doc = document
        run = self._key(name, doc)
        account = self._runs.get(run)
        if self._ended.get(run) or (account is not None and account.was_filled(name, doc)):
            pass  # the catalogue supplied it
        elif run in self._held:
            self._hold(run, document, at)
        elif (
            name == "start"
            or not run
            or run in self._ended
            or (name != "stop" and time.monotonic() < self._vain.get(run, 0.0))
        ):
            yield from self._pass(run, document, at)
        elif account is None or not account.started:
            self._ask(run, RunAccount(run))
            self._hold(run, document, at)
        elif ends := account.missing_before(name, doc):
            self._ask(run, account, ends)
            self._hold(run, document, at)
        else:
            yield from self._pass(run, document, at)
        if self._held_bytes > _MAX_HELD_BYTES:
            log.warning("too many documents wait for lost ones, which are given up", run=run)
            yield from self._let_go(run)

    def _key(self, name: str, doc: Mapping[str, Any]) -> str:
        """Return the run of a document, or its descriptor if the run is unknown; empty if it names neither."""
        if name == "start":
            return str(doc.get("uid"))
        if "run_start" in doc:
            return str(doc["run_start"])
        if "descriptor" in doc:
            return self._run_of.get(str(doc["descriptor"]), str(doc["descriptor"]))
        return self._run_of.get(str(doc.get("resource")), "")

    def _in_vain(self, run: str) -> bool:
        """Return whether the catalogue recently lacked documents of a run."""
        return time.monotonic() < self._vain.get(run, 0.0)

    def _ask(self, key: str, account: RunAccount, ends: Mapping[str, int] | None = None) -> None:
        self._held[key] = deque()
        self._lost.ask(Request(key, account.copy(), ends or {}))

    def _hold(self, key: str, document: Document, at: float) -> None:
        self._held[key].append((document, at))
        self._held_bytes += size_of(document[1])

    def _take_lost(self, answer: Request) -> Iterator[Document]:
        """Yield the documents from the catalogue, then those that waited for them."""
        if answer.key not in self._held:
            return  # already given up
        run, count = answer.run, 0
        if answer.documents and run not in self._runs:
            self._runs[run] = RunAccount(run)
        for name, doc in answer.documents:
            if name != "stop" and (new := self._runs[run].fill(name, doc)) is not None:
                count += 1
                yield self._yielded(run, name, dict(new), age_of(new))
        if count:
            log.info("lost documents read from the catalogue", run=run, documents=count)
        if answer.failure:
            self._vain[answer.key] = self._vain[run] = time.monotonic() + _VAIN_S
            remedy = "let the writer of the catalogue send Events early, or raise tiled.fill_s"
            log.warning("lost documents are not in the catalogue", run=answer.key, why=answer.failure, detail=remedy)
        yield from self._let_go(answer.key)
        if answer.stop is not None and run in self._runs:
            self._ended[run] = True
            yield self._yielded(run, "stop", answer.stop, age_of(answer.stop))

    def _let_go(self, key: str) -> Iterator[Document]:
        """Yield the documents that waited; no lost ones are sought before the first of them."""
        held = self._held.pop(key, deque())
        run = self._key(*held[0][0]) if held else key
        if run in self._held:  # for example, the stop arrived while this descriptor's run was unknown
            self._held[run].extendleft(reversed(held))
            return
        self._held_bytes -= sum(size_of(doc) for (_, doc), _ in held)
        for number, ((name, doc), at) in enumerate(held):
            run = self._key(name, doc)
            account = self._runs.get(run)
            if number == 0 and not (account is not None and account.was_filled(name, doc)):
                yield from self._pass(run, (name, doc), at)
            else:
                yield from self._take_live((name, doc), at)

    def _pass(self, run: str, document: Document, at: float) -> Iterator[Document]:
        """Yield a live document."""
        name, doc = document
        if name == "start" or run in self._runs:
            self._runs.setdefault(run, RunAccount(run)).add(name, doc)
        waited_s = time.monotonic() - at
        yield self._yielded(run, name, doc, waited_s if waited_s > _POLL_S else 0.0)

    def _yielded(self, run: str, name: str, doc: dict[str, Any], age_s: float) -> Document:
        """Record the changes by a document, and return it."""
        self._latest_run, self.age_s = run, max(0.0, age_s)
        if name == "start":
            self._newest = max(self._newest, begun(doc))
        elif name in ("descriptor", "stream_resource", "resource"):
            self._run_of[str(doc.get("uid"))] = run
        elif name == "stop":
            self._runs.pop(run, None)
            self._ended.setdefault(run, False)
        return name, doc
