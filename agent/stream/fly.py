"""Joins the streams of a fly scan whose detectors and monochromator have separate clocks."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from ...wording import counted
from ..fields import FieldSettings, UnreadableStream, external_keys_of_spectra, read_number
from ..types import Array, Reason, RunDocument, RunInfo, SetAside, Settings, get_logger
from .columns import UnreadFile, announced_events, document_time, finite_scalars

_log = get_logger()

JOINED = "fly"
"""Name of the joined stream."""

Doc = dict[str, Any]


class Trace(Settings):
    """Where one side of a fly scan is recorded."""

    stream: str
    """Regular expression that matches the whole name of the trace's streams."""
    columns: tuple[str, ...] = ()
    """Names of the columns of the tables in its Events. If unset, each scalar of its Events is a column, and the time
    is that of the Event."""
    time: tuple[str, ...] = ()
    """Column with the seconds; if another column holds the nanoseconds, name it second."""
    counter_bits: int | None = Field(default=None, ge=2, le=62)
    """Number of bits of the other columns if these are counters in two's complement."""

    @field_validator("stream")
    @classmethod
    def _compiles(cls, stream: str) -> str:
        try:
            re.compile(stream)
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return stream

    @model_validator(mode="after")
    def _has_its_time(self) -> Self:
        if self.columns and (not self.time or len(self.time) > 2 or not set(self.time) <= set(self.columns)):
            raise ValueError("time: the column of the seconds and, if separate, that of the nanoseconds")
        return self

    def reads(self, stream: str) -> bool:
        """Return whether a stream with this name belongs to the trace."""
        return re.fullmatch(self.stream, stream) is not None


class FlySettings(Settings):
    """Streams of a fly scan to join; ``fields`` names the columns of the joined stream."""

    signals: Trace
    """Streams of the intensities; their times are the points of a spectrum."""
    axis: Trace
    """Streams of the monochromator's position; the agent interpolates it linearly to the times of the signals."""
    offsets: Mapping[str, str] = {}
    """RunStart keys of the offsets that the agent subtracts from the intensities, by column."""
    offset_scale: float = 1.0
    """Counts per unit of the offsets."""
    gains: Mapping[str, str] = {}
    """RunStart keys of log10 of the gains by which the agent then divides the intensities, by column."""

    def trace(self, stream: str) -> Trace | None:
        """Return the trace that a stream with this name belongs to, or None."""
        return next((trace for trace in (self.signals, self.axis) if trace.reads(stream)), None)


