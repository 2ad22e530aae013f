"""Documents that point to files → documents that hold what is in them: a stage before the assembler."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import event_model
from cachetools import FIFOCache

from ...agent.fields import UnreadableStream, mark_filled
from ...agent.stream import UnreadFile
from ...agent.types import RunDocument, SetAside, get_logger
from .files import HANDLERS, AssetRefused, AssetSettings, NotYet
from .streams import Patience, StreamRows

log = get_logger()

Doc = dict[str, Any]
Wanted = Callable[[Mapping[str, Any], Mapping[str, Any]], frozenset[str] | UnreadableStream]
"""(descriptor, start) → its external data keys that are needed, or why its spectra cannot be read anyway."""

MAX_RESOURCES = 1000
MAX_DATUMS = 200_000


@dataclass(slots=True)
class _Stream:
    """The events of one descriptor with external data."""

    descriptor: RunDocument
    wanted: frozenset[str]
    rows: StreamRows | None
    held: deque[tuple[RunDocument, Patience]] = field(default_factory=deque)

    def holds(self, now: float, stopped: bool) -> bool:
        """Whether something of it is still waited for; once its run has stopped, nothing but files."""
        if self.held:
            return True
        return self.rows is not None and (self.rows.reading or (not stopped and self.rows.lagging(now)))


@dataclass(slots=True)
class _Run:
    streams: dict[str, _Stream] = field(default_factory=dict)
    """By descriptor."""
    stop: RunDocument | None = None


class AssetFiller:
    """Fills in the external data that spectra are made of, and nothing else: no image is ever read.

    Resource and Datum go through event-model's Filler, StreamResource and StreamDatum through bluesky's
    consolidators. What is not in its file yet holds up the documents of its own stream, and the stop of its run, for
    ``settings.wait_s`` at most. What cannot be read becomes an ``UnreadFile`` in its Event: the assembler sets
    the frame aside with its reason.

    Not thread-safe.
    """

    def __init__(self, settings: AssetSettings, wanted: Wanted) -> None:
        self._settings, self._wanted = settings, wanted
        self._runs: dict[str, _Run] = {}
        """Runs that have external data, until their stop has been passed on."""
        self._resources: FIFOCache[str, Doc] = FIFOCache(MAX_RESOURCES)
        self._busy: dict[str, _Run] = {}
        """Runs of which something is held."""
        caches: dict[str, Any] = {
            "handler_cache": FIFOCache(64),
            "resource_cache": FIFOCache(MAX_RESOURCES),
            "datum_cache": FIFOCache(MAX_DATUMS),
            "descriptor_cache": FIFOCache(MAX_RESOURCES),
        }
        self._filler = event_model.Filler(
            {spec: self._located(handler) for spec, handler in HANDLERS.items()},
            inplace=False,
            retry_intervals=[],
            **caches,
        )

    @property
    def waiting(self) -> bool:
        """Whether documents are held back."""
        return bool(self._busy)

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Take one document; return what can be passed on."""
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
        except Exception as error:
            log.debug("malformed document passed on", name=document.name, error=f"{type(error).__name__}: {error}")
        return (document,)

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return what has become readable, or is given up."""
        return [out for uid in list(self._busy) for out in self._advance(uid, now)]

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Return all that is held, as far as it is there."""
        return self.poll(float("inf"))

    def _located(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        inside = self._settings.inside if self._settings.roots else None
        return lambda path, **kwargs: handler(self._settings.locate(path), **kwargs | {"inside": inside})

    def _descriptor(self, document: RunDocument) -> Iterable[RunDocument]:
        """Find out what of a stream is needed, and pass its descriptor on as it will be filled."""
        doc = document.doc
        filled = {key for key, about in doc["data_keys"].items() if about.get("external")}
        if not filled or not document.run.watched:
            return (document,)
        wanted = self._wanted(doc, document.run.start)
        if not isinstance(wanted, UnreadableStream):  # else the assembler reports why, as if all were there
            filled = wanted
        if isinstance(wanted, frozenset) and wanted:
            self._filler("descriptor", doc)
            streamed = {key for key in wanted if doc["data_keys"][key]["external"] == "STREAM:"}
            rows = StreamRows(self._settings, document, streamed, self._resources) if streamed else None
            run = self._runs.setdefault(document.run.uid, _Run())
            run.streams[doc["uid"]] = _Stream(document, wanted, rows)
        return (replace(document, doc=mark_filled(doc, sorted(filled))),)

    def _data(self, document: RunDocument) -> Iterable[RunDocument]:
        run = self._runs.get(document.run.uid)
        stream = run.streams.get(document.doc["descriptor"]) if run is not None else None
        if stream is None:
            return (document,)
        stream.held.append((document, Patience(document.at + self._settings.wait_s)))
        return self._advance(document.run.uid, document.at)

    def _stop(self, document: RunDocument) -> Iterable[RunDocument]:
        run = self._runs.get(document.run.uid)
        if run is None:
            return (document,)
        run.stop = document
        return self._advance(document.run.uid, document.at)

    def _advance(self, uid: str, now: float) -> list[RunDocument]:
        """Pass on of one run what can be, its stop last."""
        run = self._runs[uid]
        out: list[RunDocument] = []
        for stream in run.streams.values():
            out += self._fill(stream, now)
        if any(stream.holds(now, run.stop is not None) for stream in run.streams.values()):
            self._busy[uid] = run
            return out
        self._busy.pop(uid, None)
        if run.stop is not None:
            for stream in run.streams.values():
                out += stream.rows.finish() if stream.rows is not None else ()
            out.append(run.stop)
            del self._runs[uid]
        return out

    def _fill(self, stream: _Stream, now: float) -> Iterator[RunDocument]:
        """Give out what is filled, in order."""
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
            except Exception:  # malformed, which the assembler reports
                yield document
        if stream.rows is not None:
            yield from stream.rows.advance(now)

    def _filled(
        self, document: RunDocument, wanted: frozenset[str], patience: Patience, now: float
    ) -> RunDocument | None:
        """Return an Event with its wanted data, or the reason in their place; None: not yet."""
        doc = document.doc
        keys = {key for key in wanted if isinstance(doc["data"].get(key), str)}
        if not keys:
            return document
        try:
            event: Any = {**doc, "filled": {**(doc.get("filled") or {}), **dict.fromkeys(keys, False)}}
            return replace(document, doc=dict(self._filler.fill_event(event, include=keys, inplace=False)))
        except Exception as error:
            refusal, wait = _reason(error)
            if wait and patience.wait(now):
                return None
            why = UnreadFile(f"{refusal}; waited {self._settings.wait_s:g} s" if wait else refusal)
            return replace(document, doc={**doc, "data": {**doc["data"], **dict.fromkeys(keys, why)}})


def _reason(error: BaseException) -> tuple[str, bool]:
    """Why the Filler failed, in one line, and whether waiting may help."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    root = chain[-1]
    if isinstance(root, AssetRefused):
        return str(root), False
    if isinstance(root, OSError):
        return str(root) if isinstance(root, NotYet) else f"{type(root).__name__}: {root}", True
    if any(isinstance(e, event_model.UnresolvableForeignKeyError) for e in chain):
        return "its Datum or Resource has not come", True
    if any(isinstance(e, event_model.UndefinedAssetSpecification) for e in chain):
        return f"no handler reads it: {' '.join(str(error).split())[:200]}", False
    return f"{type(root).__name__}: {' '.join(str(root).split())[:200]}", False
