"""Writes the agent's documents as runs into a Tiled catalogue."""

import copy
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from ...agent.types import Document, get_logger
from .server import Catalogue, one_line

log = get_logger()

NOT_WRITTEN = ("measured",)
"""Streams that are not written: the beamline's own runs in a catalogue hold the spectra as measured, and a scan with
another number of points would begin another table."""
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
"""Longest delay between attempts, s; each delay is twice the one before."""
_ATTEMPTS = 3
"""Number of attempts to write a run to a server that refuses it; an unreachable server is tried without limit."""


class TiledDestination(Catalogue):
    """A catalogue that receives the agent's runs."""

    batch: int = Field(default=1, ge=1)
    """Number of Events of a stream that are written together. 1 shows each frame at once; fast scans need more, since
    a request takes some 10 ms. The end of a run writes everything."""
    queue: int = Field(default=20_000, ge=1)
    """Largest number of documents that wait for the server; further ones are dropped and reported."""
    close_timeout_s: float = Field(default=10.0, ge=0)
    """Longest time for which the end of the agent waits until the last documents are written, s."""


@dataclass(slots=True, eq=False)
class _Run:
    """A run of the agent that is not completely written."""

    uid: str
    documents: list[Document]
    """Waiting documents, preceded by written ones that are held in case the run must be written again."""
    written: int = 0
    held: bool = True
    """Whether ``documents`` begins with the start of the run."""
    dropped: int = 0
    begun: bool = False
    """Whether the catalogue may contain a part of the run."""
    refused: int = 0
    """Number of failures while the server was reachable."""
    writer: Any = None
    layouts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Data keys and shapes of each stream, in the order of its descriptors."""

    @property
    def waiting(self) -> int:
        return len(self.documents) - self.written


class TiledSink:
    """Writes documents to a catalogue on a separate thread; a call returns at once and never raises.

    Documents wait while the server does not answer. A run that was interrupted is removed from the catalogue and
    written again from its start. Documents that cannot be written are reported once.

    Parameters
    ----------
    destination : TiledDestination
    """

    def __init__(self, destination: TiledDestination) -> None:
        self.destination = destination
        self.dropped = 0
        """Number of documents dropped because the queue was full."""
        self._runs: dict[str, _Run] = {}
        self._run_of: dict[str, str] = {}
        """Run of each descriptor."""
        self._changed = threading.Condition()
        """Guards the runs, which two threads use."""
        self._closing = threading.Event()
        self._until = float("inf")
        self._catalogue: Any = None
        self._outage = False
        self._thread: threading.Thread | None = None

    def connect(self) -> None:
        """Start to write; the server need not answer yet.

        Raises
        ------
        InputError
            The extra ``tiled`` is not installed.
        """
        if self._thread is None:
            self.destination.require_client()
            self._thread = threading.Thread(target=self._work, name="tiled", daemon=True)
            self._thread.start()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document."""
        if name == "descriptor" and doc["name"] in NOT_WRITTEN:
            return  # its Events are skipped too, since their run is then unknown
        if name == "stop" and "num_events" in doc:
            counts = {stream: count for stream, count in doc["num_events"].items() if stream not in NOT_WRITTEN}
            doc = {**doc, "num_events": counts}
        with self._changed:
            if name == "start":
                run = self._runs[doc["uid"]] = _Run(doc["uid"], [])
            else:
                run = self._runs.get(doc.get("run_start") or self._run_of.get(doc.get("descriptor", ""), ""))
            if run is None:  # given up
                return
            if name == "descriptor":
                self._run_of[doc["uid"]] = run.uid
            if name != "stop" and (run.dropped or not self._has_room()):
                self._drop(run)
                return
            run.documents.append((name, doc))
            self._changed.notify()

    def close(self) -> None:
        """Write the waiting documents, for at most ``close_timeout_s``, and report those that remain."""
        with self._changed:
            self._until = time.monotonic() + self.destination.close_timeout_s
            self._closing.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(self.destination.close_timeout_s)
            self._thread = None
        with self._changed:
            if waiting := sum(run.waiting for run in self._runs.values()):
                log.warning("not written to the catalogue", endpoint=self.destination.uri, documents=waiting)
            self._runs.clear()

    def _has_room(self) -> bool:
        if sum(len(run.documents) for run in self._runs.values()) < self.destination.queue:
            return True
        for run in self._runs.values():
            if run.written:
                del run.documents[: run.written]
                run.written, run.held = 0, False
        return sum(run.waiting for run in self._runs.values()) < self.destination.queue

    def _drop(self, run: _Run) -> None:
        self.dropped += 1
        run.dropped += 1
        if run.dropped == 1:
            log.warning(
                "the catalogue is too slow: the rest of the run is not written; a larger batch is faster",
                endpoint=self.destination.uri,
                run=run.uid,
            )
        if not run.documents and not run.written and not run.begun:
            del self._runs[run.uid]  # its start is dropped

    def _work(self) -> None:
        delay = _FIRST_DELAY_S
        while (run := self._next()) is not None:
            try:
                self._write(run)
                delay = _FIRST_DELAY_S
            except Exception as error:  # httpx and Tiled raise many types of exception
                self._prepare_another_attempt(run, error)
                if self._closing.is_set():
                    break
                self._closing.wait(delay)  # the last attempt follows if the sink closes meanwhile
                delay = min(2 * delay, _LONGEST_DELAY_S)
        if self._catalogue is not None:
            self._catalogue.context.http_client.close()

    def _next(self) -> _Run | None:
        """Return the oldest run with waiting documents; None if the sink closes and none waits or time is up."""

        def oldest() -> _Run | None:
            return next((run for run in self._runs.values() if run.waiting), None)

        with self._changed:
            self._changed.wait_for(lambda: oldest() is not None or self._closing.is_set())
            return oldest() if time.monotonic() < self._until else None

    def _write(self, run: _Run) -> None:
        """Write the next document of a run."""
        if self._catalogue is None or self._outage:
            self.destination.probe()
        if self._catalogue is None:
            self._catalogue = self.destination.open()
        writer = run.writer or self._begin(run)
        with self._changed:
            name, doc = run.documents[run.written]
        run.begun = True
        writer(name, _in_one_layout(run.layouts, name, doc))
        with self._changed:
            run.written += 1
            if name == "stop":
                self._forget(run)
        if self._outage:
            self._outage = False
            log.info("the catalogue is written again", endpoint=self.destination.uri)

    def _begin(self, run: _Run) -> Any:
        """Begin a run from its start; remove what an earlier attempt left in the catalogue."""
        from bluesky_tiled_plugins import TiledWriter

        if run.begun and run.uid in self._catalogue:
            self._catalogue.delete_contents(run.uid, recursive=True, external_only=False)
        run.layouts.clear()
        run.writer = TiledWriter(self._catalogue, batch_size=self.destination.batch)
        return run.writer

    def _prepare_another_attempt(self, run: _Run, error: Exception) -> None:
        """Prepare a run to begin again, or give it up."""
        if self._catalogue is not None and not _unreachable(error):
            run.refused += 1
        run.writer = None
        with self._changed:
            if (run.begun and not run.held) or run.refused >= _ATTEMPTS:
                self._forget(run)
                message = "the run is not, or not wholly, in the catalogue"
                log.warning(message, endpoint=self.destination.uri, run=run.uid, error=one_line(error))
                return
            run.written = 0
        if not self._outage:
            self._outage = True
            log.warning("catalogue not written; documents wait", endpoint=self.destination.uri, error=one_line(error))

    def _forget(self, run: _Run) -> None:
        self._runs.pop(run.uid, None)
        self._run_of = {descriptor: uid for descriptor, uid in self._run_of.items() if uid != run.uid}


def _unreachable(error: Exception) -> bool:
    """Return whether a server, or one behind a proxy, does not answer."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (502, 503, 504)
    return isinstance(error, OSError | httpx.TransportError)


def _in_one_layout(layouts: dict[str, list[dict[str, Any]]], name: str, doc: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a document in which a stream whose data keys change continues under another name.

    A stream is one table in the catalogue, and the columns of a table cannot change.
    """
    doc = copy.deepcopy(dict(doc))
    if name == "descriptor":
        keys = {key: value["shape"] for key, value in doc["data_keys"].items()}
        known = layouts.setdefault(doc["name"], [])
        if keys not in known:
            known.append(keys)
        if number := known.index(keys):
            doc["name"] = f"{doc['name']}_{number + 1}"
    return doc