def external_keys_to_read(
    fields: FieldSettings, fly: FlySettings | None, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> frozenset[str] | UnreadableStream:
    """Return the external data keys of a descriptor that must be read from files.

    Parameters
    ----------
    descriptor, start : documents of a watched run

    Returns
    -------
    Data keys, or the reason why the spectra cannot be read
    """
    if fly is None or (trace := fly.trace(str(descriptor.get("name", "primary")))) is None:
        return external_keys_of_spectra(fields, descriptor, start)
    tables = bool(trace.columns)
    keys = descriptor["data_keys"].items()
    return frozenset(k for k, v in keys if v.get("external") and (not tables or v.get("dtype") == "array"))


@dataclass(slots=True)
class _Side:
    """The data of one trace of a run: tables, (M, C), by data key."""

    tables: dict[str, list[Array]] = field(default_factory=dict)
    unread: str = ""
    """Why a file could not be read; empty if all were read."""


@dataclass(slots=True)
class _FlyRun:
    streams: dict[str, str] = field(default_factory=dict)
    """Names of the joined streams, by descriptor uid."""
    sides: dict[str, _Side] = field(default_factory=lambda: {"signals": _Side(), "axis": _Side()})
    seen: dict[str, set[int]] = field(default_factory=dict)
    """``seq_num`` of the Events that have arrived, by stream."""
    time: float = 0.0
    """Time of the latest Event, Unix seconds."""
    at: float = 0.0
    """Arrival time of the latest Event, monotonic seconds."""


class FlyJoiner:
    """Replaces the streams of ``settings`` in each run by one joined stream, when the run stops.

    Rows whose time is not positive are padding of a buffer. Of rows with equal times, the first one counts. The
    joined stream ``fly`` has one Event with the columns of the signals, the columns of the axis at the times of the
    signals, and ``time``. Other documents pass unchanged. Not thread-safe.
    """

    waiting = False
    """Always False: a run is joined when it stops, and the joiner waits for nothing else."""

    def __init__(self, settings: FlySettings, fields: FieldSettings) -> None:
        self._settings, self._fields = settings, fields
        self._runs: dict[str, _FlyRun] = {}
        self._logged_errors: set[tuple[str, str]] = set()
        """Document and exception names already logged."""

    def passes(self, run: str, descriptor: str) -> bool:
        """Return whether the Events of a descriptor pass unchanged."""
        return (known := self._runs.get(run)) is None or descriptor not in known.streams

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Process one document; return the documents that are ready."""
        uid, doc = document.run.uid, document.doc
        try:
            if document.name == "event":
                run = self._runs.get(uid)
                if run is not None and doc["descriptor"] in run.streams:
                    self._event(run, document)
                    return ()
            elif document.name == "descriptor":
                name = str(doc.get("name", "primary"))
                if document.run.watched and self._settings.trace(name) is not None:
                    self._runs.setdefault(uid, _FlyRun()).streams[doc["uid"]] = name
                    return ()
            elif document.name == "stop" and uid in self._runs:
                return self._end(document, self._runs.pop(uid))
        except Exception as error:  # a malformed document, which the assembler reports, or a defect of this class
            key = document.name, type(error).__name__
            write = _log.debug if key in self._logged_errors else _log.warning
            self._logged_errors.add(key)
            write("document passed on unjoined", name=key[0], error=f"{key[1]}: {error}")
        return (document,)

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return nothing, since the joiner never waits."""
        return ()

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Return nothing, since every run ends with a stop."""
        return ()

    def _event(self, run: _FlyRun, document: RunDocument) -> None:
        doc = document.doc
        name, seq = run.streams[doc["descriptor"]], int(doc["seq_num"])
        seen = run.seen.setdefault(name, set())
        if seq in seen:
            return
        seen.add(seq)
        run.time, run.at = max(run.time, document_time(doc)), max(run.at, document.at)
        for side, trace in (("signals", self._settings.signals), ("axis", self._settings.axis)):
            if trace.reads(name):
                _add_tables(run.sides[side], trace, doc)

    def _end(self, stop: RunDocument, run: _FlyRun) -> list[RunDocument | SetAside]:
        """Return a run's joined stream and its stop."""
        announced = announced_events(stop.doc)
        out: list[RunDocument | SetAside] = []
        out += self._report_lost_events(stop.run.uid, run, announced) or self._join(stop.run, run)
        doc = stop.doc
        if doc:
            replaced = set(run.streams.values())
            joined = {JOINED: 1} if any(isinstance(entry, RunDocument) for entry in out) else {}
            numbers = {name: number for name, number in announced.items() if name not in replaced} | joined
            doc = {**doc, "num_events": numbers}
        return [*out, replace(stop, doc=doc)]

    def _report_lost_events(self, uid: str, run: _FlyRun, announced: Mapping[str, int]) -> list[SetAside]:
        """Report streams with too many lost Events, over whose gaps the energies would be interpolated."""
        for name in sorted(set(run.streams.values())):
            seen = run.seen.get(name, set())
            total = max(announced.get(name, 0), *seen, 0)
            if total - len(seen) > self._fields.max_missing_fraction * total:
                lost = total - len(seen)
                detail = f"{lost} of {counted(total, 'event')} of stream {name} did not arrive"
                return [SetAside(uid, uid, run.time, Reason.EVENTS_LOST, detail, count=lost)]
        return []

    def _join(self, info: RunInfo, run: _FlyRun) -> Iterator[RunDocument | SetAside]:
        """Yield the descriptor and the Event of the joined stream, or the reason why they are missing."""
        uid, start = info.uid, info.start
        for side, trace in (("signals", self._settings.signals), ("axis", self._settings.axis)):
            if run.sides[side].unread:
                yield SetAside(uid, uid, run.time, Reason.FILE_NOT_READABLE, run.sides[side].unread)
                return
            if not run.sides[side].tables:
                found = ", ".join(set(run.streams.values()))
                detail = f"no {side} of streams {trace.stream!r}; found {found}"
                yield SetAside(uid, uid, run.time, Reason.FLY_STREAM_MISSING, detail)
                return
        try:
            signals = merge_tables(run.sides["signals"].tables, self._settings.signals)
            signals = [(t, {k: self._intensity(k, v, start) for k, v in columns.items()}) for t, columns in signals]
            columns = join_columns(signals, merge_tables(run.sides["axis"].tables, self._settings.axis))
        except (ValueError, ArithmeticError) as error:
            yield SetAside(uid, uid, run.time, Reason.FLY_STREAMS_DO_NOT_FIT, str(error))
            return
        about = {"source": "joined", "dtype": "array", "shape": [columns["time"].size]}
        descriptor = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/{JOINED}"))
        doc: Doc = {"uid": descriptor, "run_start": uid, "name": JOINED, "time": run.time}
        yield RunDocument(info, "descriptor", doc | {"data_keys": dict.fromkeys(columns, about)}, run.at)
        event: Doc = {"uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{descriptor}/1")), "descriptor": descriptor}
        event |= {"seq_num": 1, "time": run.time, "data": columns, "timestamps": dict.fromkeys(columns, run.time)}
        yield RunDocument(info, "event", event | {"filled": {}}, run.at)

    def _intensity(self, column: str, counts: Array, start: Mapping[str, Any]) -> Array:
        """Remove the offset and the gain from counts, if the RunStart states them."""
        offset = self._start_number(column, self._settings.offsets, start) * self._settings.offset_scale
        return (counts - offset) / 10.0 ** self._start_number(column, self._settings.gains, start)

    @staticmethod
    def _start_number(column: str, keys: Mapping[str, str], start: Mapping[str, Any]) -> float:
        if column not in keys:
            return 0.0
        number = read_number(start, keys[column])
        if number is None:
            _log.warning("missing in the RunStart, taken as 0", column=column, key=keys[column])
        return number or 0.0


