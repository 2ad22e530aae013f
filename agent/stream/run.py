"""One run: its start, descriptors and events, made into frames."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..fields import (
    FOIL_ROLES,
    FieldSettings,
    StreamFields,
    UnreadableStream,
    describe_missing_fields,
    find_missing_fields,
    has_i0,
    resolve,
)
from ..types import Array, Frame, Reason, RunInfo, SetAside, get_logger
from .columns import (
    announced_events,
    average_readings,
    document_time,
    finite_scalars,
    read_energy,
    read_event_columns,
    read_point_time,
    read_sweep_columns,
    read_vector,
)
from .sequence import MIN_HOLE_POINTS, PointBuffer, ScanPoint, SequenceNumbers, Sweep
from .sweeps import SweepSpectrum, UnusableError, form_spectrum, split_sweeps, strip_padding

Outcome = Frame | SetAside
Doc = Mapping[str, Any]

MAX_WAITING_SPECTRA = 1000
"""Whole spectra of one stream that wait for their energies."""

_log = get_logger()


@dataclass(slots=True)
class Stream:
    """A stream of spectra. Its descriptors may change within the run, its numbering goes on."""

    name: str
    channels: StreamFields
    order: SequenceNumbers
    points: PointBuffer | None
    """Of a step scan; None for whole spectra."""
    waiting: list[tuple["Descriptor", Doc, float]] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """The uids of the whole-spectrum Events read."""


@dataclass(slots=True)
class Descriptor:
    """A descriptor, and where its events go; ``stream`` is None where there is nothing to read."""

    name: str
    doc: Doc
    channels: StreamFields | None = None
    stream: Stream | None = None


class Run:
    """The frames of one run.

    ``samples`` are the robot's parameters by ``sample_uid``; frames carry those of their sample.
    """

    def __init__(self, info: RunInfo, fields: FieldSettings, samples: Mapping[str, Mapping[str, float]]) -> None:
        self.info = info
        self.stop: Doc | None = None
        self.measures = False
        """Whether it records the beam: then its scalars are no parameters of its sample."""
        self.robot: dict[str, float] = {}
        """Scalars of a run that has a sample; kept as the sample's parameters unless the run measures."""
        self._descriptors: dict[str, Descriptor] = {}
        self._streams: dict[str, Stream] = {}
        self._fields = fields
        self._samples = samples
        self._frames = 0
        self._grid: Array | None = None
        self._grids_differ = False
        self._late_reported = False
        self._unreadable = False

    def begin(self, info: RunInfo) -> None:
        """Take in the RunStart, which may come after descriptors where it was given up."""
        self.info = info
        if info.sample_uid is not None:
            for key in ("parameters", "robot"):
                given = info.start.get(key)
                self.robot |= finite_scalars(given) if isinstance(given, Mapping) else {}

    def open(self, doc: Doc) -> Iterator[Outcome]:
        """Find out what a descriptor's events hold."""
        name, keys = str(doc.get("name", "primary")), doc["data_keys"]
        descriptor = self._descriptors[doc["uid"]] = Descriptor(name, doc)
        found = resolve(self._fields, doc, self.info.start)
        self.measures |= isinstance(found, StreamFields)
        if not self.info.watched:
            self.measures |= self._fields.reads(name) and has_i0(self._fields, keys)
            return
        if isinstance(found, UnreadableStream):
            self._unreadable = True
            yield SetAside(self.info.uid, doc["uid"], document_time(doc), found.reason, found.detail)
        if not isinstance(found, StreamFields):
            _log.debug("stream not read", stream=name, fields=list(keys))
            return
        stream = self._streams.get(name)
        if stream is None:
            points = PointBuffer(self._fields.min_points) if found.form == "step" else None
            stream = self._streams[name] = Stream(name, found, points.order if points else SequenceNumbers(), points)
            _log.info(
                "reading",
                run=self.info.uid,
                stream=name,
                what=found.describe(),
                element=self.info.element,
                edge=self.info.edge,
            )
            if lacking := find_missing_fields(self._fields, [doc], FOIL_ROLES):
                _log.warning("field missing, read without", run=self.info.uid, stream=name, **lacking)
        elif found != stream.channels and "step" in (found.form, stream.channels.form):
            detail = f"{name}: {found.describe()}, before {stream.channels.describe()}"
            yield SetAside(self.info.uid, doc["uid"], document_time(doc), Reason.FIELDS_CHANGED, detail)
            return
        descriptor.channels, descriptor.stream = found, stream

    def event(self, doc: Doc, received: float) -> Iterator[Outcome]:
        """Take in one Event; one that is repeated gives nothing."""
        descriptor = self._descriptors[doc["descriptor"]]
        stream, channels = descriptor.stream, descriptor.channels
        if stream is None or channels is None:
            if self.info.sample_uid and descriptor.name != "baseline":
                self.robot |= finite_scalars(doc["data"])
            return
        seq, data = int(doc["seq_num"]), doc["data"]
        if stream.points is None:
            uid = str(doc["uid"])
            if stream.order.accept(seq) and uid not in stream.answered:
                stream.answered.add(uid)
                yield from self._whole(stream, descriptor, doc, received)
            return
        point = ScanPoint(read_energy(data, channels), read_point_time(data, channels, doc), received, data)
        if stream.points.add(seq, point) is None:
            yield from self._late(doc)
        elif sweeps := stream.points.closed():
            yield from self._sweeps(stream, sweeps)

    def finish(self, stop: Doc) -> Iterator[Outcome]:
        """Give out what the end of the run closes; ``stop`` is empty where it never came."""
        self.stop = stop or None
        yield from self._nothing_read()
        announced = announced_events(stop)
        for stream in self._streams.values():
            total = announced.get(stream.name)
            if stream.points is not None:
                sweeps, last = stream.points.finish(total)
                if last is not None:
                    yield from self._sweeps(stream, [*sweeps, last], _cut_short(self, stream, total))
                continue
            for _, doc, _ in stream.waiting:
                self._frames += 1
                detail = f"stream {stream.name} came without the energies of its spectra"
                yield SetAside(
                    self.info.uid, str(doc["uid"]), document_time(doc), Reason.NO_ENERGY, detail, self._frames
                )
            if missing := stream.order.missing(total):
                detail = f"{missing} events of stream {stream.name} never came"
                yield SetAside(self.info.uid, self.info.uid, document_time(stop), Reason.EVENTS_LOST, detail)

    def _nothing_read(self) -> Iterator[Outcome]:
        """Report configured fields that no stream has. A robot's run has none of them."""
        streams = [d for d in self._descriptors.values() if self._fields.reads(d.name)]
        reported = self._unreadable or any(stream.channels.formula for stream in self._streams.values())
        if not self.info.watched or reported or not streams:
            return
        lacking = find_missing_fields(self._fields, (d.doc for d in streams))
        robot = not self.info.start or self.info.sample_uid is not None
        if lacking and not (robot and lacking == find_missing_fields(self._fields, ())):
            keys = dict.fromkeys(key for d in streams for key in d.doc["data_keys"])
            found = describe_missing_fields(lacking.values(), dict.fromkeys(d.name for d in streams), keys)
            yield SetAside(self.info.uid, self.info.uid, document_time(self.stop or {}), found.reason, found.detail)

    def _late(self, doc: Doc) -> Iterator[Outcome]:
        """Report once per run that events came too late: in a stream out of order there may be thousands."""
        if not self._late_reported:
            self._late_reported = True
            detail = f"seq_num {doc['seq_num']}: its sweep was already judged"
            yield SetAside(self.info.uid, str(doc.get("uid", "")), document_time(doc), Reason.LATE, detail)

    def _sweeps(self, stream: Stream, sweeps: list[Sweep], cut: Reason | None = None) -> Iterator[Outcome]:
        """Make frames of the sweeps of a step scan; ``cut`` is why the last of them may not be whole."""
        if _only_turns([len(s.points) for s in sweeps], self._fields.min_points):
            self._frames += 1
            detail = f"it turns {len(sweeps) - 1} times in {sum(len(s.points) for s in sweeps)} points"
            time = sweeps[-1].points[-1].time
            yield SetAside(
                self.info.uid,
                self._sweep_uid(stream, sweeps[0]),
                time,
                Reason.ENERGY_NOT_MONOTONIC,
                detail,
                self._frames,
            )
            return
        for sweep in sweeps:
            yield self._sweep(stream, sweep, cut if sweep is sweeps[-1] else None)

    def _sweep(self, stream: Stream, sweep: Sweep, cut: Reason | None) -> Outcome:
        self._frames += 1
        points, channels, uid = sweep.points, stream.channels, self._sweep_uid(stream, sweep)
        rows = [p.data for p in points]
        try:
            self._refuse_torn(sweep, cut)
            found = form_spectrum(
                read_sweep_columns(channels, rows), channels.formula, self._fields.min_points, self._fields.bin_ev
            )
        except UnusableError as error:
            return SetAside(self.info.uid, uid, points[-1].time, error.reason, error.detail, self._frames)
        readings = average_readings(rows, channels.readings)
        received = max(p.received for p in points)
        return self._frame(stream.name, channels, found, uid, points[-1].time, received, readings, sum(sweep.gaps))

    def _sweep_uid(self, stream: Stream, sweep: Sweep) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.info.uid}/{stream.name}/{sweep.number}"))

    def _refuse_torn(self, sweep: Sweep, cut: Reason | None) -> None:
        """Refuse a sweep with a hole: one at the edge makes a wrong number with a confident face."""
        missing, came = sum(sweep.gaps), len(sweep.points)
        if sweep.overfull:
            raise UnusableError(Reason.TOO_MANY_POINTS, f"the energy did not turn round within {came} points")
        if self.info.joined_late and sweep.lost_first:
            raise UnusableError(Reason.TRUNCATED, f"its first {sweep.gaps[0]} points came before the agent listened")
        if missing > self._fields.max_missing_fraction * (missing + came) or any(
            gap >= MIN_HOLE_POINTS for gap in sweep.gaps
        ):
            detail = f"{missing} lost in or beside {came} points, at most {max(sweep.gaps)} together"
            raise UnusableError(Reason.POINTS_LOST, detail)
        if sweep.torn:
            raise UnusableError(Reason.POINTS_LOST, "where the energy turned round")
        if cut:
            raise UnusableError(cut, f"after {came} points")

    def _whole(self, stream: Stream, descriptor: Descriptor, doc: Doc, received: float) -> Iterator[Outcome]:
        """Make frames of a whole-spectrum Event, one for each sweep that its energies make."""
        channels, data, keys = descriptor.channels, doc["data"], descriptor.doc["data_keys"]
        assert channels is not None
        if channels.formula is None:
            yield from self._energies(channels, doc, keys)
            return
        grid = channels.grid if channels.grid is not None else self._grid
        if channels.energy is None and grid is None and len(stream.waiting) < MAX_WAITING_SPECTRA:
            stream.waiting.append((descriptor, doc, received))
            return
        uid, time, least = str(doc["uid"]), document_time(doc), self._fields.min_points
        try:
            if channels.energy is None and channels.grid is None and self._grids_differ:
                raise UnusableError(Reason.ENERGY_AMBIGUOUS, "the run has several energy axes")
            columns = strip_padding(read_event_columns(channels, data, keys, grid))
            parts = split_sweeps(columns["energy"]) or [slice(0, 0)]
            if _only_turns([part.stop - part.start for part in parts], least):
                detail = f"it turns {len(parts) - 1} times in {columns['energy'].size} points"
                raise UnusableError(Reason.ENERGY_NOT_MONOTONIC, detail)
        except UnusableError as error:
            self._frames += 1
            yield SetAside(self.info.uid, uid, time, error.reason, error.detail, self._frames)
            return
        readings = finite_scalars({key: data[key] for key in channels.readings if key in data})
        for number, part in enumerate(parts, 1):
            own = uid if len(parts) == 1 else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/{number}"))
            self._frames += 1
            sweep = {role: c[part] for role, c in columns.items()}
            at = float(sweep["time"][-1]) if "time" in sweep and np.isfinite(sweep["time"][-1:]).all() else time
            try:
                found = form_spectrum(sweep, channels.formula, least, self._fields.bin_ev)
            except UnusableError as error:
                yield SetAside(self.info.uid, own, at, error.reason, error.detail, self._frames)
            else:
                yield self._frame(stream.name, channels, found, own, at, received, readings)

    def _energies(self, channels: StreamFields, doc: Doc, keys: Mapping[str, Any]) -> Iterator[Outcome]:
        """Keep the energies that one stream measures for the spectra of another."""
        assert channels.energy is not None
        try:
            grid = channels.in_ev(read_vector(doc["data"], channels.energy, keys[channels.energy].get("shape")))
        except UnusableError as error:
            yield SetAside(self.info.uid, str(doc["uid"]), document_time(doc), error.reason, error.detail)
            return
        if self._grid is not None:
            self._grids_differ |= not np.array_equal(self._grid, grid)
            return
        self._grid = grid
        for stream in self._streams.values():
            waiting, stream.waiting = stream.waiting, []
            for held, event, received in waiting:
                yield from self._whole(stream, held, event, received)

    def _frame(
        self,
        stream: str,
        channels: StreamFields,
        found: SweepSpectrum,
        uid: str,
        time: float,
        received: float,
        readings: Mapping[str, float],
        points_missing: int = 0,
    ) -> Frame:
        return Frame(
            uid=uid,
            run_uid=self.info.uid,
            seq_num=self._frames,
            time=time,
            energy=found.energy,
            mu=found.mu,
            reference=found.reference,
            normalised=channels.formula == "normalised",
            formula=channels.formula or "transmission",
            element=self.info.element,
            edge=self.info.edge,
            stream=stream,
            direction=found.direction,
            points_missing=points_missing,
            sample_uid=self.info.sample_uid,
            readings={**self._samples.get(self.info.sample_uid or "", {}), **readings},
            received=received,
        )


def _only_turns(points: list[int], least: int) -> bool:
    """Whether the energy goes to and fro without a sweep that is long enough."""
    return len(points) > 2 and max(points) < least


def _cut_short(run: Run, stream: Stream, measured: int | None) -> Reason | None:
    """Return why the last sweep of a run may have ended too early, or None."""
    number = run.info.start.get("num_points")
    planned = number if isinstance(number, int) else 0
    if planned and stream.order.count == planned:
        return None
    if run.stop is None:
        return Reason.RUN_NEVER_STOPPED
    if run.stop.get("exit_status", "success") != "success" or (measured is not None and measured < planned):
        return Reason.SWEEP_CUT_SHORT
    return None
