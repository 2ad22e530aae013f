"""Reads documents into frames: the book, the stages and the assembler, in this order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..fields import FieldSettings, SeriesSettings
from ..types import Frame, Memory, Reason, Received, RunDocument, RunInfo, SetAside, Stage, get_logger
from .assembler import FrameAssembler
from .book import Book
from .fly import FlyJoiner, FlySettings
from .notes import MAX_NOTES, RepeatedNotes, join_notes
from .pages import unpack_events
from .records import StreamRecord
from .run import malformed

_log = get_logger()

Outcome = Frame | SetAside | RunDocument
"""A frame, a note on unusable data, or a run's start (before its frames) or stop (after them)."""


_MOST_TOGETHER = 64
"""Largest number of Events, outside of pages, that are read together, since the network waits for them."""


class FrameReader:
    """Turns the documents of any number of interleaved runs, in any order of arrival, into frames. Never raises.

    For all documents, each (energy, μ) of a frame comes from one Event, or is the mean of several Events of a sweep
    at one energy. No frame mixes points of two sweeps, and no frame is answered twice. Data that cannot become a
    frame give a SetAside. Not thread-safe.

    Parameters
    ----------
    fields : names of the fields; by default they are detected
    fly : streams of a fly scan to join, if any
    stages : stages between the book and the fly joiner
    source : source of the documents as the command line names it, for messages
    series : settings that assign runs to series
    """

    def __init__(
        self,
        fields: FieldSettings | None = None,
        fly: FlySettings | None = None,
        stages: Sequence[Stage] = (),
        source: str | None = None,
        series: SeriesSettings | None = None,
    ) -> None:
        fields = fields or FieldSettings()
        self._joins = fly is not None
        joiner = (FlyJoiner(fly, fields),) if fly is not None else ()
        self._stages: tuple[Stage, ...] = (*stages, *joiner)
        self._book = Book(
            fields, lambda name: fields.reads(name) or (fly is not None and fly.trace(name) is not None), series
        )
        self._assembler = FrameAssembler(fields, source)
        self._failures = RepeatedNotes()
        """Notes on a book or stage that fails while it is polled, which happens often."""

    @property
    def no_run(self) -> RunInfo:
        """The properties, from the config alone, of documents without a known run."""
        return self._book.no_run

    @property
    def waiting(self) -> bool:
        """Whether the book or a stage waits for documents, or holds some back."""
        return self._book.waiting or any(stage.waiting for stage in self._stages)

    def positions(self, uid: str) -> Memory:
        """Return the positions up to which the Events of a run are no longer needed; empty if all are needed.

        The state of a stream, by name, begins with the last ``seq_num`` that is not needed. The positions hold once
        all frames and notes returned so far have been processed.
        """
        come, read = self._book.positions(uid), self._assembler.positions(uid)
        if come is None or read is None or self._joins:
            return {}
        return {(uid, "position"): {name: position for name, position in (come | read).items() if position}}

    def memory(self, sample_uid: str) -> Memory:
        """Return the state of a sample."""
        parameters = self._assembler.samples.get(sample_uid)
        return {("", "sample", sample_uid): parameters} if parameters else {}

    def restore(self, memory: Memory) -> None:
        """Continue with the states that :meth:`memory` returned."""
        for (run, owner, *sample), state in memory.items():
            if owner == "sample":
                self._assembler.samples[sample[0] or ""] = state
            elif owner == "position":
                self._assembler.past[run or ""] = self._book.past[run or ""] = state

    def answer_every(self, nth: int) -> None:
        """Make a frame of every ``nth`` spectrum only; set the others aside with the reason ``OVERLOAD``."""
        self._assembler.thinning.every = nth

    @property
    def points(self) -> tuple[int, int] | None:
        """Number of points of the newest step scan in progress, and its planned number (0 if unknown)."""
        return self._assembler.points

    def __call__(self, document: Received) -> list[Outcome]:
        """Process one document; return the frames that it completes, and notes on unusable data.

        Unusable data of one run with one reason give one note.
        """
        try:
            return join_notes(self._process(self._book(document)))
        except Exception as error:  # results that the book holds follow with the next document
            return [_failed(document, None, error)]

    def read(self, documents: Sequence[Received], most: int = _MOST_TOGETHER) -> Iterator[tuple[int, list[Outcome]]]:
        """Process documents; yield the number of documents read together, and the outcomes of their single calls.

        Events that come in order are read together, up to ``most`` at once.
        """
        with self.together(documents):
            k = 0
            while k < len(documents):
                count, outcomes = self._read_next(documents[k : k + most])
                yield count, outcomes
                k += count

    def _read_next(self, documents: Sequence[Received]) -> tuple[int, list[Outcome]]:
        """Read the first document, together with the following ones if possible."""
        try:
            if read := self._page(documents[0]) if documents[0].name == "event_page" else self._in_order(documents):
                return read
        except Exception as error:  # the document is then read alone, and its error reported
            _log.debug("events not read together", exc_info=error)
        return 1, self(documents[0])

    def _in_order(self, documents: Sequence[Received]) -> tuple[int, list[Outcome]] | None:
        """Read the leading Events that the book and the stages only have to count; None if there are none."""
        stream = self._only_read(documents[0]) if documents[0].name == "event" else None
        if stream is None or not (count := self._book.count_in_order(stream, documents)):
            return None
        return count, [*self._assembler.in_order(stream.run.uid, documents[:count])]

    def _page(self, page: Received) -> tuple[int, list[Outcome]] | None:
        """Read the Events of an EventPage in a row; None if a stage besides the book must see them."""
        if self._only_read(page) is None:
            return None
        events = [Received("event", event, page.at) for event in unpack_events(page.doc)]
        return 1, join_notes([outcome for _, outcomes in self.read(events, len(events)) for outcome in outcomes])

    def _only_read(self, document: Received) -> StreamRecord | None:
        """Return an Event's or page's stream if the book and the stages only have to count its ordered Events."""
        doc: Any = document.doc
        descriptor = doc.get("descriptor") if isinstance(doc, dict) else None
        if not isinstance(descriptor, str) or (stream := self._book.has_only_events_to_read(descriptor)) is None:
            return None
        run = stream.run.uid
        passed = self._assembler.reads_in_order(run, descriptor)
        return stream if passed and all(stage.passes(run, descriptor) for stage in self._stages) else None

    def together(self, documents: Sequence[Received]) -> AbstractContextManager[None]:
        """Form the spectra of Events together; the block then reads the Events one by one."""
        return self._assembler.together([document.doc for document in documents if document.name == "event"])

    def poll(self, now: float) -> list[Outcome]:
        """Return the outcomes that are ready or given up at ``now`` (``time.monotonic()``)."""
        outcomes = self._waited(self._book, lambda: self._book.poll(now)) if self._book.waiting else []
        for k, stage in enumerate(self._stages):
            if stage.waiting:
                outcomes += self._waited(stage, partial(stage.poll, now), k + 1)
        return join_notes(outcomes, MAX_NOTES)

    def settle(self) -> list[Outcome]:
        """Stop waiting for missing documents, but still wait for files."""
        return join_notes(self._waited(self._book, self._book.settle), MAX_NOTES)

    def give_up(self, uid: str) -> list[Outcome]:
        """Forget a run that may be read again from its start; return the outcomes of other runs."""
        outcomes = self._waited(self._book, lambda: self._book.give_up(uid))
        return [item for item in outcomes if (item.run.uid if isinstance(item, RunDocument) else item.run_uid) != uid]

    def finish(self) -> list[Outcome]:
        """End all open runs, after the last document."""
        outcomes = self._waited(self._book, self._book.finish)
        for k, stage in enumerate(self._stages):
            outcomes += self._waited(stage, stage.finish, k + 1)
            outcomes += self._failures.further(type(stage).__name__)
        return join_notes([*outcomes, *self._failures.further(type(self._book).__name__)], MAX_NOTES)

    def _waited(
        self, owner: object, ask: Callable[[], Iterable[RunDocument | SetAside]], first: int = 0
    ) -> list[Outcome]:
        """Return the outcomes of documents that the book or a stage held back.

        If it fails, these are the outcomes up to the failure and a note; further failures are only counted.
        """
        items: list[RunDocument | SetAside] = []
        kind = type(owner).__name__
        try:
            items.extend(ask())
        except Exception as error:
            detail = f"{kind}: {type(error).__name__}: {error}"[:300]
            self._failures.add(kind, SetAside("", "", 0.0, Reason.INTERNAL_ERROR, detail))
            if new := self._failures.take():
                _log.error("documents that wait not read", by=kind, exc_info=error)
            items += new
        return self._process(items, first)

    def _process(self, items: Iterable[RunDocument | SetAside], first: int = 0) -> list[Outcome]:
        """Send documents through the stages, from number ``first`` on, and then to the assembler."""
        for stage in self._stages[first:] if first else self._stages:
            passed: list[RunDocument | SetAside] = []
            for item in items:
                if isinstance(item, SetAside):
                    passed.append(item)
                    continue
                try:
                    passed += stage(item)
                except Exception as error:
                    passed.append(_failed(item, item.run, error))
            items = passed
        items = list(items)
        events = [item.doc for item in items if isinstance(item, RunDocument) and item.name == "event"]
        if len(events) < 2:
            return self._assemble(items)
        with self._assembler.together(events):  # the Events of a page or a file
            return self._assemble(items)

    def _assemble(self, items: Iterable[RunDocument | SetAside]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for item in items:
            if isinstance(item, SetAside):
                outcomes.append(item)
                continue
            if item.name == "start":
                outcomes.append(item)
            outcomes += self._assembler(item)
            if item.name == "stop":
                outcomes.append(item)
        return outcomes


def _failed(document: Received | RunDocument, run: RunInfo | None, error: Exception) -> SetAside:
    """Return the note on a document that a stage could not read; log where it failed."""
    doc: Any = document.doc
    _log.error("document not read", name=document.name, run="" if run is None else run.uid, exc_info=error)
    return malformed(document.name, doc if isinstance(doc, dict) else {}, error, run)
