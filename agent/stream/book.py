"""The book accepts the documents of a stream in any order and returns those of each run in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cachetools import FIFOCache

from ...wording import all_of, counted
from ..fields import FieldSettings, SeriesSettings, element_and_edge, read_scan, read_text, skip_reason
from ..types import Reason, Received, RunDocument, RunInfo, SetAside, as_count, get_logger
from .columns import document_time
from .deadlines import Deadlines
from .held import Held, HeldBack
from .notes import RepeatedNotes
from .pages import unpack_datums, unpack_events
from .records import AGENT_STREAMS, RunRecord, StreamRecord
from .runs import MAX_FINISHED_RUNS, MAX_UID_LENGTH, Runs

MAX_DESCRIPTORS = 1000
"""Largest number of Descriptors of one run."""
MAX_DATA_KEYS = 4096
"""Largest number of data keys of a Descriptor; to search ten times as many for fields takes a second."""
MAX_SEQ_NUM = 10_000_000

Doc = dict[str, Any]
Entry = RunDocument | SetAside

_log = get_logger()

_HELD = "held back"
"""Kind of the notes on documents that cannot be held back."""


class Book:
    """Validates, orders and unpacks the documents of any number of interleaved runs. Never raises.

    The book returns a run's start, each descriptor before its Events, and the stop after all Events that it
    announces. It waits for a missing document until ``PATIENCE_DOCUMENTS`` further documents have arrived,
    ``PATIENCE_S`` have passed or ``settle`` is called; then the run continues without it. The book returns an empty
    document for a start or stop that did not arrive. It drops documents of a finished run. Events of a stream keep
    their order of arrival. Repeated Events pass, because the later of two measurements with one ``seq_num`` may be
    the better one. Not thread-safe.

    Parameters
    ----------
    fields : plans to skip, and the configured element and edge
    reads : returns whether a stream with this name may hold part of a spectrum; by default ``fields.reads``
    series : settings that assign runs to series
    """

    def __init__(
        self,
        fields: FieldSettings,
        reads: Callable[[str], bool] | None = None,
        series: SeriesSettings | None = None,
    ) -> None:
        self._series = series or SeriesSettings()
        self._fields, self._reads = fields, reads or fields.reads
        element, edge = element_and_edge(fields, {})
        self.no_run = RunInfo("", element=element, edge=edge)
        """Stands for the run of documents that belong to no run."""
        self.past: dict[str, dict[str, list[int]]] = {}
        """Positions, as in :meth:`positions`, at which an earlier process stopped reading, by run and stream."""
        self._deadlines = Deadlines(self._try)
        self._runs = Runs()
        self._descriptors: dict[str, StreamRecord] = {}
        self._orphans: dict[str, list[Held]] = {}
        """Events whose descriptor has not arrived, by the descriptor's uid."""
        self._given_up: FIFOCache[str, int] = FIFOCache(MAX_FINISHED_RUNS)
        """Number of Events not yet reported with a run, by the uid of the descriptor that did not arrive."""
        self._repeated = RepeatedNotes()
        """Notes on Events that are unreadable or late, or that cannot be held back."""
        self._held = HeldBack()
        self._stopped: RunRecord | None = None
        """The stopped run that the current document belongs to and may complete."""
        self._out: list[Entry] = []
        self._readers: dict[str, Callable[[Received], None]] = {
            "start": self._start,
            "descriptor": self._descriptor,
            "event": self._event,
            "event_page": self._event_page,
            "stop": self._stop,
            "stream_datum": self._stream_datum,
            "resource": self._asset,
            "datum": self._asset,
            "stream_resource": self._asset,
            "datum_page": self._datums,
            "bulk_events": self._bulk_events,
            "bulk_datum": self._datums,
        }

    @property
    def waiting(self) -> bool:
        """Whether the book waits for a start, a descriptor or announced Events, or counts repeated notes."""
        return bool(self._deadlines)

    def __call__(self, document: Received) -> list[Entry]:
        """Process one document; return the documents that are in order now."""
        self._deadlines.tick(document.at)
        self._read_safely(self._read, document)
        if (stopped := self._stopped) is not None:
            self._stopped = None
            self._try(stopped.uid, partial(self._finish_if_complete, stopped))
        if self._deadlines:
            self._deadlines.expire(self._deadlines.now)
        while (surplus := self._runs.surplus(self._deadlines.now)) is not None:
            self._finish(surplus)
        return self._take_output()

    def has_only_events_to_read(self, descriptor: str) -> StreamRecord | None:
        """Return a descriptor's stream if its run is watched and waits for nothing but the stream's next Events."""
        stream = self._descriptors.get(descriptor)
        if stream is None or self._deadlines or stream.ignored or stream.order.ahead:
            return None
        run = stream.run
        in_progress = run.info is not None and run.info.watched and run.stop is None and not run.finished
        return stream if in_progress else None

    def count_in_order(self, stream: StreamRecord, documents: Sequence[Received]) -> int:
        """Accept the leading Events of ``documents`` as long as they are in order; return their number.

        :meth:`has_only_events_to_read` returned the stream, and the first document is an Event of it. A normal call
        would return these Events unchanged.
        """
        descriptor, waits, run = documents[0].doc["descriptor"], self._deadlines, stream.run
        expected, now = stream.order.ready + 1, waits.now
        last_at = now if run.last_at is None else run.last_at
        gap_s = max(run.longest_gap_s, now - last_at)  # in case documents of other runs came later than these
        for name, doc, at, _ in documents:
            if name != "event" or type(doc) is not dict:
                break
            uid, seq = doc.get("descriptor"), doc.get("seq_num")
            if type(uid) is not str or uid != descriptor or type(seq) is not int or seq != expected:
                break
            if type(doc.get("data")) is not dict or seq > MAX_SEQ_NUM:
                break
            expected += 1
            if at > now:
                now = at
                if now - last_at > gap_s:
                    gap_s = now - last_at
            last_at = now
        count = expected - stream.order.ready - 1
        if count:
            if stream.first is None:
                stream.note_number(stream.order.ready + 1, documents[0].doc.get("uid"))
            stream.order.accept_next(count)
            waits.count += count
            waits.now = run.last_at = now
            run.longest_gap_s, run.last_count = gap_s, waits.count
            run.events += count
        return count

    def poll(self, now: float) -> list[Entry]:
        """Return the documents whose wait has ended at ``now`` (``time.monotonic()``)."""
        self._deadlines.expire(now)
        return self._take_output()

    def settle(self) -> list[Entry]:
        """Stop waiting for missing documents, after the source has been quiet.

        Runs that have not stopped stay open.
        """
        self._deadlines.expire(float("inf"))
        return self._take_output()

    def finish(self) -> list[Entry]:
        """End all open runs, after the last document."""
        self._deadlines.expire(float("inf"))
        for run in list(self._runs.open.values()):
            self._finish(run)
        self._deadlines.expire(float("inf"))  # also reports the notes on the runs just ended
        return self._take_output()

    def give_up(self, uid: str) -> list[Entry]:
        """End and forget a run, so that it may be read again from its start."""
        if (run := self._runs.open.get(uid)) is not None:
            self._finish(run)
        if (forgotten := self._runs.forget(uid)) is not None:
            for descriptor in forgotten.descriptors:
                self._descriptors.pop(descriptor, None)
        self.past.pop(uid, None)
        return self._take_output()

    def _take_output(self) -> list[Entry]:
        out, self._out = [*self._out, *self._repeated.take()], []
        return out

    def _read_safely(self, read: Callable[[Received], None], document: Received) -> None:
        """Read one document; set it aside if it is unreadable."""
        try:
            read(document)
        except Exception as error:
            doc: Any = document.doc
            uid = doc.get("uid") if isinstance(doc, dict) else None
            detail = f"{str(document.name)[:30]}: {type(error).__name__} {error}"[:300]
            uid = uid if isinstance(uid, str) else ""
            aside = SetAside("", uid, 0.0, Reason.MALFORMED_DOCUMENT, detail)
            stream = doc.get("descriptor") if isinstance(doc, dict) else None
            if document.name == "event" and isinstance(stream, str):
                self._report_repeated(f"{stream} {type(error).__name__}", aside)
            else:
                self._out.append(aside)

    def _try(self, uid: str, step: Callable[[], object]) -> None:
        """Run a step for one run or document with this uid; report an error, which affects no other run."""
        try:
            step()
        except Exception as error:
            of_run = (run := self._runs.open.get(uid)) is not None and (run.info is None or run.info.watched)
            _log.error("documents not put in order", uid=uid, exc_info=error)
            detail = f"{type(error).__name__}: {error}"[:300]
            self._out.append(SetAside(uid if of_run else "", uid, 0.0, Reason.INTERNAL_ERROR, detail))

    def _report_repeated(self, kind: str, note: SetAside) -> None:
        """Report the first note of a kind at once, and the number of further ones after a while."""
        self._repeated.add(kind, note)
        self._deadlines.add("repeated", kind, lambda: self._out.extend(self._repeated.further(kind)))

    def _read(self, document: Received) -> None:
        reader = self._readers.get(document.name)
        if reader is None:
            raise ValueError("no such document")
        reader(document)

    def _run(self, uid: Any) -> RunRecord | None:
        """Return the run ``uid``, opened if it is new; None if the run is finished."""
        run = self._runs.find(uid)
        if run is not None:
            run.touch(self._deadlines.count, self._deadlines.now)
        return run

    def _start(self, document: Received) -> None:
        doc = document.doc
        run = self._run(doc["uid"])
        if run is None or (run.info is not None and run.info.start):
            return
        self._runs.count_bytes(run, doc)
        info = self._describe_run(doc)
        if run.info is not None:  # the start arrived after the book had given it up
            info = replace(info, joined_late=True)
        self._begin(run, info, doc, document.at)

    def _describe_run(self, start: Mapping[str, Any]) -> RunInfo:
        """Decide whether a run is watched and what it measures."""
        uid, own = start["uid"], bool(start.get("xas_agent"))
        skipped = None if own else skip_reason(self._fields, start)
        if skipped is not None:
            _log.info("spectra not read", run=uid, because=f"plan or kind: {skipped}")
        element, edge = element_and_edge(self._fields, start)
        sample = None if own else read_text(start, ["sample_uid"]) or None
        return RunInfo(uid, start, not own and skipped is None, element, edge, sample, read_scan(start, self._series))

    def _begin(self, run: RunRecord, info: RunInfo, doc: Doc, at: float) -> None:
        """Return a run's start, and then the documents that waited for it."""
        run.info = info
        self._deadlines.remove("start", run.uid)
        self._out.append(RunDocument(info, "start", doc, at))
        held, run.held = run.held, []
        self._release(held)
        self._finish_if_complete(run)

    def _descriptor(self, document: Received) -> None:
        doc = document.doc
        uid, keys, name = doc["uid"], doc["data_keys"], str(doc.get("name", "primary"))
        if not isinstance(uid, str) or not isinstance(keys, dict) or len(uid) > MAX_UID_LENGTH:
            raise TypeError("uid or data_keys of the wrong type")
        if len(keys) > MAX_DATA_KEYS:
            raise ValueError(f"{len(keys)} data keys, at most {MAX_DATA_KEYS} are read")
        run = self._run(doc["run_start"])
        if run is None or uid in self._descriptors:
            return
        if len(run.descriptors) >= MAX_DESCRIPTORS:
            raise ValueError(f"run {run.uid} has more than {MAX_DESCRIPTORS} descriptors")
        self._runs.count_bytes(run, doc)
        stream = run.streams.get(name) or self._new_stream(run, name)
        stream.describe(keys)
        if run.info is None:
            if not self._hold(run.held, run.uid, document):
                return
            self._deadlines.add("start", run.uid, lambda: self._give_up_start(run))
        elif not run.info.start and name in AGENT_STREAMS:
            stream.ignored = True
        self._given_up.pop(uid, None)
        self._deadlines.remove("descriptor", uid)
        run.streams[name] = self._descriptors[uid] = stream
        run.descriptors.append(uid)
        if run.info is not None:
            self._pass_on(stream, document)
        self._release(self._orphans.pop(uid, []))
        self._finish_if_complete(run)

    def _new_stream(self, run: RunRecord, name: str) -> StreamRecord:
        stream = StreamRecord(run, name, self._reads(name))
        if position := self.past.get(run.uid, {}).get(name):
            stream.order.restore(position[0], position[1])
            run.events += position[1]
        return stream

    def positions(self, uid: str) -> dict[str, list[int]] | None:
        """Return the highest number read without a gap, and the count of Events, for each stream of a run.

        None if the run is over or waits for documents, or if its data are in files.
        """
        run = self._runs.open.get(uid)
        if run is None or run.stop is not None or run.held or any(s.external for s in run.streams.values()):
            return None
        return {name: [s.order.ready, s.order.count - s.order.ahead] for name, s in run.streams.items()}

    def _stop(self, document: Received) -> None:
        run = self._run(document.doc["run_start"])
        if run is None or run.stop is not None:
            return
        run.stop, run.stopped_at = document.doc, document.at
        self._finish_if_complete(run)
        if not run.finished:
            self._deadlines.add("events", run.uid, lambda: self._finish(run))

    def _event(self, document: Received) -> None:
        doc = document.doc
        stream = self._stream(document)
        if stream is None:
            return
        seq = doc["seq_num"] if type(doc["seq_num"]) is int else as_count(doc["seq_num"])
        if seq is None or not 0 <= seq <= MAX_SEQ_NUM or not isinstance(doc["data"], dict):
            raise TypeError(f"seq_num {repr(doc['seq_num'])[:80]} or data of the wrong type")
        if seq is not doc["seq_num"]:
            document = document._replace(doc={**doc, "seq_num": seq})
        stream.run.events += 1
        new = stream.order.accept(seq)
        stream.note_number(seq, doc.get("uid"))
        if stream.run.finished:
            if new or stream.numbered_anew:
                self._report_late(stream, doc)
        elif not stream.ignored:
            self._pass_on(stream, document)

    def _stream_datum(self, document: Received) -> None:
        doc: Any = document.doc
        if not isinstance(doc, dict) or not isinstance(doc.get("descriptor"), str):
            self._skip(document)
            return
        stream = self._stream(document)
        if stream is None or stream.run.finished:
            return
        stream.run.events += 1
        stream.add_datum(doc)
        self._pass_on(stream, document)

    def _stream(self, document: Received) -> StreamRecord | None:
        """Return the stream of an Event or StreamDatum; None if the document was held back or given up."""
        uid = document.doc["descriptor"]
        stream = self._descriptors.get(uid)
        if stream is not None:
            stream.run.touch(self._deadlines.count, self._deadlines.now)
            if stream.run.info is not None:
                return stream
            self._hold(stream.run.held, stream.run.uid, document)
        elif uid in self._given_up:
            self._given_up[uid] += document.name == "event"
        elif not isinstance(uid, str) or len(uid) > MAX_UID_LENGTH:
            raise TypeError(f"descriptor is {str(uid)[:80]!r}")
        else:
            if uid not in self._orphans:
                self._orphans[uid] = []
                self._deadlines.add("descriptor", uid, lambda: self._give_up_descriptor(uid))
            self._hold(self._orphans[uid], "", document)
        return None

    def _event_page(self, document: Received) -> None:
        for event in unpack_events(document.doc):
            self._read_safely(self._event, Received("event", event, document.at))

    def _bulk_events(self, document: Received) -> None:
        """Read a document with Events of several streams, the predecessor of EventPages."""
        for uid, events in document.doc.items():
            for event in events:
                self._read_safely(self._event, Received("event", {"descriptor": uid, **event}, document.at))

    def _datums(self, document: Received) -> None:
        try:
            datums = unpack_datums(document.name, document.doc)
        except Exception:
            self._skip(document)
            return
        for datum in datums:
            self._asset(Received("datum", datum, document.at))

    def _asset(self, document: Received) -> None:
        """Pass on a document about files. It belongs to no descriptor, and the file reader waits for it."""
        if isinstance(document.doc, dict):
            name: Any = document.name
            self._out.append(RunDocument(self.no_run, name, document.doc, document.at))

    def _skip(self, document: Received) -> None:
        _log.debug("document not read", name=document.name)

    def _pass_on(self, stream: StreamRecord, document: Received) -> None:
        """Return a document of a stream."""
        run, name = stream.run, document.name
        if not stream.ignored:
            assert run.info is not None
            self._out.append(RunDocument(run.info, name, document.doc, document.at))  # type: ignore[arg-type]
        if run.stop is not None:
            self._stopped = run

    def _report_late(self, stream: StreamRecord, doc: Doc) -> None:
        """Report an Event of a finished run; an unordered stream may have thousands."""
        run = stream.run
        assert run.info is not None
        if stream.ignored or not stream.counted or not run.info.watched:
            return
        detail = f"seq_num {doc['seq_num']}: its run was already closed"
        note = SetAside(run.uid, str(doc.get("uid", "")), document_time(doc), Reason.LATE, detail)
        self._report_repeated(f"late {run.uid}", note)

    def _hold(self, held: list[Held], run_uid: str, document: Received) -> bool:
        """Hold a document back; if too many are held, report it and return False."""
        if self._held.add(held, document):
            return True
        doc, detail = document.doc, self._held.describe()
        note = SetAside(run_uid, str(doc.get("uid", "")), document_time(doc), Reason.TOO_MANY_HELD_BACK, detail)
        self._report_repeated(_HELD, note)
        return False

    def _release(self, held: list[Held]) -> None:
        """Read the documents that were held back."""
        self._held.remove(held)
        for document, _ in held:
            read = self._read if document.name != "descriptor" else self._pass_on_held
            self._read_safely(read, document)

    def _pass_on_held(self, descriptor: Received) -> None:
        self._pass_on(self._descriptors[descriptor.doc["uid"]], descriptor)

    def _give_up_descriptor(self, uid: str) -> None:
        held = self._orphans.pop(uid, [])
        self._held.remove(held)
        events = [document.doc for document, _ in held if document.name == "event"]
        if not held:
            return
        self._given_up[uid] = len(events)
        # A stopped run without a descriptor reports these Events when it is finished.
        if not events or any(run.lacks_descriptor() for run in self._runs.open.values()):
            return
        last = events[-1]
        detail = f"{counted(len(events), 'event')} of descriptor {uid}"
        uid, count = str(last.get("uid", "")), len(events)
        aside = SetAside("", uid, document_time(last), Reason.DESCRIPTOR_NEVER_CAME, detail, count=count)
        self._out.append(aside)

    def _give_up_start(self, run: RunRecord) -> None:
        if run.info is not None:
            return
        for stream in run.streams.values():
            stream.ignored = stream.name in AGENT_STREAMS
        if not all(stream.ignored for stream in run.streams.values()):
            descriptor = next((document.doc for document, _ in run.held if document.name == "descriptor"), {})
            detail = "the start of this run did not arrive"
            self._out.append(SetAside(run.uid, run.uid, document_time(descriptor), Reason.JOINED_LATE, detail))
        self._begin(run, self._without_start(run), {}, self._deadlines.now)

    def _without_start(self, run: RunRecord) -> RunInfo:
        return replace(self.no_run, uid=run.uid, joined_late=True)

    def _finish_if_complete(self, run: RunRecord) -> None:
        if not run.finished and run.is_complete(self._reads):
            self._finish(run)

    def _finish(self, run: RunRecord) -> None:
        """Return the end of a run, and remember that the run is finished."""
        if run.finished:
            return
        self._try(run.uid, partial(self._give_up_start, run))
        if run.info is None:  # the start failed
            self._try(run.uid, partial(self._begin, run, self._without_start(run), {}, self._deadlines.now))
        if run.finished:
            return
        assert run.info is not None
        info, stop, at = run.info, run.stop or {}, run.stopped_at or self._deadlines.now
        self._deadlines.remove("events", run.uid)
        self._try(run.uid, partial(self._report_unread_events, run))
        if (forgotten := self._runs.finish(run)) is not None:
            for uid in forgotten.descriptors:
                self._descriptors.pop(uid, None)
        run.finished, run.stop, run.info = True, None, replace(info, start={})
        for stream in run.streams.values():
            stream.datums.clear()
        self._out.append(RunDocument(info, "stop", stop, at))

    def _report_unread_events(self, run: RunRecord) -> None:
        """Report, with a run, the number of Events whose descriptor did not arrive."""
        if not run.lacks_descriptor():
            return
        assert run.info is not None
        unread = sum(self._given_up.values())
        lost = {} if unread or not run.info.start else run.without_descriptor(self._reads)
        if lost:
            at, count = document_time(run.stop or {}), sum(lost.values())
            detail = f"{all_of(count, 'event')} of stream {', '.join(lost)}, and its descriptor, did not arrive"
            aside = SetAside(run.uid, run.uid, at, Reason.EVENTS_LOST, detail, count=count)
            self._out.append(aside)
        if not unread:
            return
        for uid in list(self._given_up):
            self._given_up[uid] = 0
        late = run.info.joined_late and not run.streams
        reason = Reason.JOINED_LATE if late else Reason.DESCRIPTOR_NEVER_CAME
        missing = "start and descriptor" if late else "descriptor"
        detail = f"{counted(unread, 'event')} could not be read: their {missing} did not arrive"
        self._out.append(SetAside(run.uid, run.uid, document_time(run.stop or {}), reason, detail, count=unread))
