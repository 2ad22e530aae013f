"""The book of a stream: documents in any order in, the documents of each run in order out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cachetools import FIFOCache

from ..fields import FieldSettings, element_and_edge, skip_reason
from ..types import Reason, Received, RunDocument, RunInfo, SetAside, get_logger
from .columns import announced_events, document_time
from .held import Held, HeldBack
from .sequence import SequenceNumbers

PATIENCE_DOCUMENTS = 256
"""Documents, of any run, that the book waits for a start, a descriptor or events that should have come before."""
PATIENCE_S = 2.0
"""Seconds that it waits for them, if these pass sooner."""
MAX_OPEN_RUNS = 64
"""Runs open at once; beyond, the oldest is taken to have ended."""
MAX_FINISHED_RUNS = 1000
"""Finished runs that are remembered, so that none is answered twice."""
MAX_SEQ_NUM = 10_000_000
AGENT_STREAMS = frozenset({"descriptors", "spectra", "decisions", "quality"})
"""Streams of the agent's own runs, which identify such a run where its start was lost."""

Doc = dict[str, Any]
Entry = RunDocument | SetAside

_log = get_logger()


@dataclass(slots=True, eq=False)
class _Stream:
    """The documents of one stream of a run, whichever of its descriptors they belong to."""

    run: "_Run"
    name: str
    counted: bool
    """Whether the run's stop waits for what it announces of this stream."""
    ignored: bool = False
    order: SequenceNumbers = field(default_factory=SequenceNumbers)
    streamed: int = 0
    """Data keys whose values come as StreamDatums."""
    with_events: bool = False
    """Whether other data keys come in Events."""
    rows: int = 0
    """Rows that StreamDatums announced, over all data keys."""
    datums: set[str] = field(default_factory=set)

    def describe(self, keys: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in the data keys of a descriptor."""
        streamed = sum(about.get("external") == "STREAM:" for about in keys.values())
        self.streamed = max(self.streamed, streamed)
        self.with_events |= streamed < len(keys)

    def missing(self, total: int) -> int:
        """Return how many of the first ``total`` Events, or of their rows, have not come."""
        events = self.order.missing(total) if self.with_events else 0
        return max(events, total * self.streamed - self.rows)


@dataclass(slots=True, eq=False)
class _Run:
    uid: str
    info: RunInfo | None = None
    """None until the start comes or is given up."""
    stop: Doc | None = None
    at: float = 0.0
    """When the stop came."""
    streams: dict[str, _Stream] = field(default_factory=dict)
    """By name."""
    descriptors: list[str] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    """Descriptors and Events that wait for the start."""
    finished: bool = False
    late_reported: bool = False


class Book:
    """Validates, orders and unpacks the documents of any number of interleaved runs. Never raises.

    What comes out of a run is its start, each descriptor before its Events, and its stop once all the Events have
    come that it announces. A document that should have come before is waited for, for ``PATIENCE_DOCUMENTS`` further documents
    or ``PATIENCE_S`` at most, or until ``settle``; then the run goes on without it. A start or stop that never came
    is given out empty. The documents of a finished run are dropped. Events of a stream keep the order in which they
    came, and repeated ones pass: of two with one ``seq_num`` the later measured may be the better one.

    Not thread-safe.

    Parameters
    ----------
    fields : which plans are skipped, and the element and edge that the config states
    reads : whether a stream of this name may hold part of a spectrum; by default as ``fields`` say
    """

    def __init__(self, fields: FieldSettings, reads: Callable[[str], bool] | None = None) -> None:
        self._fields, self._reads = fields, reads or fields.reads
        element, edge = element_and_edge(fields, {})
        self.no_run = RunInfo("", element=element, edge=edge)
        """Stands for the run of documents that belong to none."""
        self._clock = 0
        self._now = 0.0
        self._deadlines: dict[tuple[str, str], tuple[int, float, Callable[[], None]]] = {}
        """By what is waited for: until which count of documents, until which monotonic second, whichever comes first,
        and what to do then. The oldest comes first, since all have the same patience."""
        self._open: dict[str, _Run] = {}
        self._finished: FIFOCache[str, _Run] = FIFOCache(MAX_FINISHED_RUNS)
        self._descriptors: dict[str, _Stream] = {}
        self._orphans: dict[str, list[Held]] = {}
        """Events by descriptor, of descriptors that have not come."""
        self._given_up: FIFOCache[str, int] = FIFOCache(MAX_FINISHED_RUNS)
        """How many Events, not yet reported with a run, by descriptors that never came."""
        self._held = HeldBack()
        self._stopped: _Run | None = None
        """The stopped run of the document that is being read: with it, the run may be whole."""
        self._out: list[Entry] = []
        self._read: dict[str, Callable[[Received], None]] = {
            "start": self._start,
            "descriptor": self._descriptor,
            "event": self._event,
            "event_page": self._event_page,
            "stop": self._stop,
            "stream_datum": self._stream_datum,
            "resource": self._asset,
            "datum": self._asset,
            "stream_resource": self._asset,
            "datum_page": self._datum_page,
            "bulk_events": self._skip,
            "bulk_datum": self._skip,
        }

    @property
    def waiting(self) -> bool:
        """Whether a start, a descriptor or announced Events are waited for."""
        return bool(self._deadlines)

    def __call__(self, document: Received) -> list[Entry]:
        """Take in one document; return what is in order now."""
        self._clock += 1
        if document.at > self._now:
            self._now = document.at
        self._guard(self._document, document)
        if self._stopped is not None:
            self._finish_whole(self._stopped)
            self._stopped = None
        if self._deadlines:
            self._act(self._clock, self._now)
        if len(self._open) > MAX_OPEN_RUNS:
            self._finish(next(iter(self._open.values())))
        return self._take()

    def poll(self, now: float) -> list[Entry]:
        """Return what is given up by ``now`` (``time.monotonic()``)."""
        self._act(self._clock, now)
        return self._take()

    def settle(self) -> list[Entry]:
        """Wait no longer for documents that should have come before others: for when a source has been quiet.

        Runs that have not stopped stay open.
        """
        self._act(self._clock, float("inf"))
        return self._take()

    def finish(self) -> list[Entry]:
        """End every run that is open, for when no document will come again."""
        self._act(self._clock, float("inf"))
        for run in list(self._open.values()):
            self._finish(run)
        return self._take()

    def _take(self) -> list[Entry]:
        out, self._out = self._out, []
        return out

    def _act(self, clock: int, now: float) -> None:
        while self._deadlines:
            awaited, (until_clock, until, give_up) = next(iter(self._deadlines.items()))
            if until_clock > clock and until > now:
                break
            del self._deadlines[awaited]
            give_up()

    def _wait(self, name: str, uid: str, give_up: Callable[[], None]) -> None:
        self._deadlines.setdefault((name, uid), (self._clock + PATIENCE_DOCUMENTS, self._now + PATIENCE_S, give_up))

    def _guard(self, read: Callable[[Received], None], document: Received) -> None:
        """Read one document; one that cannot be read is set aside alone."""
        try:
            read(document)
        except Exception as error:
            doc: Any = document.doc
            uid = doc.get("uid") if isinstance(doc, dict) else None
            detail = f"{str(document.name)[:30]}: {type(error).__name__} {error}"[:300]
            uid = uid if isinstance(uid, str) else ""
            self._out.append(SetAside("", uid, 0.0, Reason.MALFORMED_DOCUMENT, detail))

    def _document(self, document: Received) -> None:
        read = self._read.get(document.name)
        if read is None:
            raise ValueError("no such document")
        read(document)

    def _run(self, uid: Any) -> _Run | None:
        """Return the run ``uid``, opened if it is new; None where it is finished."""
        if not isinstance(uid, str):
            raise TypeError(f"run uid is {uid!r}")
        if uid in self._finished:
            return None
        if uid not in self._open:
            self._open[uid] = _Run(uid)
        return self._open[uid]

    def _start(self, document: Received) -> None:
        doc = document.doc
        run = self._run(doc["uid"])
        if run is None or (run.info is not None and run.info.start):
            return
        info = self._decide(doc)
        if run.info is not None:  # given up before it came
            info = replace(info, joined_late=True)
        self._begin(run, info, doc, document.at)

    def _decide(self, start: Mapping[str, Any]) -> RunInfo:
        """Decide whether a run is watched and what it measures."""
        uid, own = start["uid"], bool(start.get("xas_agent"))
        word = None if own else skip_reason(self._fields, start)
        if word is not None:
            _log.info("spectra not read", run=uid, because=f"of its plan or kind: {word}")
        element, edge = element_and_edge(self._fields, start)
        sample = start.get("sample_uid")
        sample = sample if isinstance(sample, str) and sample and not own else None
        return RunInfo(uid, start, not own and word is None, element, edge, sample)

    def _begin(self, run: _Run, info: RunInfo, doc: Doc, at: float) -> None:
        """Begin to give out a run, first what was held back for its start."""
        run.info = info
        self._deadlines.pop(("start", run.uid), None)
        self._out.append(RunDocument(info, "start", doc, at))
        held, run.held = run.held, []
        self._release(held)
        self._finish_whole(run)

    def _descriptor(self, document: Received) -> None:
        doc = document.doc
        uid, keys, name = doc["uid"], doc["data_keys"], str(doc.get("name", "primary"))
        if not isinstance(uid, str) or not isinstance(keys, dict):
            raise TypeError("uid or data_keys of the wrong type")
        run = self._run(doc["run_start"])
        if run is None or uid in self._descriptors:
            return
        stream = run.streams.get(name) or _Stream(run, name, self._reads(name))
        stream.describe(keys)
        if run.info is None:
            if not self._hold(run.held, run.uid, document):
                return
            self._wait("start", run.uid, lambda: self._give_up_start(run))
        elif not run.info.start and name in AGENT_STREAMS:
            stream.ignored = True
        self._given_up.pop(uid, None)
        self._deadlines.pop(("descriptor", uid), None)
        run.streams[name] = self._descriptors[uid] = stream
        run.descriptors.append(uid)
        if run.info is not None:
            self._give(stream, document)
        self._release(self._orphans.pop(uid, []))
        self._finish_whole(run)

    def _stop(self, document: Received) -> None:
        run = self._run(document.doc["run_start"])
        if run is None or run.stop is not None:
            return
        run.stop, run.at = document.doc, document.at
        self._finish_whole(run)
        if not run.finished:
            self._wait("events", run.uid, lambda: self._finish(run))

    def _event(self, document: Received) -> None:
        doc = document.doc
        stream = self._stream(document)
        if stream is None:
            return
        seq = doc["seq_num"]
        if not isinstance(seq, (int, np.integer)) or not 0 <= seq <= MAX_SEQ_NUM or not isinstance(doc["data"], dict):
            raise TypeError(f"seq_num {seq!r} or data of the wrong type")
        new = stream.order.accept(int(seq))
        if stream.run.finished:
            if new:
                self._late(stream, doc)
        elif not stream.ignored:
            self._give(stream, document)

    def _stream_datum(self, document: Received) -> None:
        doc: Any = document.doc
        if not isinstance(doc, dict) or not isinstance(doc.get("descriptor"), str):
            self._skip(document)
            return
        stream = self._stream(document)
        if stream is None or stream.run.finished:
            return
        if doc["uid"] not in stream.datums:
            stream.datums.add(doc["uid"])
            stream.rows += max(0, doc["seq_nums"]["stop"] - doc["seq_nums"]["start"])
        self._give(stream, document)

    def _stream(self, document: Received) -> _Stream | None:
        """Return the stream of a document of Events; None where the document is held back, or given up."""
        uid = document.doc["descriptor"]
        stream = self._descriptors.get(uid)
        if stream is not None:
            if stream.run.info is not None:
                return stream
            self._hold(stream.run.held, stream.run.uid, document)
        elif uid in self._given_up:
            self._given_up[uid] += document.name == "event"
        elif not isinstance(uid, str):
            raise TypeError(f"descriptor is {uid!r}")
        else:
            if uid not in self._orphans:
                self._orphans[uid] = []
                self._wait("descriptor", uid, lambda: self._give_up_descriptor(uid))
            self._hold(self._orphans[uid], "", document)
        return None

    def _event_page(self, document: Received) -> None:
        for event in _events(document.doc):
            self._guard(self._event, Received("event", event, document.at))

    def _datum_page(self, document: Received) -> None:
        from event_model import unpack_datum_page

        try:
            datums = list(unpack_datum_page(document.doc))  # type: ignore[arg-type]
        except Exception:
            self._skip(document)
            return
        for datum in datums:
            self._asset(Received("datum", dict(datum), document.at))

    def _asset(self, document: Received) -> None:
        """Pass on a document about files: it belongs to no descriptor, and its reader waits for it."""
        if isinstance(document.doc, dict):
            name: Any = document.name
            self._out.append(RunDocument(self.no_run, name, document.doc, document.at))

    def _skip(self, document: Received) -> None:
        _log.debug("document not read", name=document.name)

    def _give(self, stream: _Stream, document: Received) -> None:
        """Give a document of a stream out."""
        run, name = stream.run, document.name
        if not stream.ignored:
            assert run.info is not None
            self._out.append(RunDocument(run.info, name, document.doc, document.at))  # type: ignore[arg-type]
        if run.stop is not None:
            self._stopped = run

    def _late(self, stream: _Stream, doc: Doc) -> None:
        """Report once per run that Events came too late: in a stream out of order there may be thousands."""
        run = stream.run
        assert run.info is not None
        if run.late_reported or stream.ignored or not stream.counted or not run.info.watched:
            return
        run.late_reported = True
        detail = f"seq_num {doc['seq_num']}: its run was already closed"
        self._out.append(SetAside(run.uid, str(doc.get("uid", "")), document_time(doc), Reason.LATE, detail))

    def _hold(self, where: list[Held], run_uid: str, document: Received) -> bool:
        """Hold a document back; set it aside where too much is held already."""
        if self._held.add(where, document):
            return True
        if not self._held.reported:
            self._held.reported = True
            doc = document.doc
            aside = SetAside(
                run_uid, str(doc.get("uid", "")), document_time(doc), Reason.TOO_MANY_HELD_BACK, self._held.describe()
            )
            self._out.append(aside)
        return False

    def _release(self, held: list[Held]) -> None:
        """Read documents that were held back."""
        self._held.forget(held)
        for document, _ in held:
            if document.name == "descriptor":
                self._give(self._descriptors[document.doc["uid"]], document)
            else:
                self._guard(self._document, document)

    def _give_up_descriptor(self, uid: str) -> None:
        held = self._orphans.pop(uid, [])
        self._held.forget(held)
        events = [document.doc for document, _ in held if document.name == "event"]
        if not held:
            return
        self._given_up[uid] = len(events)
        if not events or any(_unheard(run) for run in self._open.values()):  # reported when that run is finished
            return
        last = events[-1]
        detail = f"{len(events)} events of descriptor {uid}"
        aside = SetAside("", str(last.get("uid", "")), document_time(last), Reason.DESCRIPTOR_NEVER_CAME, detail)
        self._out.append(aside)

    def _give_up_start(self, run: _Run) -> None:
        if run.info is not None:
            return
        for stream in run.streams.values():
            stream.ignored = stream.name in AGENT_STREAMS
        if not all(stream.ignored for stream in run.streams.values()):
            described = next((d.doc for d, _ in run.held if d.name == "descriptor"), {})
            detail = "the start of this run never came"
            self._out.append(SetAside(run.uid, run.uid, document_time(described), Reason.JOINED_LATE, detail))
        self._begin(run, replace(self.no_run, uid=run.uid, joined_late=True), {}, self._now)

    def _finish_whole(self, run: _Run) -> None:
        """Finish a run that has stopped and of which all has come."""
        if run.stop is not None and run.info is not None and not run.finished and not self._lacks(run):
            self._finish(run)

    def _lacks(self, run: _Run) -> bool:
        """Whether Events that the stop announces have not come yet."""
        if run.info is None or not run.info.watched:
            return False
        for name, number in announced_events(run.stop or {}).items():
            stream = run.streams.get(name)
            if stream is None and number > 0 and self._reads(name):
                return True
            if stream is not None and stream.counted and not stream.ignored and stream.missing(number) > 0:
                return True
        return False

    def _finish(self, run: _Run) -> None:
        """Give out the end of a run and remember that it is done."""
        if run.finished:
            return
        self._give_up_start(run)
        if run.finished:
            return
        assert run.info is not None
        info, stop, at = run.info, run.stop or {}, run.at or self._now
        del self._open[run.uid]
        self._deadlines.pop(("events", run.uid), None)
        if len(self._finished) == MAX_FINISHED_RUNS:
            _, old = self._finished.popitem()
            for uid in old.descriptors:
                del self._descriptors[uid]
        self._finished[run.uid] = run
        self._report_unread(run)
        run.finished, run.stop, run.info = True, None, replace(info, start={})
        for stream in run.streams.values():
            stream.datums = set()
        self._out.append(RunDocument(info, "stop", stop, at))

    def _report_unread(self, run: _Run) -> None:
        """Report with a run how many Events came without their descriptor."""
        unread = sum(self._given_up.values())
        if not unread or not _unheard(run):
            return
        for uid in list(self._given_up):
            self._given_up[uid] = 0
        assert run.info is not None
        late = run.info.joined_late and not run.streams
        reason = Reason.JOINED_LATE if late else Reason.DESCRIPTOR_NEVER_CAME
        missed = "start and descriptor" if late else "descriptor"
        detail = f"{unread} events could not be read: their {missed} never came"
        self._out.append(SetAside(run.uid, run.uid, document_time(run.stop or {}), reason, detail))


def _unheard(run: _Run) -> bool:
    """Whether a run has stopped and has a stream whose descriptor never came."""
    if run.stop is None or (run.info is not None and not run.info.watched):
        return False
    if not isinstance(run.stop.get("num_events"), Mapping):
        return not run.streams
    known = AGENT_STREAMS | run.streams.keys()
    return any(number > 0 and name not in known for name, number in announced_events(run.stop).items())


def _events(page: Doc) -> Iterator[Doc]:
    """Yield the Events of a page. Raises ValueError for columns of different lengths."""
    from event_model import unpack_event_page  # it takes 0.2 s to import

    lengths = {len(page[key]) for key in ("uid", "time", "seq_num")} | {len(v) for v in page["data"].values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths {sorted(lengths)}")
    for event in unpack_event_page(page):  # type: ignore[arg-type]
        yield dict(event)
