"""One run: what its start, descriptors and events say, made into frames."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..fields import (
    FOIL,
    Channels,
    FieldMap,
    Unreadable,
    absent,
    element_and_edge,
    field_missing,
    has_i0,
    resolve,
    skipped_plan,
)
from ..types import Frame, SetAside, get_logger
from .columns import (
    announcements,
    energy_of,
    event_columns,
    mean_readings,
    point_time,
    scalars,
    sweep_columns,
    time_of,
    vector,
)
from .sequence import HOLE, Point, PointBuffer, SeqNums, Sweep
from .sweeps import Spectrum, UnusableError, spectrum, split_sweeps, strip_padding

Outcome = Frame | SetAside
Doc = Mapping[str, Any]

MAX_SEQ_NUM = 10_000_000
MAX_WAITING = 1000
"""Whole spectra of one stream that wait for their energies."""
OWN_STREAMS = frozenset({"descriptors", "spectra", "decisions", "quality"})
"""Streams of the agent's own runs, by which they are known where their start was lost."""

_log = get_logger()


@dataclass(slots=True)
class Stream:
    """A stream of spectra. Its descriptors may change within the run, its numbering goes on."""

    name: str
    channels: Channels
    order: SeqNums
    points: PointBuffer | None
    """Of a step scan; None for whole spectra."""
    waiting: list[tuple["Descriptor", Doc, float]] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """The uids of the whole-spectrum Events read."""


@dataclass(slots=True)
class Descriptor:
    """A descriptor, and where its events go; ``stream`` is None where there is nothing to read."""

    uid: str
    name: str
    doc: Doc
    channels: Channels | None = None
    stream: Stream | None = None


