"""Turns the start, descriptors and Events of one run into frames."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..fields import (
    FOIL_ROLES,
    FieldSettings,
    StreamFields,
    UnreadableStream,
    energy_candidates,
    find_missing_fields,
    has_i0,
    resolve,
    with_measured_form,
)
from ..types import Array, Reason, Received, RunInfo, SetAside, as_count, get_logger, size_of
from .columns import (
    announced_events,
    document_time,
    energy_column,
    finite_scalars,
    read_energy,
    read_point_time,
    read_vector,
)
from .frames import FrameOutcome, RunFrames, Thinning
from .guess import guess_energy
from .missing import MissingData, why_incomplete
from .notes import RepeatedNotes, join_notes
from .sequence import MAX_SWEEP_POINTS, PointBuffer, ScanPoint, SequenceNumbers
from .spectrum_stream import MAX_WAITING_BYTES, MAX_WAITING_SPECTRA, SpectrumStream, StreamDescriptor
from .sweeps import SweepSpectrum, UnusableError
from .unread import UnreadStreams

Doc = Mapping[str, Any]

GAP_NOTE_S = 10.0
"""Shortest time between two notes on missing Events in a stream of whole spectra, s."""

_log = get_logger()


class RunAssembler:
    """Assembles the frames of one run.

    Parameters
    ----------
    samples : parameters from robot runs, by ``sample_uid``; frames carry those of their sample
    unread : reports streams that are not read, each once over all runs
    thinning : selects the frames to leave out under overload
    past : positions, as in :meth:`positions`, at which an earlier process stopped reading, by stream
    """

    def __init__(
        self,
        info: RunInfo,
        settings: FieldSettings,
        samples: Mapping[str, Mapping[str, float]],
        unread: UnreadStreams,
        thinning: Thinning,
        past: Mapping[str, list[int]] | None = None,
    ) -> None:
        self.info = info
        self.stop: Doc | None = None
        self.measures = False
        """Whether the run records the beam; its scalars are then not parameters of the sample."""
        self.parameters: dict[str, float] = {}
        """Scalars of a run with a sample; they become the sample's parameters unless the run measures."""
        self._descriptors: dict[str, StreamDescriptor] = {}
        self._streams: dict[str, SpectrumStream] = {}
        self._settings = settings
        self._frames = RunFrames(info, settings, samples, thinning)
        self._past = past or {}
        if self._past:
            (self._frames.count,) = self._past[""]
        self._as_announced = True
        """Whether the streams are read as the descriptors alone announce them."""
        self._grid: Array | None = None
        self._grids_differ = False
        self._late = RepeatedNotes()
        self._missing = MissingData(settings, self._frames, unread)
        self.points: tuple[int, int] | None = None
        """Number of points of the step scan in progress, and its planned number (0 if unknown)."""
        self.planned = 0
        """Number of points that the RunStart announces; 0 if it announces none."""

    def begin(self, info: RunInfo) -> None:
        """Read the RunStart; it may arrive after descriptors, if the book gave it up."""
        self.info = self._frames.info = info
        planned = info.start.get("num_points")
        self.planned = as_count(planned) or 0
        if info.watched and planned is not None and as_count(planned) is None:
            _log.warning(
                "num_points is no whole number: a scan that ends early is not noticed by it",
                run=info.uid,
                num_points=reprlib.repr(planned).strip("'"),  # limits values that are nested deeply
                **info.scan.named(),
            )
        if info.sample_uid is not None:
            for key in ("parameters", "robot"):
                recorded = info.start.get(key)
                self.parameters |= finite_scalars(recorded) if isinstance(recorded, Mapping) else {}

    def open(self, doc: Doc) -> Iterator[FrameOutcome]:
        """Find the fields of a spectrum in a descriptor."""
        name, keys = str(doc.get("name", "primary")), doc["data_keys"]
        descriptor = self._descriptors[doc["uid"]] = StreamDescriptor(name, doc)
        fields = resolve(self._settings, doc, self.info.start)
        self.measures |= isinstance(fields, StreamFields)
        if not self.info.watched:
            self.measures |= self._settings.reads(name) and has_i0(self._settings, keys)
            return
        if isinstance(fields, UnreadableStream):
            self._missing.unreadable = True
            yield SetAside(self.info.uid, doc["uid"], document_time(doc), fields.reason, fields.detail)
        if fields is None or (isinstance(fields, StreamFields) and fields.energy is None and fields.grid is None):
            descriptor.candidates = energy_candidates(self._settings, doc, self.info.start)
            self._as_announced &= not descriptor.candidates
            self.measures |= bool(descriptor.candidates)
        if isinstance(fields, StreamFields):
            yield from self._read_as(descriptor, fields)

    def _read_as(self, descriptor: StreamDescriptor, fields: StreamFields) -> Iterator[SetAside]:
        """Begin to read the Events of a descriptor."""
        name, doc = descriptor.name, descriptor.doc
        stream = self._streams.get(name)
        if stream is None:
            points = PointBuffer(self._settings.min_points) if fields.form == "step" else None
            stream = self._streams[name] = SpectrumStream(
                name, fields, points.order if points else SequenceNumbers(), points, (*fields.used, *fields.readings)
            )
            _log.info(
                "reading",
                run=self.info.uid,
                stream=name,
                what=fields.describe(),
                element=self.info.element,
                edge=self.info.edge,
                **self.info.scan.named(),
            )
            if name in self._past:
                stream.restore(self._past[name])
            if missing := find_missing_fields(self._settings, [doc], FOIL_ROLES):
                _log.warning("field missing, read without", run=self.info.uid, stream=name, **missing)
        elif fields != stream.fields and "step" in (fields.form, stream.fields.form):
            detail = f"{name}: {fields.describe()}, before {stream.fields.describe()}"
            yield SetAside(self.info.uid, doc["uid"], document_time(doc), Reason.FIELDS_CHANGED, detail)
            return
        descriptor.fields, descriptor.stream = fields, stream

    def describes(self, descriptor: str) -> bool:
        """Whether a descriptor with this uid belongs to the run."""
        return descriptor in self._descriptors

    def form_together(self, docs: Sequence[Doc]) -> list[SweepSpectrum | None]:
        """Form the spectra of a descriptor's Events in advance of :meth:`event`; None for spectra to form alone."""
        descriptor = self._descriptors.get(docs[0]["descriptor"])
        stream = None if descriptor is None else descriptor.stream
        if descriptor is None or descriptor.fields is None or descriptor.candidates or stream is None:
            return [None] * len(docs)
        fields, data = descriptor.fields, docs[0]["data"]
        unseen = not stream.order.count and fields.energy is not None
        if stream.points is not None or (unseen and with_measured_form(descriptor.doc, fields.energy or "", data)):
            return [None] * len(docs)
        return self._frames.form_together(fields, docs, self._grid if fields.grid is None else fields.grid)

    def event(self, doc: Doc, received: float, formed: SweepSpectrum | None = None) -> Iterator[FrameOutcome]:
        """Process one Event; an Event that repeats an earlier one gives no frame."""
        descriptor = self._descriptors[doc["descriptor"]]
        if descriptor.stream is not None and not descriptor.stream.order.count:  # its first Event
            yield from self._correct_form(descriptor, doc)
            descriptor = self._descriptors[doc["descriptor"]]
        stream, fields = descriptor.stream, descriptor.fields
        if descriptor.candidates and self._grid is None:
            yield from self._guess_energy(descriptor, doc, received)
            if descriptor.unread:
                return
            stream, fields = descriptor.stream, descriptor.fields
        if stream is None or fields is None:
            descriptor.events += 1
            if descriptor.events == self._settings.min_points:
                self._warn_of_unread(self._settings.min_points)
            if self.info.sample_uid and descriptor.name != "baseline":
                self.parameters |= finite_scalars(doc["data"])
            return
        if stream.points is None:
            seq, uid = int(doc["seq_num"]), str(doc["uid"])
            accepted = stream.order.accept(seq)
            if accepted and uid not in stream.answered:
                stream.answered[uid] = None
                yield from self._whole_spectrum(stream, descriptor, doc, received, formed)
            elif not accepted and uid not in stream.answered:
                self._missing.note_measured_again(stream, seq)
            if stream.order.given_up > stream.reported and received >= stream.report_from:
                stream.report_from = received + GAP_NOTE_S
                yield self._missing.gap(stream, stream.order.given_up, document_time(doc))
            return
        yield from self._point(stream, fields, doc, received)

    def reads_in_order(self, descriptor: str) -> bool:
        """Return whether the fields of a descriptor are known and checked, and none of its Events is missing."""
        known = self._descriptors.get(descriptor)
        if known is None or known.stream is None or known.fields is None or known.candidates:
            return False
        order = known.stream.order
        if known.stream.points is not None:
            return order.count > 0
        return order.count > 0 and not order.ahead and order.given_up <= known.stream.reported

    def in_order(self, documents: Sequence[Received], formed: Mapping[int, SweepSpectrum]) -> Iterator[FrameOutcome]:
        """Process Events of one descriptor for which :meth:`reads_in_order` holds, as :meth:`event` would one by one.

        ``formed`` holds the spectra formed in advance, by the ``id`` of their Event.
        """
        descriptor = self._descriptors[documents[0].doc["descriptor"]]
        stream, fields = descriptor.stream, descriptor.fields
        assert stream is not None
        assert fields is not None
        for document in documents:
            try:
                if stream.points is not None:
                    found = self._point(stream, fields, document.doc, document.at)
                elif (spectrum := formed.get(id(document.doc))) is not None:
                    found = self._formed_spectrum(stream, fields, document, spectrum)
                else:
                    found = list(self.event(document.doc, document.at))
                if found:
                    yield from join_notes(found)
            except Exception as error:
                yield malformed(document.name, document.doc, error, self.info)

    def _formed_spectrum(
        self, stream: SpectrumStream, fields: StreamFields, document: Received, spectrum: SweepSpectrum
    ) -> list[FrameOutcome]:
        """Process a whole-spectrum Event whose spectrum was formed in advance."""
        doc, order, answered = document.doc, stream.order, stream.answered
        uid = str(doc["uid"])
        if doc["seq_num"] != order.ready + 1 or uid in answered:
            return list(self.event(doc, document.at, spectrum))
        order.accept_next(1)
        answered[uid] = None
        return [self._frames.of_formed(stream.name, fields, doc, document.at, spectrum)]

    def _point(self, stream: SpectrumStream, fields: StreamFields, doc: Doc, received: float) -> list[FrameOutcome]:
        """Process a point of a step scan."""
        assert stream.points is not None
        seq, data, points = int(doc["seq_num"]), doc["data"], stream.points
        kept = {key: data[key] for key in stream.keys if key in data}  # without images and texts
        point = ScanPoint(read_energy(data, fields), read_point_time(data, fields, doc), received, kept)
        if points.add(seq, point) is None:
            out = [*self._report_late(doc)]
        elif sweeps := points.closed():
            out = [*self._frames.of_sweeps(stream.name, stream.fields, sweeps)]
        else:
            out = []
        self.points = points.pending, self.planned
        return out

    def _correct_form(self, descriptor: StreamDescriptor, doc: Doc) -> Iterator[FrameOutcome]:
        """Read a descriptor again if the first Event of its stream has another form than announced."""
        if descriptor.fields is None or descriptor.fields.energy is None:
            return
        corrected = with_measured_form(descriptor.doc, descriptor.fields.energy, doc["data"])
        if corrected is not None:
            del self._streams[descriptor.name]
            self._as_announced = False
            yield from self.open(corrected)

    def _guess_energy(self, descriptor: StreamDescriptor, doc: Doc, received: float) -> Iterator[FrameOutcome]:
        """Search the values for the energy; the Events of a step scan wait until it is found."""
        if descriptor.stream is not None:  # whole spectra
            data = doc["data"]
            yield from self._decide_energy(descriptor, [data])
            return
        descriptor.unread.append((doc, received))
        descriptor.unread_bytes += size_of(doc)
        count = len(descriptor.unread)
        full = count >= MAX_SWEEP_POINTS or descriptor.unread_bytes >= MAX_WAITING_BYTES
        if count.bit_count() == 1 or full:  # 16, 32, 64 …: few attempts in a long scan
            yield from self._decide_energy(descriptor, [event["data"] for event, _ in descriptor.unread])
        if full and descriptor.unread:
            yield self._missing.unknown_energy(descriptor)

    def _decide_energy(self, descriptor: StreamDescriptor, rows: list[Mapping[str, Any]]) -> Iterator[FrameOutcome]:
        """Read a stream with the energy that its values show, if any."""
        columns = {key: energy_column(rows, key) for key in descriptor.candidates}
        units = {key: about.get("units") for key, about in descriptor.doc["data_keys"].items()}
        absorber = (self.info.element, self.info.edge)
        fields = guess_energy(descriptor.candidates, columns, units, absorber, self._settings.min_points)
        if fields is None:
            return
        _log.warning("energy found by its values", run=self.info.uid, stream=descriptor.name, energy=fields.energy)
        descriptor.candidates = {}
        if descriptor.stream is not None:
            descriptor.fields = fields
            return
        yield from self._read_as(descriptor, fields)
        unread, descriptor.unread, descriptor.unread_bytes = descriptor.unread, [], 0
        for doc, received in unread:
            yield from self.event(doc, received)

    def positions(self) -> dict[str, list[int]] | None:
        """Return the position in each stream of spectra, and the number of frames under the stream name "".

        None as long as another reader could not continue from there.
        """
        positions = {name: stream.position() for name, stream in self._streams.items()}
        if not (self._as_announced and positions) or None in positions.values():
            return None
        return {"": [self._frames.count]} | {name: position or [] for name, position in positions.items()}

    def finish(self, stop: Doc) -> Iterator[FrameOutcome]:
        """Return the frames that the end of the run completes; ``stop`` is empty if it did not arrive."""
        self.stop, descriptors = stop or None, self._descriptors.values()
        for descriptor in descriptors:
            if descriptor.unread:
                yield from self._decide_energy(descriptor, [event["data"] for event, _ in descriptor.unread])
            if descriptor.unread:
                yield self._missing.unknown_energy(descriptor)
        # The few Events of a robot's run do not form a spectrum.
        self._warn_of_unread(0 if self.info.sample_uid is None else self._settings.min_points)
        yield from self._missing.of_fields(descriptors, self._streams.values(), stop)
        yield from self._missing.of_streams(descriptors, stop)
        announced = announced_events(stop)
        for stream in self._streams.values():
            if (again := stream.measured_again) > 1:
                named = self.info.scan.named()
                _log.info("events measured again", run=self.info.uid, stream=stream.name, number=again, **named)
            end = self._end_of_spectra if stream.points is None else self._end_of_points
            yield from end(stream, announced.get(stream.name), stop)
        yield from self._late.further("")
        yield from self._frames.finish()

    def _warn_of_unread(self, min_events: int) -> None:
        if not self._streams:
            self._missing.warn_of_unread(self._descriptors.values(), min_events)

    def _end_of_points(self, stream: SpectrumStream, announced: int | None, stop: Doc) -> Iterator[FrameOutcome]:
        """Return the last sweep of a step scan; ``announced`` is the number of its Events, if known."""
        assert stream.points is not None
        if stream.points.outdated:
            _log.warning(
                "repeated points are dated before the first ones and not used: did a clock step back?",
                run=self.info.uid,
                stream=stream.name,
                points=stream.points.outdated,
                **self.info.scan.named(),
            )
        sweeps, last = stream.points.finish(announced)
        if last is not None:
            cut = why_incomplete(stream, self.planned, announced, self.stop)
            yield from self._frames.of_sweeps(stream.name, stream.fields, [*sweeps, last], cut)
        elif not stream.points.order.count:
            yield self._missing.nothing_came(stream, announced, stop)

    def _end_of_spectra(self, stream: SpectrumStream, announced: int | None, stop: Doc) -> Iterator[FrameOutcome]:
        """Report whole spectra that did not arrive, or that arrived without energies."""
        for _, doc, _ in stream.waiting:
            detail = f"stream {stream.name} came without the energies of its spectra"
            yield self._frames.set_aside(str(doc["uid"]), document_time(doc), Reason.NO_ENERGY, detail)
        if stream.fields.formula and not stream.order.count:
            yield self._missing.nothing_came(stream, announced, stop)
        elif (missing := stream.order.missing(announced)) > stream.reported:
            yield self._missing.gap(stream, missing, document_time(stop))

    def _report_late(self, doc: Doc) -> Iterator[FrameOutcome]:
        """Report the first late Event, and later the number of others: an unordered stream may have thousands."""
        detail = f"seq_num {doc['seq_num']}: its sweep was already closed"
        note = SetAside(self.info.uid, str(doc.get("uid", "")), document_time(doc), Reason.LATE, detail)
        self._late.add("", note)
        yield from self._late.take()

    def _whole_spectrum(
        self,
        stream: SpectrumStream,
        descriptor: StreamDescriptor,
        doc: Doc,
        received: float,
        formed: SweepSpectrum | None = None,
    ) -> Iterator[FrameOutcome]:
        """Make frames of a whole-spectrum Event, or keep it until its energies arrive."""
        fields = descriptor.fields
        assert fields is not None
        if fields.formula is None:
            yield from self._energies(fields, doc)
            return
        grid = fields.grid if fields.grid is not None else self._grid
        room = len(stream.waiting) < MAX_WAITING_SPECTRA and stream.waiting_bytes < MAX_WAITING_BYTES
        if fields.energy is None and grid is None and room:
            stream.waiting.append((descriptor, doc, received))
            stream.waiting_bytes += size_of(doc)
        elif fields.energy is None and fields.grid is None and self._grids_differ:
            detail = "the run has several energy axes"
            yield self._frames.set_aside(str(doc["uid"]), document_time(doc), Reason.ENERGY_AMBIGUOUS, detail)
        else:
            yield from self._frames.of_event(stream.name, fields, doc, grid, received, formed)

    def _energies(self, fields: StreamFields, doc: Doc) -> Iterator[FrameOutcome]:
        """Keep energies that one stream records for the spectra of another."""
        assert fields.energy is not None
        try:
            grid = fields.in_ev(read_vector(doc["data"], fields.energy, is_energy=True))
        except UnusableError as error:
            yield SetAside(self.info.uid, str(doc["uid"]), document_time(doc), error.reason, error.detail)
            return
        if self._grid is not None:
            self._grids_differ |= not np.array_equal(self._grid, grid)
            return
        self._grid = grid
        for stream in self._streams.values():
            waiting, stream.waiting, stream.waiting_bytes = stream.waiting, [], 0
            for held, event, received in waiting:
                yield from self._whole_spectrum(stream, held, event, received)


def malformed(name: str, doc: Doc, error: Exception, run: RunInfo | None = None) -> SetAside:
    """Return the note on an unreadable document; for a run that is not watched, the note belongs to no run."""
    detail = f"{name}: {type(error).__name__} {error}"[:300]
    run_uid = run.uid if run is not None and run.watched else ""
    return SetAside(run_uid, str(doc.get("uid", "")), 0.0, Reason.MALFORMED_DOCUMENT, detail)
