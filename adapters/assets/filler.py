"""Documents that point to files → documents that hold what is in them: a stage before the assembler."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import event_model

from ...agent.fields import Unreadable, as_filled
from ...agent.stream import Unread, announcements
from ...agent.types import Received, SetAside, get_logger
from .files import HANDLERS, AssetRefused, AssetSettings, NotYet
from .streams import Patience, StreamRows

log = get_logger()

Doc = dict[str, Any]
Wanted = Callable[[Mapping[str, Any], Mapping[str, Any]], frozenset[str] | Unreadable]
"""(descriptor, start) → its external data keys that are needed, or why its spectra cannot be read anyway."""

ORDER_PATIENCE_S = 2.0
"""How long a start or a descriptor is waited for by what should have come after it."""
MAX_RUNS = 1000
MAX_DATUMS = 200_000
MAX_HELD = 4096
"""Documents held back for their descriptor."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Bounded(OrderedDict[_Key, _Value]):
    """Forgets its oldest entries."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: _Key, value: _Value) -> None:
        super().__setitem__(key, value)
        if len(self) > self._most:
            self.popitem(last=False)


@dataclass(slots=True)
class _Stream:
    """The events of one descriptor with external data."""

    descriptor: Received
    wanted: frozenset[str] | None = None
    """None: not decided, since the start may say which."""
    rows: StreamRows | None = None
    held: deque[tuple[Received, Patience]] = field(default_factory=deque)

    @property
    def passes(self) -> bool:
        return self.wanted is not None and not self.wanted


@dataclass(slots=True)
class _Run:
    start: Doc | None = None
    stop: Received | None = None
    streams: dict[str, _Stream] = field(default_factory=dict)


class AssetFiller:
    """Fills in the external data that spectra are made of, and nothing else: no image is ever read.

    Resource and Datum go through event-model's Filler, StreamResource and StreamDatum through bluesky's
    consolidators. What is not in its file yet holds up the documents of its own stream, and the stop of its run, for
    ``settings.wait_s`` at most. What cannot be read becomes an ``Unread`` in its Event, so that the assembler sets
    the frame aside with that reason.

    Not thread-safe.
    """

    def __init__(self, settings: AssetSettings, wanted: Wanted) -> None:
        self._settings, self._wanted = settings, wanted
        self._runs: _Bounded[str, _Run] = _Bounded(MAX_RUNS)
        self._descriptors: _Bounded[str, _Run | None] = _Bounded(10 * MAX_RUNS)
        """The runs of descriptors; None for one that never came."""
        self._orphans: dict[str, tuple[float, list[Received]]] = {}
        """Documents by their descriptor that has not come, and until when it is waited for."""
        self._resources: _Bounded[str, Doc] = _Bounded(MAX_RUNS)
        self._busy: dict[str, _Run] = {}
        """Runs of which something is held."""
        self._filler = event_model.Filler(
            {spec: self._located(handler) for spec, handler in HANDLERS.items()},
            inplace=False,
            retry_intervals=[],
            handler_cache=_Bounded(64),
            resource_cache=_Bounded(MAX_RUNS),
            datum_cache=_Bounded(MAX_DATUMS),
            descriptor_cache=_Bounded(MAX_RUNS),
        )

    @property
    def waiting(self) -> bool:
        """Whether documents are held back."""
        return bool(self._busy or self._orphans)

    def __call__(self, document: Received) -> Iterable[Received | SetAside]:
        """Take one document; return what can be passed on."""
        try:
            match document.name:
                case "event" | "event_page" | "stream_datum":
                    return self._data(document)
                case "start":
                    return self._start(document)
                case "descriptor":
                    return self._descriptor(document)
                case "stop":
                    return self._stop(document)
                case "resource" | "datum" | "datum_page":
                    self._filler(document.name, document.doc)
                case "stream_resource":
                    self._resources[document.doc["uid"]] = document.doc
        except Exception as error:
            log.debug("malformed document passed on", name=document.name, error=f"{type(error).__name__}: {error}")
        return (document,)

    def poll(self, now: float) -> Iterable[Received | SetAside]:
        """Return what has become readable, or is given up."""
        out: list[Received | SetAside] = []
        for uid, (until, held) in list(self._orphans.items()):
            if now >= until:
                del self._orphans[uid]
                self._descriptors[uid] = None
                out += held
        for uid in list(self._busy):
            out += self._advance(uid, now)
        return out

    def finish(self) -> Iterable[Received | SetAside]:
        """Return all that is held, as far as it is there."""
        out = list(self.poll(float("inf")))
        for run in self._runs.values():  # whose stop never came
            for stream in run.streams.values():
                out += stream.rows.finish() if stream.rows is not None else ()
        return out

    def _located(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        inside = self._settings.inside if self._settings.roots else None
        return lambda path, **kwargs: handler(self._settings.locate(path), **kwargs | {"inside": inside})

    def _run(self, uid: str) -> _Run:
        if uid not in self._runs:
            self._runs[uid] = _Run()
        return self._runs[uid]

    def _start(self, document: Received) -> Iterable[Received | SetAside]:
        uid = document.doc["uid"]
        run = self._run(uid)
        run.start = run.start or document.doc
        return [document, *self._advance(uid, document.at)]

    def _descriptor(self, document: Received) -> Iterable[Received | SetAside]:
        doc = document.doc
        uid, run = doc["uid"], self._run(doc["run_start"])
        if uid in run.streams:  # repeated
            return ()
        self._descriptors[uid] = run
        _, orphans = self._orphans.pop(uid, (0.0, []))
        if not any(about.get("external") for about in doc["data_keys"].values()):
            return [document, *orphans]
        run.streams[uid] = _Stream(document)
        self._filler("descriptor", doc)
        self._busy[doc["run_start"]] = run
        out = self._advance(doc["run_start"], document.at)
        for orphan in orphans:
            out += self(orphan)
        return out

    def _data(self, document: Received) -> Iterable[Received | SetAside]:
        uid = document.doc["descriptor"]
        if uid not in self._descriptors:
            _, held = self._orphans.setdefault(uid, (document.at + ORDER_PATIENCE_S, []))
            if len(held) >= MAX_HELD:
                return (document,)
            held.append(document)
            return ()
        run = self._descriptors[uid]
        stream = run.streams.get(uid) if run is not None else None
        if run is None or stream is None or stream.passes:
            return (document,)
        for part in _single(document):
            stream.held.append((part, Patience(part.at + self._settings.wait_s)))
        return self._advance(stream.descriptor.doc["run_start"], document.at)

    def _stop(self, document: Received) -> Iterable[Received | SetAside]:
        uid = document.doc["run_start"]
        run = self._runs.get(uid)
        if run is None or not run.streams:
            return (document,)
        run.stop = run.stop or document
        return self._advance(uid, document.at)

    def _advance(self, uid: str, now: float) -> list[Received | SetAside]:
        """Pass on of one run what can be, its stop last."""
        run = self._runs.get(uid)
        if run is None or not run.streams:
            self._busy.pop(uid, None)
            return []
        out: list[Received | SetAside] = []
        for stream in run.streams.values():
            out += self._decide(run, stream, now)
            out += self._fill(stream, now)
        settled = not any(self._holds(run, stream, now) for stream in run.streams.values())
        if run.stop is not None and settled:
            for stream in run.streams.values():
                out += stream.rows.finish() if stream.rows is not None else ()
            out.append(run.stop)
            run.streams, run.stop = {}, None
        if settled:
            self._busy.pop(uid, None)
        else:
            self._busy[uid] = run
        return out

    def _decide(self, run: _Run, stream: _Stream, now: float) -> Iterator[Received]:
        """Find out what of a stream is needed, and pass its descriptor on as it will be filled."""
        if stream.wanted is not None or (run.start is None and now < stream.descriptor.at + ORDER_PATIENCE_S):
            return
        doc = stream.descriptor.doc
        try:
            wanted = self._wanted(doc, run.start or {})
        except Exception as error:  # a malformed descriptor, of which the assembler will tell
            log.debug("descriptor not understood", error=f"{type(error).__name__}: {error}")
            wanted = frozenset()
        filled = [key for key, about in doc["data_keys"].items() if about.get("external")]
        if not isinstance(wanted, Unreadable):
            filled, stream.wanted = sorted(wanted), wanted
            streamed = {key for key in wanted if doc["data_keys"][key]["external"] == "STREAM:"}
            stream.rows = StreamRows(self._settings, doc, streamed, self._resources) if streamed else None
        else:
            stream.wanted = frozenset()  # it is told why, as if all were there
        at = max(stream.descriptor.at, 0.0)
        yield Received("descriptor", as_filled(doc, filled), at)

    def _fill(self, stream: _Stream, now: float) -> Iterator[Received]:
        """Give out what is filled, in order."""
        while stream.wanted is not None and stream.held:
            document, patience = stream.held[0]
            if not stream.passes and document.name == "event":
                if not patience.due(now):
                    break
                filled = self._filled(document, stream.wanted, patience, now)
                if filled is None:
                    break
                document = filled
            stream.held.popleft()
            if stream.rows is None or document.name not in ("event", "stream_datum"):
                yield document
                continue
            try:
                take = stream.rows.event if document.name == "event" else stream.rows.datum
                take(document.doc, document.at)
            except Exception:  # malformed, of which the assembler tells
                yield document
        if stream.rows is not None:
            yield from stream.rows.advance(now)

    def _filled(self, document: Received, wanted: frozenset[str], patience: Patience, now: float) -> Received | None:
        """Return an Event with its wanted data, or the reason in their place; None: not yet."""
        doc = document.doc
        data = doc.get("data")
        keys = {key for key in wanted if isinstance(data.get(key), str)} if isinstance(data, dict) else None
        if not keys:
            return document
        try:
            event: Any = {**doc, "filled": {**(doc.get("filled") or {}), **dict.fromkeys(keys, False)}}
            return Received("event", dict(self._filler.fill_event(event, include=keys, inplace=False)), document.at)
        except Exception as error:
            refusal, wait = _reason(error)
            if wait and patience.wait(now):
                return None
            why = Unread(f"{refusal}; waited {self._settings.wait_s:g} s" if wait else refusal)
            return Received("event", {**doc, "data": {**doc["data"], **dict.fromkeys(keys, why)}}, document.at)

    def _holds(self, run: _Run, stream: _Stream, now: float) -> bool:
        """Whether something of a stream is still waited for."""
        if stream.held or stream.wanted is None:
            return True
        if stream.rows is None or stream.rows.reading or stream.rows.lagging(now):
            return stream.rows is not None
        if run.stop is None or now >= run.stop.at + self._settings.wait_s:
            return False
        announced = announcements(run.stop.doc).get(str(stream.descriptor.doc.get("name", "primary")), 0)
        return stream.rows.given < announced


def _single(document: Received) -> Iterator[Received]:
    """The Events of a page, each on its own; any other document as it is."""
    if document.name != "event_page":
        yield document
        return
    for event in event_model.unpack_event_page(document.doc):  # type: ignore[arg-type]
        yield Received("event", dict(event), document.at)


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
