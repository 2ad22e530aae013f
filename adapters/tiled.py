"""Documents out of a Tiled catalogue of Bluesky runs: what it holds, and what is being written into it.

A run's documents are rebuilt by bluesky-tiled-plugins, which the server has to export them with::

    media_types:
      BlueskyRun: {application/json-seq: "bluesky_tiled_plugins.exporters:json_seq_exporter"}

Arrays in files stay there: the documents point to them, and they are read where they are (``assets``).
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, field_validator

from ..agent.types import Document, InputError, Settings, get_logger
from .errors import EndpointUnreachable

log = get_logger()

SCHEMES = ("tiled", "http", "https")
_PORTS = {"http": 80, "https": 443}


class TiledEndpoint(Settings):
    """A catalogue of runs on a Tiled server."""

    uri: str
    """``tiled://HOST:PORT/PATH``, with the path within the server; or the http(s) URI that the client shows."""
    past: int = Field(default=0, ge=0)
    """Number of the latest runs to read first. A run that is being written is always read from its beginning."""
    follow: bool = True
    """Whether to continue with runs that are being written and with new ones."""
    poll_s: float = Field(default=2.0, gt=0)
    """Interval at which the catalogue is checked, s."""
    api_key_from: str = "TILED_API_KEY"
    """Environment variable that holds the API key; if it is not set, no key is sent."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Time to wait until the server answers, s; 0 waits for ever."""

    @field_validator("uri")
    @classmethod
    def _is_a_uri(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError("tiled://HOST:PORT/PATH, or an http or https URI")
        return uri

    @property
    def http_uri(self) -> str:
        """As Tiled's client takes it.

        >>> TiledEndpoint(uri="tiled://localhost:8000/bmm/raw").http_uri
        'http://localhost:8000/api/v1/metadata/bmm/raw'
        """
        parts = urlsplit(self.uri)
        if parts.scheme != "tiled":
            return self.uri
        return urlunsplit(("http", parts.netloc, "/api/v1/metadata/" + parts.path.strip("/"), "", ""))


@dataclass(slots=True)
class _Followed:
    """What of a run has been given out."""

    begun: float
    seen: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    """Up to which row each StreamDatum has been announced."""


class TiledSource:
    """The runs of a catalogue, oldest first; ``close`` may be called from any thread.

    A run that is being written is asked for anew every ``poll_s``, and what is new in it given out; how soon that
    is depends on its writer's batches too. Runs marked ``xas_agent`` are passed over.
    """

    def __init__(self, endpoint: TiledEndpoint) -> None:
        self.endpoint = endpoint
        self._catalogue: Any = None
        self._closing = threading.Event()
        self._open: dict[str, _Followed] = {}
        self._done: dict[str, float] = {}
        """When runs began that are given out, as far back as is asked for."""
        self._since = float("-inf")

    def connect(self) -> None:
        """Open the catalogue.

        Raises:
            EndpointUnreachable: nothing answers within ``connect_timeout_s``, or it is no catalogue.
            InputError: the client is not installed.
        """
        if self._catalogue is not None:
            return
        try:
            import bluesky_tiled_plugins  # noqa: F401  registers the client of a run
            from tiled.client import from_uri
        except ImportError as error:
            raise InputError(
                f"{self.endpoint.uri}: reading a Tiled catalogue needs {error.name}: pip install 'xas-agent[tiled]'"
            ) from None
        self._wait_for_server()
        try:
            catalogue = from_uri(self.endpoint.http_uri, api_key=os.environ.get(self.endpoint.api_key_from) or None)
            latest = catalogue.sort(("start.time", -1)).values().head(max(self.endpoint.past, 1))
        except Exception as error:  # whatever httpx and Tiled raise
            raise EndpointUnreachable(self.endpoint.uri, _line(error)) from None
        for run in latest:
            start = _start(run)
            self._since = min(_time(start), self._since if self._since > float("-inf") else float("inf"))
            if self.endpoint.past == 0 and _stopped(run):
                self._done[str(start.get("uid"))] = _time(start)
        self._catalogue = catalogue
        log.info("listening", endpoint=self.endpoint.uri, runs=len(catalogue))

    def __iter__(self) -> Iterator[Document]:
        """Yield documents until ``close``, or, not following, until there are no more."""
        try:
            self.connect()
            yield from self._read()
        finally:
            if self._catalogue is not None:
                self._catalogue.context.http_client.close()

    def _read(self) -> Iterator[Document]:
        told: set[str] = set()
        while not self._closing.is_set():
            failed: dict[str, str] = {}
            runs = []
            try:
                runs = self._runs()
            except Exception as error:  # a server that restarts: asked again
                failed["catalogue"] = _line(error)
            for run in runs:
                if self._closing.is_set():
                    return
                try:
                    yield from self._new(run)
                except Exception as error:  # half written, or none: asked for again, and the others go on
                    failed[f"run {_start(run).get('uid')}"] = _line(error)
            for what, error in failed.items():
                say = log.debug if what in told else log.warning
                say("not read", what=what, endpoint=self.endpoint.uri, error=error)
            told = set(failed)
            if not self.endpoint.follow:
                if failed:
                    what, error = next(iter(failed.items()))
                    raise EndpointUnreachable(self.endpoint.uri, f"{what} not read: {error}")
                return
            self._closing.wait(self.endpoint.poll_s)

    def close(self) -> None:
        """End the iteration before its next document."""
        self._closing.set()

    def _wait_for_server(self) -> None:
        parts = urlsplit(self.endpoint.http_uri)
        address = (str(parts.hostname), parts.port or _PORTS[parts.scheme])
        until = time.monotonic() + (self.endpoint.connect_timeout_s or float("inf"))
        while True:
            try:
                socket.create_connection(address, timeout=1.0).close()
                return
            except OSError as error:
                if time.monotonic() > until:
                    waited = f"nothing answered within {self.endpoint.connect_timeout_s:g} s ({error})"
                    raise EndpointUnreachable(self.endpoint.uri, waited) from None
            if self._closing.wait(0.1):
                raise EndpointUnreachable(self.endpoint.uri, "closed before anything answered")

    def _runs(self) -> list[Any]:
        """Runs of which something may be new, oldest first."""
        from tiled.queries import Comparison

        found = self._catalogue.sort(("start.time", 1))
        if self._since > float("-inf"):
            found = found.search(Comparison("ge", "start.time", self._since))
        return [run for run in found.values() if str(_start(run).get("uid")) not in self._done]

    def _new(self, run: Any) -> Iterator[Document]:
        """Yield what of a run has not been given out."""
        start = _start(run)
        uid, begun = str(start.get("uid")), _time(start)
        followed = self._open.setdefault(uid, _Followed(begun))
        over = _stopped(run)  # as of before its documents were asked for
        if not start.get("xas_agent"):
            for name, document in run.documents():
                if self._closing.is_set():
                    return
                doc = dict(document)
                if name == "stop" and not (over and doc):
                    continue
                if name == "stream_datum":
                    doc = _further(doc, followed.rows)
                if doc and (key := f"{name}/{doc.get('uid')}") not in followed.seen:
                    followed.seen.add(key)
                    yield name, doc
        if over:
            del self._open[uid]
            self._done[uid] = begun
            begins = [f.begun for f in self._open.values()]
            self._since = min(begins) if begins else max(self._done.values())
            self._done = {u: t for u, t in self._done.items() if t >= self._since}


def _further(doc: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Return the rows that a StreamDatum announces beyond those that it did before; empty: none.

    The catalogue has one StreamDatum for all rows of a key; as they become more, its range grows.
    """
    uid, start, stop = doc["uid"], doc["indices"]["start"], doc["indices"]["stop"]
    known = rows.get(uid, start)
    if stop <= known:
        return {}
    rows[uid] = stop
    seq_nums = {"start": doc["seq_nums"]["start"] + known - start, "stop": doc["seq_nums"]["stop"]}
    return {**doc, "uid": f"{uid}/{known}", "indices": {"start": known, "stop": stop}, "seq_nums": seq_nums}


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _start(run: Any) -> Mapping[str, Any]:
    return run.metadata.get("start") or {}


def _stopped(run: Any) -> bool:
    return bool(run.metadata.get("stop"))


def _time(start: Mapping[str, Any]) -> float:
    return float(start.get("time", 0.0))