def _add_tables(side: _Side, trace: Trace, doc: Doc) -> None:
    """Add an Event's tables, or each of its scalars as a table of one row."""
    data = doc["data"]
    side.unread = side.unread or next((str(v) for v in data.values() if isinstance(v, UnreadFile)), "")
    if not trace.columns:
        times = doc.get("timestamps") or {}
        for key, value in finite_scalars(data).items():
            side.tables.setdefault(key, []).append(np.array([[times.get(key, document_time(doc)), value]]))
        return
    for key, value in data.items():
        if np.ndim(value) == 2:
            side.tables.setdefault(key, []).append(np.asarray(value, dtype=np.float64))


def merge_tables(tables: Mapping[str, list[Array]], trace: Trace) -> list[tuple[Array, dict[str, Array]]]:
    """Merge the tables, (M, C), of a trace.

    Returns
    -------
    For each data key: the times, (M,), strictly rising, s, and the other columns, (M,) each, by name

    Raises
    ------
    ValueError
        A table has a wrong number of columns, or no row has a time.
    """
    merged = []
    for key, parts in tables.items():
        names = trace.columns or ("time", key)
        if any(part.shape[1] != len(names) for part in parts):
            raise ValueError(f"{key} has {parts[0].shape[1]} columns; expected {len(names)}: {', '.join(names)}")
        rows = np.concatenate(parts)
        columns = dict(zip(names, rows.T, strict=True))
        clock = trace.time or ("time",)
        time = columns[clock[0]] + (1e-9 * columns[clock[1]] if len(clock) == 2 else 0.0)
        kept = np.isfinite(rows).all(axis=1) & (time > 0)
        time, first = np.unique(time[kept], return_index=True)
        if not time.size:
            raise ValueError(f"{key}: no time in any of {len(rows)} rows")
        others = {name: column[kept][first] for name, column in columns.items() if name not in clock}
        if trace.counter_bits is not None:
            others = {name: to_signed(column, trace.counter_bits) for name, column in others.items()}
        merged.append((time, others))
    return merged


def to_signed(counts: Array, bits: int) -> Array:
    """Convert counters of any shape from two's complement to signed numbers.

    >>> to_signed(np.array([3.0, 0xFFFFFE, -2.0]), 24)
    array([ 3., -2., -2.])
    """
    return np.where(counts >= 2.0 ** (bits - 1), counts - 2.0**bits, counts)


def join_columns(
    signals: list[tuple[Array, dict[str, Array]]], axis: list[tuple[Array, dict[str, Array]]]
) -> dict[str, Array]:
    """Interpolate all columns to the times of the signal with the most points.

    The interpolation is linear, as at NSLS-II ISS, and covers the time in which all columns were recorded.

    Parameters
    ----------
    signals, axis : for each table its times, (M,), s, and its columns, (M,) each, by name

    Returns
    -------
    Columns, (K,) each, by name, and ``time``

    Raises
    ------
    ValueError
        The columns have no time in common, or two columns have the same name.
    """
    clock = max(signals, key=lambda s: s[0].size)[0]
    begin = max(time[0] for time, _ in (*signals, *axis))
    end = min(time[-1] for time, _ in (*signals, *axis))
    time = clock[(clock >= begin) & (clock <= end)]
    if time.size < 2:
        spans = "; ".join(f"{', '.join(c)}: {t[0]:.3f} to {t[-1]:.3f} s" for t, c in (*signals, *axis))
        raise ValueError(f"they were not recorded at the same time: {spans}")
    joined: dict[str, Array] = {"time": time}
    for recorded, columns in (*signals, *axis):
        for name, column in columns.items():
            if name in joined:
                raise ValueError(f"two columns are named {name}")
            joined[name] = np.interp(time, recorded, column)
    return joined
