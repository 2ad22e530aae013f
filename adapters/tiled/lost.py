"""Reads documents that a live source lost from a catalogue, on a separate thread."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...agent.types import Document
from ..errors import EndpointUnreachable
from .account import RunAccount
from .documents import documents_of
from .server import begun, one_line, start_of, stopped
from .source import TiledEndpoint

_RECENT_RUNS = 20
"""Number of latest runs that are searched for an unknown descriptor."""


@dataclass(slots=True)
class Request:
    """The missing documents of a run, and the answer."""

    key: str
    """Uid of the run, or of a descriptor if the run is unknown."""
    account: RunAccount
    """The documents that have arrived; unchanged until the answer."""
    ends: Mapping[str, int]
    """Number up to which each series is requested; empty to read everything available."""
    documents: list[Document] = field(default_factory=list)
    """Start, descriptors, and documents that may be new; empty if the run is not found."""
    stop: dict[str, Any] | None = None
    """The stop, if the run is complete."""
    failure: str = ""
    """Why something is missing; empty if nothing is."""
    until: float = 0.0
    """``time.monotonic()`` at which the request is given up."""

    @property
    def run(self) -> str:
        """Uid of the run, once it is found."""
        return str(self.documents[0][1]["uid"]) if self.documents else self.key


@dataclass(frozen=True, slots=True)
class NewRuns:
    """Runs that began after a given time."""

    uids: list[str]


class LostDocuments:
    """Answers requests; one that cannot be answered yet is tried again until ``fill_s`` have passed.

    Parameters
    ----------
    endpoint : TiledEndpoint
    answer : callable
        Receives each Request when it is answered, and NewRuns; called from the thread of :meth:`work`.
    """

    def __init__(self, endpoint: TiledEndpoint, answer: Callable[[Request | NewRuns], None]) -> None:
        self._endpoint, self._answer = endpoint, answer
        self._catalogue: Any = None
        self._asked: queue.SimpleQueue[Request | float | None] = queue.SimpleQueue()
        self._closing = threading.Event()

    def connect(self) -> float:
        """Open the catalogue; return the start time of its newest run, 0 if it has none.

        Raises
        ------
        EndpointUnreachable
            No server answers within ``connect_timeout_s``, or the URI is not a catalogue.
        InputError
            The client is not installed.
        """
        self._endpoint.require_client()
        self._endpoint.wait(self._endpoint.connect_timeout_s, self._closing)
        try:
            self._catalogue = self._endpoint.open()
            return max((begun(start_of(run)) for run in self._latest(1)), default=0.0)
        except Exception as error:  # httpx and Tiled raise many types of exception
            raise EndpointUnreachable(self._endpoint.uri, one_line(error)) from None

    def ask(self, request: Request) -> None:
        """Take a request, from any thread."""
        request.until = time.monotonic() + self._endpoint.fill_s
        self._asked.put(request)

    def look_for_runs(self, since: float) -> None:
        """Let ``answer`` receive the runs that began after a time, Unix seconds."""
        self._asked.put(since)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._asked.put(None)

    def work(self) -> None:
        """Answer requests until ``close``."""
        pending: list[Request | float] = []
        while not self._closing.is_set():
            with suppress(queue.Empty):
                asked = self._asked.get(timeout=self._endpoint.poll_s if pending else None)
                pending += [] if asked is None else [asked]
            pending = [request for request in pending if not (self._closing.is_set() or self._answered(request))]
        self._catalogue.context.http_client.close()

    def _answered(self, request: Request | float) -> bool:
        """Try to answer; return whether the request is finished."""
        if not isinstance(request, Request):
            try:
                self._answer(NewRuns([uid for run in self._since(request) if (uid := _uid(run))]))
            except Exception:  # httpx and Tiled raise many types of exception
                return False  # the server may return
            return True
        try:
            request.failure = self._read(request)
        except Exception as error:
            request.failure = one_line(error)
        if request.failure and time.monotonic() < request.until:
            return False
        self._answer(request)
        return True

    def _read(self, request: Request) -> str:
        """Read a run's data from the catalogue; return in words what is missing."""
        run = self._find(request)
        if run is None:
            return "no such run"
        over = stopped(run)  # before its documents are requested
        documents = [(name, dict(doc)) for name, doc in documents_of(run, request.account.rows())]
        request.documents = documents
        stop = next((doc for name, doc in documents if name == "stop" and doc), None)
        request.stop = stop if over else None
        if over or request.account.reaches(documents, request.ends):
            return ""
        return f"no more than {len(documents)} documents of the run yet"

    def _find(self, request: Request) -> Any:
        """Return the run with the requested uid or descriptor; None if the catalogue has neither."""
        with suppress(KeyError):
            return self._catalogue[request.key]
        for run in self._latest(_RECENT_RUNS):
            if _uid(run) and any(doc.get("uid") == request.key for _, doc in documents_of(run, _NoRows())):
                return run
        return None

    def _latest(self, number: int) -> Any:
        return self._catalogue.sort(("start.time", -1)).values().head(number)

    def _since(self, time: float) -> Any:
        from tiled.queries import Comparison

        return self._catalogue.search(Comparison("gt", "start.time", time)).sort(("start.time", 1)).values()


class _NoRows(dict[str, int]):
    """Suppresses the reading of all Events."""

    def get(self, key: str, default: Any = None) -> Any:
        return 2**62


def _uid(run: Any) -> str:
    start = start_of(run)
    return "" if start.get("xas_agent") else str(start.get("uid") or "")
