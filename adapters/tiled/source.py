"""Reads documents of a Tiled catalogue of Bluesky runs, finished or still being written.

Arrays in files are not copied: the documents refer to the files, which ``assets`` reads.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from ...agent.types import REPLAYED_S, Document, get_logger
from ..errors import EndpointUnreachable
from .account import age_of
from .documents import documents_of
from .server import Catalogue, begun, one_line, start_of, stopped

log = get_logger()


_LOOK_BACK = 50
"""Number of latest runs, some of which may be in progress."""
_LONGEST_RUN_S = 86_400.0
"""Age, relative to the newest run, at which a run without a stop counts as broken off, s."""


class TiledEndpoint(Catalogue):
    """A catalogue of runs on a Tiled server."""

    past: int = Field(default=0, ge=0)
    """Number of the latest runs to read first. A run that is being written is always read from its beginning."""
    follow: bool = True
    """Whether to continue with runs that are being written and with new ones."""
    poll_s: float = Field(default=2.0, gt=0)
    """Interval at which the catalogue is checked, s."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Longest wait for the server's answer, s; 0 waits without limit."""
    fill_s: float = Field(default=10.0, ge=0)
    """Beside a ZMQ ``source``, whose later documents of a run then wait for lost ones: longest wait until the
    catalogue has these, s."""


@dataclass(slots=True)
class _Followed:
    """The documents of a run that have been yielded."""

    begun: float
    past: bool = False
    """Whether the run was over when the source began; no rule then decides on it, however recent it is."""
    seen: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    """Last announced row of each StreamDatum."""
    events: dict[str, int] = field(default_factory=dict)
    """Number of Events of each stream."""


