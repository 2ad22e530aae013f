"""Assembles frames from the ordered documents of runs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cachetools import LRUCache

from ..fields import FieldSettings
from ..types import Received, RunDocument, get_logger
from .frames import FrameOutcome, Thinning
from .run import RunAssembler, malformed
from .sweeps import SweepSpectrum
from .unread import UnreadStreams

_log = get_logger()

MAX_SAMPLES = 256
"""Number of samples whose robot parameters are kept."""


class FrameAssembler:
    """Turns the documents of runs, in the order of :class:`RunDocument`, into frames. Never raises.

    A whole-spectrum Event gives its frames at once. A sweep of a step scan gives a frame when the energy changes
    direction after it or its run stops. Data that cannot become a frame are returned as SetAside. A SetAside in place
    of a frame uses one ``seq_num`` of its run. Not thread-safe.

    Parameters
    ----------
    fields : names of the fields
    source : source of the documents as the command line names it, for messages
    """

    def __init__(self, fields: FieldSettings, source: str | None = None) -> None:
        self._fields = fields
        self._unread = UnreadStreams(source)
        self.thinning = Thinning()
        self._runs: dict[str, RunAssembler] = {}
        self._formed: dict[int, SweepSpectrum] = {}
        """Spectra that were formed in advance, by the ``id`` of their Event."""
        self.points: tuple[int, int] | None = None
        """Number of points of the newest step scan in progress, and its planned number (0 if unknown)."""
        self.samples: LRUCache[str, dict[str, float]] = LRUCache(MAX_SAMPLES)
        """Parameters that robot runs recorded, by ``sample_uid``."""
        self.past: dict[str, dict[str, list[int]]] = {}
        """Positions at which an earlier process stopped reading, by run and stream."""

    @contextmanager
    def together(self, docs: Iterable[Any]) -> Iterator[None]:
        """Form the spectra of Events together; the block then sends the Events one by one.

        Events that reach the assembler in another form are formed alone.
        """
        by_descriptor: dict[str, list[dict[str, Any]]] = {}
        for doc in docs:
            if isinstance(doc, dict) and isinstance(doc.get("data"), dict) and isinstance(doc.get("descriptor"), str):
                by_descriptor.setdefault(doc["descriptor"], []).append(doc)
        before, self._formed = self._formed, dict(self._formed)
        try:
            for same in by_descriptor.values():
                try:
                    if len(same) > 1:
                        self._form(same)
                except Exception as error:  # each spectrum is then formed alone, and its error reported
                    _log.debug("events not formed together", exc_info=error)
            yield
        finally:
            self._formed = before

    def _form(self, docs: list[dict[str, Any]]) -> None:
        for run in self._runs.values():
            if not run.describes(docs[0]["descriptor"]):
                continue
            spectra = run.form_together(docs)
            self._formed |= {id(doc): s for doc, s in zip(docs, spectra, strict=True) if s is not None}
            return

    def __call__(self, document: RunDocument) -> list[FrameOutcome]:
        """Process one document; return the frames that it completes, and notes on unusable data."""
        out: list[FrameOutcome] = []
        try:
            out.extend(self._read(document))
        except Exception as error:
            out.append(malformed(document.name, document.doc, error, document.run))
        return out

    def reads_in_order(self, uid: str, descriptor: str) -> bool:
        """Return whether :meth:`in_order` can read the next Events of a descriptor, as long as they are in order."""
        run = self._runs.get(uid)
        return run is not None and run.reads_in_order(descriptor)

    def in_order(self, uid: str, documents: Sequence[Received]) -> Iterator[FrameOutcome]:
        """Process Events of one descriptor for which :meth:`reads_in_order` holds, as single calls would."""
        run = self._runs[uid]
        yield from run.in_order(documents, self._formed)
        self.points = run.points or self.points

    def positions(self, uid: str) -> dict[str, list[int]] | None:
        """Return the positions of a run as :meth:`RunAssembler.positions` does."""
        run = self._runs.get(uid)
        return None if run is None else run.positions()

    def _read(self, document: RunDocument) -> Iterator[FrameOutcome]:
        uid = document.run.uid
        if document.name == "event":
            run = self._runs[uid]
            yield from run.event(document.doc, document.at, self._formed.get(id(document.doc)))
            self.points = run.points or self.points
        elif document.name == "start":
            self._start(document)
        elif document.name == "descriptor":
            yield from self._runs[uid].open(document.doc)
        elif document.name == "stop":
            run = self._runs.pop(uid)
            self.points = None
            self._keep_parameters(run)
            yield from run.finish(document.doc)

    def _start(self, document: RunDocument) -> None:
        info = document.run
        past = self.past.pop(info.uid, None)
        made = RunAssembler(info, self._fields, self.samples, self._unread, self.thinning, past)
        run = self._runs.setdefault(info.uid, made)
        run.begin(info)
        for earlier in self._runs.values():  # a robot run whose stop was lost is over once its sample is measured
            if earlier is not run and earlier.info.sample_uid == info.sample_uid:
                self._keep_parameters(earlier)

    def _keep_parameters(self, run: RunAssembler) -> None:
        """Keep the sample parameters of a robot run."""
        sample = run.info.sample_uid
        if sample is not None and run.parameters and not run.measures:
            self.samples[sample] = {**self.samples.get(sample, {}), **run.parameters}
