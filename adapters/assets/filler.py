"""A stage before the assembler that replaces references to external files by their arrays."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cachetools import FIFOCache

from ...agent.fields import UnreadableStream, mark_filled
from ...agent.stream import UnreadFile
from ...agent.types import Reason, RunDocument, SetAside, get_logger
from .deadline import Deadline
from .files import HANDLERS, AssetSettings
from .opening import AssetRefused, NotYet
from .streams import Patience, StreamRows

log = get_logger()

Doc = dict[str, Any]
Wanted = Callable[[Mapping[str, Any], Mapping[str, Any]], frozenset[str] | UnreadableStream]
"""Maps descriptor and start to the required external data keys, or to the reason why the stream is unreadable."""

_MAX_RESOURCES = 1000
_MAX_DATUMS = 200_000
_MAX_HANDLERS = 64


@dataclass(slots=True)
class _Stream:
    """The Events of one descriptor with external data."""

    descriptor: RunDocument
    wanted: frozenset[str]
    rows: StreamRows | None
    held: deque[tuple[RunDocument, Patience]] = field(default_factory=deque)

    def holds(self, now: float, stopped: bool) -> bool:
        """Return whether documents or rows are outstanding; after the RunStop only files are awaited."""
        if self.held:
            return True
        return self.rows is not None and (self.rows.reading or (not stopped and self.rows.lagging(now)))

    def let_go(self, reason: str) -> list[RunDocument]:
        """Return the held Events without their files; announced rows that were not read are given up."""
        held, self.held = self.held, deque()
        if self.rows is not None:
            self.rows.give_up(reason)
        return [_without_files(event, self.wanted, reason) for event, _ in held if event.name == "event"]


@dataclass(slots=True)
class _Run:
    streams: dict[str, _Stream] = field(default_factory=dict)
    """Streams by descriptor uid."""
    stop: RunDocument | None = None


class AssetFiller:
    """Reads the external data that spectra need, and no others such as images.

    event-model's Filler resolves Resource and Datum, and bluesky's consolidators resolve StreamResource and
    StreamDatum. Missing data delay the documents of their stream, and the RunStop, by at most ``settings.wait_s``. An
    ``UnreadFile`` replaces unreadable data in the Event, and the assembler sets the frame aside for this reason. Not
    thread-safe.

    Parameters
    ----------
    settings : AssetSettings
    wanted : callable
        Selects the required external data keys of a stream.
    """

    def __init__(self, settings: AssetSettings, wanted: Wanted) -> None:
        self._settings, self._wanted = settings, wanted
        self._in_time = Deadline(settings.read_s)
        self._runs: dict[str, _Run] = {}
        """Runs with external data, until their RunStop is passed on."""
        self._resources: FIFOCache[str, Doc] = FIFOCache(_MAX_RESOURCES)
        self._busy: dict[str, _Run] = {}
        """Runs with held documents."""
        self._logged_errors: set[tuple[str, str]] = set()
        """Document and exception names already logged."""

    @cached_property
    def _filler(self) -> Any:
        """Resolves Resource and Datum; created for the first of them, since event-model takes a second to import."""
        from event_model import Filler

        caches: dict[str, Any] = {
            "handler_cache": FIFOCache(_MAX_HANDLERS),
            "resource_cache": FIFOCache(_MAX_RESOURCES),
            "datum_cache": FIFOCache(_MAX_DATUMS),
            "descriptor_cache": FIFOCache(_MAX_RESOURCES),
        }
        handlers = {spec: self._located(handler) for spec, handler in HANDLERS.items()}
        return Filler(handlers, inplace=False, retry_intervals=[], **caches)

    @property
    def waiting(self) -> bool:
        """Whether any documents are held."""
        return bool(self._busy)

    def passes(self, run: str, descriptor: str) -> bool:
        """Return whether the Events of a descriptor need no files."""
        return (known := self._runs.get(run)) is None or descriptor not in known.streams

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Process one document; return the documents that are ready."""
        try:
            match document.name:
                case "event" | "stream_datum":
                    return self._data(document)
                case "descriptor":
                    return self._descriptor(document)
                case "stop":
                    return self._stop(document)
                case "resource" | "datum":
                    self._filler(document.name, document.doc)
                case "stream_resource":
                    self._resources[document.doc["uid"]] = document.doc
        except Exception as error:  # a malformed document, which the assembler reports, or a defect of this class
            self._log_failure(document.name, error, document.run.uid)
        return (document,)

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return the documents whose files have become readable, or whose waiting time is over."""
        return [out for uid in list(self._busy) for out in self._advance(uid, now)]

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Return all held documents, with the data that exist."""
        out = [*self.poll(float("inf"))]
        while self._busy:  # a StreamDatum is read in parts
            out += self.poll(float("inf"))
        return out

    def _log_failure(self, name: str, error: Exception, run: str) -> None:
        """Log a failure; equal ones are logged as a warning only once."""
        key = name, type(error).__name__
        write = log.debug if key in self._logged_errors else log.warning
        self._logged_errors.add(key)
        write("document passed on without its files", name=name, run=run, error=f"{key[1]}: {error}")

    def _located(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler that finds and reads the file within the deadline at each call."""

        def located(path: str, **kwargs: Any) -> Callable[..., Any]:
            def read(**datum: Any) -> Any:
                file = self._settings.locate(str(path))
                return handler(file, **kwargs | {"inside": self._settings.inside})(**datum)

            return lambda **datum: self._in_time(lambda: read(**datum))

        return located

    def _descriptor(self, document: RunDocument) -> Iterable[RunDocument]:
        """Register the required data keys of a stream; return its descriptor with these keys marked as filled."""
        doc = document.doc
        filled = {key for key, about in doc["data_keys"].items() if about.get("external")}
        if not filled or not document.run.watched:
            return (document,)
        wanted = self._wanted(doc, document.run.start)
        if not isinstance(wanted, UnreadableStream):  # otherwise the assembler reports the reason
            filled = wanted
        if isinstance(wanted, frozenset) and wanted:
            self._filler("descriptor", doc)
            streamed = {key for key in wanted if doc["data_keys"][key]["external"] == "STREAM:"}
            rows = (
                StreamRows(self._settings, document, streamed, self._resources, self._in_time) if streamed else None
            )
            run = self._runs.setdefault(document.run.uid, _Run())
            run.streams[doc["uid"]] = _Stream(document, wanted, rows)
        return (replace(document, doc=mark_filled(doc, sorted(filled))),)

    def _data(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        run = self._runs.get(document.run.uid)
        stream = run.streams.get(document.doc["descriptor"]) if run is not None else None
        if stream is None:
            return (document,)
        stream.held.append((document, Patience(document.at + self._settings.wait_s)))
        return self._advance(document.run.uid, document.at)

    def _stop(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        run = self._runs.get(document.run.uid)
        if run is None:
            return (document,)
        run.stop = document
        return self._advance(document.run.uid, document.at)

    def _advance(self, uid: str, now: float) -> list[RunDocument | SetAside]:
        """Return the ready documents of one run, the RunStop last; a failure holds up no other run."""
        run = self._runs[uid]
        out: list[RunDocument | SetAside] = []
        for stream in run.streams.values():
            try:
                out.extend(self._fill(stream, now))  # keeps what is ready before a failure
            except Exception as error:
                self._log_failure("data", error, uid)
                out.extend(stream.let_go(f"{type(error).__name__}: {error}"))
        if any(stream.holds(now, run.stop is not None) for stream in run.streams.values()):
            self._busy[uid] = run
            return out
        self._busy.pop(uid, None)
        if run.stop is not None:
            del self._runs[uid]
            for rows in (stream.rows for stream in run.streams.values() if stream.rows is not None):
                try:
                    out += rows.finish()
                except Exception as error:
                    self._log_failure("rows", error, uid)
            out.append(run.stop)
        return out

    def _fill(self, stream: _Stream, now: float) -> Iterator[RunDocument | SetAside]:
        """Yield the filled documents of a stream in order."""
        while stream.held:
            document, patience = stream.held[0]
            if document.name == "event":
                if not patience.due(now):
                    break
                filled = self._filled(document, stream.wanted, patience, now)
                if filled is None:
                    break
                document = filled
            stream.held.popleft()
            if stream.rows is None:
                yield document
                continue
            try:
                take = stream.rows.event if document.name == "event" else stream.rows.datum
                take(document.doc, document.at)
            except Exception as error:
                if document.name == "event":  # the assembler reports it
                    yield document
                    continue
                detail = f"stream_datum: {type(error).__name__} {error}"[:300]
                yield SetAside(
                    document.run.uid, str(document.doc.get("uid", ""))[:100], 0.0, Reason.MALFORMED_DOCUMENT, detail
                )
        if stream.rows is not None:
            yield from stream.rows.advance(now)

    def _filled(
        self, document: RunDocument, wanted: frozenset[str], patience: Patience, now: float
    ) -> RunDocument | None:
        """Return an Event with its external data or the reason of their absence; None while they may still arrive."""
        doc = document.doc
        keys = {key for key in wanted if isinstance(doc["data"].get(key), str)}
        if not keys:
            return document
        try:
            event: Any = {**doc, "filled": {**(doc.get("filled") or {}), **dict.fromkeys(keys, False)}}
            return replace(document, doc=dict(self._filler.fill_event(event, include=keys, inplace=False)))
        except Exception as error:
            reason, may_come = _reason(error)
            if may_come and patience.wait(now):
                return None
            return _without_files(
                document, keys, f"{reason}; waited {self._settings.wait_s:g} s" if may_come else reason
            )


def _without_files(event: RunDocument, keys: Iterable[str], reason: str) -> RunDocument:
    data = {**event.doc["data"], **dict.fromkeys(keys, UnreadFile(reason))}
    return replace(event, doc={**event.doc, "data": data})


def _reason(error: BaseException) -> tuple[str, bool]:
    """Return the cause of a Filler's failure on one line, and whether waiting may remove it."""
    from event_model import UndefinedAssetSpecification, UnresolvableForeignKeyError

    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    root = chain[-1]
    if isinstance(root, AssetRefused):
        return str(root), False
    if isinstance(root, OSError):
        return str(root) if isinstance(root, NotYet) else f"{type(root).__name__}: {root}", True
    if any(isinstance(e, UnresolvableForeignKeyError) for e in chain):
        return "its Datum or Resource is missing", True
    if any(isinstance(e, UndefinedAssetSpecification) for e in chain):
        return f"no handler for its format: {' '.join(str(error).split())[:200]}", False
    return f"{type(root).__name__}: {' '.join(str(root).split())[:200]}", False