class Run:
    """What is known of one run.

    ``samples`` are the robot's parameters by ``sample_uid``; frames carry those of their sample.
    """

    def __init__(self, uid: str, fields: FieldMap, samples: Mapping[str, Mapping[str, float]]) -> None:
        self.uid = uid
        self.start: Doc | None = None
        self.stop: Doc | None = None
        self.own = False
        """Whether it is a run of the agent itself."""
        self.skipped = False
        """Whether its spectra are none of absorption."""
        self.measures = False
        """Whether it records the beam: then its scalars are no parameters of its sample."""
        self.joined_late = False
        self.sample_uid: str | None = None
        self.robot: dict[str, float] = {}
        """Scalars of a run that has a sample, of use where it measures nothing."""
        self.descriptors: dict[str, Descriptor] = {}
        self.streams: dict[str, Stream] = {}
        self._fields = fields
        self._samples = samples
        self._element, self._edge = element_and_edge(fields, {})
        self._frames = 0
        self._grid: NDArray[np.float64] | None = None
        self._grids_differ = False
        self._late_reported = False
        self._unreadable = False

    def begin(self, start: Doc) -> None:
        """Take in the RunStart."""
        self.start = start
        word = skipped_plan(self._fields, start)
        if word is not None:
            _log.info("spectra not read", run=self.uid, because=f"of its plan or kind: {word}")
        self.own, self.skipped = bool(start.get("xas_agent")), word is not None
        self._element, self._edge = element_and_edge(self._fields, start)
        sample = start.get("sample_uid")
        if isinstance(sample, str) and sample:
            self.sample_uid = sample
            for key in ("parameters", "robot"):
                given = start.get(key)
                self.robot |= scalars(given) if isinstance(given, Mapping) else {}

    def missing(self) -> int:
        """Return how many of the events that the stop announces have not come yet."""
        announced = announcements(self.stop or {})
        known = {d.name for d in self.descriptors.values()}
        unheard = sum(max(0, number) for name, number in announced.items() if name not in known)
        return unheard + sum(s.order.missing(announced.get(s.name, 0)) for s in self.streams.values())

    def unheard(self) -> bool:
        """Whether it has stopped and has a stream whose descriptor never came."""
        if self.stop is None or self.own or self.skipped:
            return False
        if not isinstance(self.stop.get("num_events"), Mapping):
            return not self.descriptors
        known = OWN_STREAMS | {d.name for d in self.descriptors.values()}
        return any(number > 0 and name not in known for name, number in announcements(self.stop or {}).items())

    def open(self, descriptor: Descriptor) -> Iterator[Outcome]:
        """Find out what a descriptor's events hold."""
        name, keys = descriptor.name, descriptor.doc["data_keys"]
        if self.own or (self.start is None and name in OWN_STREAMS):
            return
        found = resolve(self._fields, descriptor.doc, self.start or {})
        self.measures |= isinstance(found, Channels)
        if self.skipped:
            self.measures |= self._fields.reads(name) and has_i0(self._fields, keys)
            return
        if isinstance(found, Unreadable):
            self._unreadable = True
            yield SetAside(self.uid, descriptor.uid, time_of(descriptor.doc), found.reason, found.detail)
        if not isinstance(found, Channels):
            _log.debug("stream not read", stream=name, fields=list(keys))
            return
        stream = self.streams.get(name)
        if stream is None:
            points = PointBuffer(self._fields.min_points) if found.form == "step" else None
            stream = self.streams[name] = Stream(name, found, points.order if points else SeqNums(), points)
            _log.info(
                "reading", run=self.uid, stream=name, what=found.describe(), element=self._element, edge=self._edge
            )
            if lacking := absent(self._fields, [descriptor.doc], FOIL):
                _log.warning("field missing, read without", run=self.uid, stream=name, **lacking)
        elif found != stream.channels and "step" in (found.form, stream.channels.form):
            detail = f"{name}: {found.describe()}, before {stream.channels.describe()}"
            yield SetAside(
                self.uid, descriptor.uid, time_of(descriptor.doc), "fields changed within a stream", detail
            )
            return
        descriptor.channels, descriptor.stream = found, stream

    def event(self, descriptor: Descriptor, doc: Doc, received: float) -> Iterator[Outcome]:
        """Take in one Event; one that is repeated gives nothing."""
        stream, channels = descriptor.stream, descriptor.channels
        if stream is None or channels is None:
            if self.sample_uid and not self.own and descriptor.name != "baseline":
                self.robot |= scalars(doc["data"])
            return
        seq, data = doc["seq_num"], doc["data"]
        if not isinstance(seq, (int, np.integer)) or not 0 <= seq <= MAX_SEQ_NUM or not isinstance(data, dict):
            raise TypeError(f"seq_num {seq!r} or data of the wrong type")
        if stream.points is None:
            uid = str(doc["uid"])
            if stream.order.accept(int(seq)) and uid not in stream.answered:
                stream.answered.add(uid)
                yield from self._whole(stream, descriptor, doc, received)
            return
        point = Point(energy_of(data, channels), point_time(data, channels, doc), received, data)
        if stream.points.add(int(seq), point) is None:
            yield from self._late(doc, "its sweep was already judged")
        elif sweeps := stream.points.closed():
            yield from self._sweeps(stream, sweeps)

    def late(self, descriptor: Descriptor, doc: Doc) -> Iterator[Outcome]:
        """Tell of an event that came after the run was closed; one that is only repeated is passed over."""
        stream = descriptor.stream
        if stream is not None and stream.order.accept(int(doc["seq_num"])):
            yield from self._late(doc, "its run was already closed")

    def finish(self) -> Iterator[Outcome]:
        """Give out what the end of the run closes, and drop the data."""
        yield from self._nothing_read()
        announced = announcements(self.stop or {})
        for stream in self.streams.values():
            total = announced.get(stream.name)
            if stream.points is not None:
                sweeps, last = stream.points.finish(total)
                if last is not None:
                    yield from self._sweeps(stream, [*sweeps, last], _cut_short(self, stream, total))
                stream.points = None
                continue
            for _, doc, _ in stream.waiting:
                self._frames += 1
                detail = f"stream {stream.name} came without the energies of its spectra"
                yield SetAside(self.uid, str(doc["uid"]), time_of(doc), "no energy", detail, self._frames)
            stream.waiting = []
            if missing := stream.order.missing(total):
                detail = f"{missing} events of stream {stream.name} never came"
                yield SetAside(self.uid, self.uid, time_of(self.stop or {}), "events lost", detail)
            stream.answered = set()
        self.start, self._grid = None, None
        for descriptor in self.descriptors.values():
            descriptor.doc = {}

    def _nothing_read(self) -> Iterator[Outcome]:
        """Tell of configured fields that no stream has. A robot's run has none of them."""
        streams = [d for d in self.descriptors.values() if self._fields.reads(d.name) and d.name not in OWN_STREAMS]
        told = self._unreadable or any(stream.channels.formula for stream in self.streams.values())
        if self.own or self.skipped or told or not streams:
            return
        lacking = absent(self._fields, (d.doc for d in streams))
        robot = self.start is None or self.sample_uid is not None
        if lacking and not (robot and lacking == absent(self._fields, ())):
            keys = dict.fromkeys(key for d in streams for key in d.doc["data_keys"])
            found = field_missing(lacking.values(), dict.fromkeys(d.name for d in streams), keys)
            yield SetAside(self.uid, self.uid, time_of(self.stop or {}), found.reason, found.detail)

    def _late(self, doc: Doc, why: str) -> Iterator[Outcome]:
        """Say once per run that events came too late: in a stream out of order there may be thousands."""
        if not self._late_reported:
            self._late_reported = True
            yield SetAside(
                self.uid, str(doc.get("uid", "")), time_of(doc), "late", f"seq_num {doc['seq_num']}: {why}"
            )

    def _sweeps(self, stream: Stream, sweeps: list[Sweep], cut: str | None = None) -> Iterator[Outcome]:
        """Make frames of the sweeps of a step scan; ``cut`` is why the last of them may not be whole."""
        if _only_turns([len(s.points) for s in sweeps], self._fields.min_points):
            self._frames += 1
            detail = f"it turns {len(sweeps) - 1} times in {sum(len(s.points) for s in sweeps)} points"
            time = sweeps[-1].points[-1].time
            yield SetAside(
                self.uid, self._sweep_uid(stream, sweeps[0]), time, "energy not monotonic", detail, self._frames
            )
            return
        for sweep in sweeps:
            yield self._sweep(stream, sweep, cut if sweep is sweeps[-1] else None)

    def _sweep(self, stream: Stream, sweep: Sweep, cut: str | None) -> Outcome:
        self._frames += 1
        points, channels, uid = sweep.points, stream.channels, self._sweep_uid(stream, sweep)
        rows = [p.data for p in points]
        try:
            self._refuse_torn(sweep, cut)
            found = spectrum(
                sweep_columns(channels, rows), channels.formula, self._fields.min_points, self._fields.bin_ev
            )
        except UnusableError as error:
            return SetAside(self.uid, uid, points[-1].time, error.reason, error.detail, self._frames)
        readings = mean_readings(rows, channels.readings)
        received = max(p.received for p in points)
        return self._frame(stream.name, channels, found, uid, points[-1].time, received, readings, sum(sweep.gaps))

    def _sweep_uid(self, stream: Stream, sweep: Sweep) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.uid}/{stream.name}/{sweep.number}"))

    def _refuse_torn(self, sweep: Sweep, cut: str | None) -> None:
        """Refuse a sweep with a hole: one at the edge makes a wrong number with a confident face."""
        missing, came = sum(sweep.gaps), len(sweep.points)
        if sweep.overfull:
            raise UnusableError("too many points", f"the energy did not turn round within {came} points")
        if self.joined_late and sweep.lost_first:
            raise UnusableError("truncated", f"its first {sweep.gaps[0]} points came before the agent listened")
        if missing > self._fields.max_missing_fraction * (missing + came) or any(gap >= HOLE for gap in sweep.gaps):
            detail = f"{missing} lost in or beside {came} points, at most {max(sweep.gaps)} together"
            raise UnusableError("points lost", detail)
        if sweep.torn:
            raise UnusableError("points lost", "where the energy turned round")
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
        if channels.energy is None and grid is None and len(stream.waiting) < MAX_WAITING:
            stream.waiting.append((descriptor, doc, received))
            return
        uid, time, least = str(doc["uid"]), time_of(doc), self._fields.min_points
        try:
            if channels.energy is None and channels.grid is None and self._grids_differ:
                raise UnusableError("energy ambiguous", "the run has several energy axes")
            columns = strip_padding(event_columns(channels, data, keys, grid))
            parts = split_sweeps(columns["energy"]) or [slice(0, 0)]
            if _only_turns([part.stop - part.start for part in parts], least):
                detail = f"it turns {len(parts) - 1} times in {columns['energy'].size} points"
                raise UnusableError("energy not monotonic", detail)
        except UnusableError as error:
            self._frames += 1
            yield SetAside(self.uid, uid, time, error.reason, error.detail, self._frames)
            return
        readings = scalars({key: data[key] for key in channels.readings if key in data})
        for number, part in enumerate(parts, 1):
            own = uid if len(parts) == 1 else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/{number}"))
            self._frames += 1
            sweep = {role: c[part] for role, c in columns.items()}
            at = float(sweep["time"][-1]) if "time" in sweep and np.isfinite(sweep["time"][-1:]).all() else time
            try:
                found = spectrum(sweep, channels.formula, least, self._fields.bin_ev)
            except UnusableError as error:
                yield SetAside(self.uid, own, at, error.reason, error.detail, self._frames)
            else:
                yield self._frame(stream.name, channels, found, own, at, received, readings)

    def _energies(self, channels: Channels, doc: Doc, keys: Mapping[str, Any]) -> Iterator[Outcome]:
        """Keep the energies that one stream measures for the spectra of another."""
        assert channels.energy is not None
        try:
            grid = channels.in_ev(vector(doc["data"], channels.energy, keys[channels.energy].get("shape")))
        except UnusableError as error:
            yield SetAside(self.uid, str(doc["uid"]), time_of(doc), error.reason, error.detail)
            return
        if self._grid is not None:
            self._grids_differ |= not np.array_equal(self._grid, grid)
            return
        self._grid = grid
        for stream in self.streams.values():
            waiting, stream.waiting = stream.waiting, []
            for held, event, received in waiting:
                yield from self._whole(stream, held, event, received)

    def _frame(
        self,
        stream: str,
        channels: Channels,
        found: Spectrum,
        uid: str,
        time: float,
        received: float,
        readings: Mapping[str, float],
        points_missing: int = 0,
    ) -> Frame:
        return Frame(
            uid=uid,
            run_uid=self.uid,
            seq_num=self._frames,
            time=time,
            energy=found.energy,
            mu=found.mu,
            reference=found.reference,
            normalised=channels.formula == "normalised",
            formula=channels.formula or "transmission",
            element=self._element,
            edge=self._edge,
            stream=stream,
            direction=found.direction,
            points_missing=points_missing,
            sample_uid=self.sample_uid,
            readings={**self._samples.get(self.sample_uid or "", {}), **readings},
            received=received,
        )


def _only_turns(points: list[int], least: int) -> bool:
    """Whether the energy goes to and fro without a sweep that is long enough."""
    return len(points) > 2 and max(points) < least


def _cut_short(run: Run, stream: Stream, measured: int | None) -> str | None:
    """Return why the last sweep of a run may have ended too early, or None."""
    number = (run.start or {}).get("num_points")
    planned = number if isinstance(number, int) else 0
    if planned and stream.order.count == planned:
        return None
    if run.stop is None:
        return "run never stopped"
    if run.stop.get("exit_status", "success") != "success" or (measured is not None and measured < planned):
        return "sweep cut short"
    return None