class TiledSource:
    """The documents of a catalogue's runs, the oldest first; any thread may call ``close``.

    A run that is being written is requested every ``poll_s``, and its new documents are yielded; the delay also
    depends on the batches of its writer. Runs marked ``xas_agent`` are skipped.

    Parameters
    ----------
    endpoint : TiledEndpoint
    """

    def __init__(self, endpoint: TiledEndpoint) -> None:
        self.endpoint = endpoint
        self._catalogue: Any = None
        self._closing = threading.Event()
        self._open: dict[str, _Followed] = {}
        self._done: dict[str, float] = {}
        """Start times of completely yielded runs, as far back as runs are requested."""
        self._since = float("-inf")
        self.connected = False
        """Whether the catalogue answered the last request."""
        self.position: dict[str, Any] = {}
        """Change by the latest document: the yielded part of each run, by its uid; null: forgotten."""
        self._moved: dict[str, Any] = {}
        """Changes that the next document will report."""
        self.age_s = 0.0
        """Time since the latest document was recorded or, if it has no time, since the end of its run, s;
        ``REPLAYED_S`` for a past run."""

    def connect(self) -> None:
        """Open the catalogue.

        Raises
        ------
        EndpointUnreachable
            No server answers within ``connect_timeout_s``, or the URI is not a catalogue.
        InputError
            The client is not installed.
        """
        if self._catalogue is not None:
            return
        self.endpoint.require_client()
        self.endpoint.wait(self.endpoint.connect_timeout_s, self._closing)
        try:
            catalogue = self.endpoint.open()
            latest = catalogue.sort(("start.time", -1)).values().head(max(self.endpoint.past, _LOOK_BACK))
        except Exception as error:  # httpx and Tiled raise many types of exception
            raise EndpointUnreachable(self.endpoint.uri, one_line(error)) from None
        newest = max((begun(start_of(run)) for run in latest), default=0.0)
        for number, run in enumerate(latest):
            uid, at = str(start_of(run).get("uid")), begun(start_of(run))
            if number < self.endpoint.past or (not stopped(run) and newest - at < _LONGEST_RUN_S):
                self._open[uid] = _Followed(at, past=stopped(run))
            else:
                self._done[uid] = at
        self._forget_old_runs()
        self._catalogue = catalogue
        self.connected = True
        log.info("listening", endpoint=self.endpoint.uri, runs=len(catalogue))

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue with the runs that were in progress, and with those that began meanwhile.

        Documents that were yielded since the last complete reading of a run are yielded again.
        """
        if not position:
            return
        self._open, self._done = {}, {}  # runs found by connect may have ended unread
        for uid, (at, over, events, rows) in position.items():
            if over:
                self._done[uid] = at
            else:
                self._open[uid] = _Followed(at, rows=rows, events=events)
        self._forget_old_runs()

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close`` or, without ``follow``, until the end of the last run."""
        try:
            self.connect()
            yield from self._read()
        finally:
            if self._catalogue is not None:
                self._catalogue.context.http_client.close()

    def _read(self) -> Iterator[Document]:
        logged: set[str] = set()
        while not self._closing.is_set():
            failed: dict[str, str] = {}
            runs = []
            try:
                runs = self._runs()
            except Exception as error:  # the server may restart: try again
                failed["catalogue"] = one_line(error)
            self.connected = not failed
            for run in runs:
                if self._closing.is_set():
                    return
                try:
                    yield from self._new(run)
                except Exception as error:  # an incomplete run: try again later and continue with the others
                    failed[f"run {start_of(run).get('uid')}"] = one_line(error)
            for part, error in failed.items():
                write = log.debug if part in logged else log.warning
                write("not read", part=part, endpoint=self.endpoint.uri, error=error)
            logged = set(failed)
            if not self.endpoint.follow:
                if failed:
                    part, error = next(iter(failed.items()))
                    raise EndpointUnreachable(self.endpoint.uri, f"{part} not read: {error}")
                return
            self._closing.wait(self.endpoint.poll_s)

    def close(self) -> None:
        """End the iteration before the next document."""
        self._closing.set()

    def _runs(self) -> list[Any]:
        """Return the runs that may contain new documents, the oldest first."""
        from tiled.queries import Comparison

        runs = self._catalogue.sort(("start.time", 1))
        if self._since > float("-inf"):
            runs = runs.search(Comparison("ge", "start.time", self._since))
        return [run for run in runs.values() if str(start_of(run).get("uid")) not in self._done]

    def _new(self, run: Any) -> Iterator[Document]:
        """Yield the documents of a run that have not been yielded before."""
        start = start_of(run)
        uid, at = str(start.get("uid")), begun(start)
        followed = self._open.setdefault(uid, _Followed(at))
        over = stopped(run)  # before the documents are requested
        since_end_s = age_of(run.metadata["stop"]) if over else 0.0
        if not start.get("xas_agent"):
            for name, document in documents_of(run, followed.events):
                if self._closing.is_set():
                    return
                doc = dict(document)
                if name == "stop" and not (over and doc):
                    continue
                if name == "stream_datum":
                    doc = _further(doc, followed.rows)
                if doc and (key := f"{name}/{doc.get('uid')}") not in followed.seen:
                    followed.seen.add(key)
                    if name in ("start", "stream_datum", "stop"):
                        self._moved[uid] = [at, name == "stop", dict(followed.events), dict(followed.rows)]
                    self.position, self._moved = self._moved, {}
                    self.age_s = REPLAYED_S if followed.past else age_of(doc) or since_end_s
                    yield name, doc
        self._moved[uid] = [at, over, dict(followed.events), dict(followed.rows)]
        if over:
            del self._open[uid]
            self._done[uid] = at
            self._forget_old_runs()

    def _forget_old_runs(self) -> None:
        """Request only runs since the oldest one in progress, and forget earlier ones."""
        begins = [followed.begun for followed in self._open.values()]
        self._since = min(begins, default=max(self._done.values(), default=self._since))
        self._moved |= {uid: None for uid, begun in self._done.items() if begun < self._since}
        self._done = {uid: begun for uid, begun in self._done.items() if begun >= self._since}


def _further(doc: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Return a StreamDatum with only the rows that were not announced before; empty if there are none.

    The catalogue keeps one StreamDatum for all rows of a key, and its range grows with them.
    """
    uid, start, stop = doc["uid"], doc["indices"]["start"], doc["indices"]["stop"]
    known = rows.get(uid, start)
    if stop <= known:
        return {}
    rows[uid] = stop
    seq_nums = {"start": doc["seq_nums"]["start"] + known - start, "stop": doc["seq_nums"]["stop"]}
    return {**doc, "uid": f"{uid}/{known}", "indices": {"start": known, "stop": stop}, "seq_nums": seq_nums}
