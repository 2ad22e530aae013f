"""Fly scans whose intensities and whose monochromator have each a clock of their own: joined to one stream."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from ..fields import FieldSettings, UnreadableStream, number, wanted_from_files
from ..types import Reason, RunDocument, RunInfo, SetAside, Settings, get_logger
from .columns import UnreadFile, announcements, scalars, time_of

log = get_logger()

JOINED = "fly"
"""Name of the stream that the others are joined to."""

Doc = dict[str, Any]
Table = NDArray[np.float64]


class Trace(Settings):
    """Where one side of a fly scan is recorded."""

    stream: str
    """Regular expression for the whole name of its streams."""
    columns: tuple[str, ...] = ()
    """Names of the columns of its tables, an Event each. None: every scalar of its Events is one, on their time."""
    time: tuple[str, ...] = ()
    """Columns with the seconds, and with the nanoseconds where these are apart."""
    counter_bits: int | None = Field(default=None, ge=2, le=62)
    """The other columns are counters of so many bits, in two's complement where they are negative."""

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
            raise ValueError("time: the column with the seconds and, if apart, the one with the nanoseconds")
        return self

    def reads(self, stream: str) -> bool:
        """Whether a stream of this name is part of it."""
        return re.fullmatch(self.stream, stream) is not None


class FlySettings(Settings):
    """Which streams of a fly scan are joined; ``fields`` then names the columns of both."""

    signals: Trace
    """The intensities: the points of a spectrum are theirs."""
    axis: Trace
    """Where the monochromator was, interpolated linearly to their times."""
    offsets: Mapping[str, str] = {}
    """Keys of the RunStart with what is to be taken off an intensity, by its column."""
    offset_scale: float = 1.0
    """Counts per unit of these offsets."""
    gains: Mapping[str, str] = {}
    """Keys of the RunStart with log10 of what an intensity is then divided by, by its column."""

    def trace(self, stream: str) -> Trace | None:
        """Return what a stream of this name is part of."""
        return next((trace for trace in (self.signals, self.axis) if trace.reads(stream)), None)


def needed(
    fields: FieldSettings, fly: FlySettings | None, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> frozenset[str] | UnreadableStream:
    """Return the external data keys of a watched run's descriptor that are to be read from their files."""
    if fly is None or (trace := fly.trace(str(descriptor.get("name", "primary")))) is None:
        return wanted_from_files(fields, descriptor, start)
    tables = bool(trace.columns)
    keys = descriptor["data_keys"].items()
    return frozenset(k for k, v in keys if v.get("external") and (not tables or v.get("dtype") == "array"))


@dataclass(slots=True)
class _Side:
    """What has come of one trace: tables by data key."""

    tables: dict[str, list[Table]] = field(default_factory=dict)
    unread: str = ""


@dataclass(slots=True)
class _Fly:
    streams: dict[str, str] = field(default_factory=dict)
    """The names of the streams that are joined, by descriptor."""
    sides: dict[str, _Side] = field(default_factory=lambda: {"signals": _Side(), "axis": _Side()})
    seen: dict[str, set[int]] = field(default_factory=dict)
    """The numbers of the events that have come, by stream."""
    time: float = 0.0
    at: float = 0.0


class FlyJoiner:
    """Takes the streams of ``settings`` out of their runs and gives, at a run's stop, one of whole sweeps instead.

    Rows whose time is not positive are the padding of a buffer; of rows with one time the first counts. The joined
    stream ``fly`` has one Event: the signals' columns, the axis' at their times, and ``time``. Runs without such
    streams pass untouched.

    Not thread-safe.
    """

    waiting = False
    """A run is joined when it stops: nothing else is waited for."""

    def __init__(self, settings: FlySettings, fields: FieldSettings) -> None:
        self._settings, self._fields = settings, fields
        self._runs: dict[str, _Fly] = {}
        self._logged_errors: set[tuple[str, str]] = set()
        """Document and exception names that are already logged."""

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Take one document; return what can be passed on."""
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
                    self._runs.setdefault(uid, _Fly()).streams[doc["uid"]] = name
                    return ()
            elif document.name == "stop" and uid in self._runs:
                return self._end(document, self._runs.pop(uid))
        except Exception as error:  # a malformed document, which the assembler reports, or a defect of this class
            key = document.name, type(error).__name__
            write = log.debug if key in self._logged_errors else log.warning
            self._logged_errors.add(key)
            write("document passed on unjoined", name=key[0], error=f"{key[1]}: {error}")
        return (document,)

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return nothing: see ``waiting``."""
        return ()

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Return nothing: every run ends with a stop."""
        return ()

    def _event(self, run: _Fly, document: RunDocument) -> None:
        doc = document.doc
        name, seq = run.streams[doc["descriptor"]], int(doc["seq_num"])
        seen = run.seen.setdefault(name, set())
        if seq in seen:
            return
        seen.add(seq)
        run.time, run.at = max(run.time, time_of(doc)), max(run.at, document.at)
        for side, trace in (("signals", self._settings.signals), ("axis", self._settings.axis)):
            if trace.reads(name):
                _take(run.sides[side], trace, doc)

    def _end(self, stop: RunDocument, run: _Fly) -> list[RunDocument | SetAside]:
        """Give out a run's joined stream and its stop."""
        announced = announcements(stop.doc)
        out: list[RunDocument | SetAside] = []
        out += self._lost(stop.run.uid, run, announced) or self._joined(stop.run, run)
        doc = stop.doc
        if doc:
            own = set(run.streams.values())
            joined = {JOINED: 1} if any(isinstance(o, RunDocument) for o in out) else {}
            numbers = {name: number for name, number in announced.items() if name not in own} | joined
            doc = {**doc, "num_events": numbers}
        return [*out, replace(stop, doc=doc)]

    def _lost(self, uid: str, run: _Fly, announced: Mapping[str, int]) -> list[SetAside]:
        """Report streams of which too much never came: over a hole, energies would be interpolated."""
        for name in sorted(set(run.streams.values())):
            came = run.seen.get(name, set())
            whole = max(announced.get(name, 0), *came, 0)
            if whole - len(came) > self._fields.max_missing_fraction * whole:
                detail = f"{whole - len(came)} of {whole} events of stream {name} never came"
                return [SetAside(uid, uid, run.time, Reason.EVENTS_LOST, detail)]
        return []

    def _joined(self, info: RunInfo, run: _Fly) -> Iterator[RunDocument | SetAside]:
        """Yield the descriptor and the Event of the joined stream, or why there are none."""
        uid, start = info.uid, info.start
        for side, trace in (("signals", self._settings.signals), ("axis", self._settings.axis)):
            came = run.sides[side]
            if came.unread:
                yield SetAside(uid, uid, run.time, Reason.FILE_NOT_READABLE, came.unread)
                return
            if not came.tables:
                detail = f"no {side} of streams {trace.stream!r}; came: {', '.join(set(run.streams.values()))}"
                yield SetAside(uid, uid, run.time, Reason.FLY_STREAM_MISSING, detail)
                return
        try:
            signals = series(run.sides["signals"].tables, self._settings.signals)
            signals = [(t, {k: self._current(k, v, start) for k, v in columns.items()}) for t, columns in signals]
            columns = join(signals, series(run.sides["axis"].tables, self._settings.axis))
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

    def _current(self, column: str, counts: Table, start: Mapping[str, Any]) -> Table:
        """Return an intensity without its offset and gain, as far as the RunStart names them."""
        offset = self._stated(column, self._settings.offsets, start) * self._settings.offset_scale
        return (counts - offset) / 10.0 ** self._stated(column, self._settings.gains, start)

    @staticmethod
    def _stated(column: str, keys: Mapping[str, str], start: Mapping[str, Any]) -> float:
        if column not in keys:
            return 0.0
        stated = number(start, keys[column])
        if stated is None:
            log.warning("missing in the RunStart, taken as 0", column=column, key=keys[column])
        return stated or 0.0


def _take(side: _Side, trace: Trace, doc: Doc) -> None:
    """Add an Event's tables, or its scalars as a row of one each."""
    data = doc["data"]
    side.unread = side.unread or next((str(v) for v in data.values() if isinstance(v, UnreadFile)), "")
    if not trace.columns:
        times = doc.get("timestamps") or {}
        for key, value in scalars(data).items():
            side.tables.setdefault(key, []).append(np.array([[times.get(key, time_of(doc)), value]]))
        return
    for key, value in data.items():
        if np.ndim(value) == 2:
            side.tables.setdefault(key, []).append(np.asarray(value, dtype=np.float64))


def series(tables: Mapping[str, list[Table]], trace: Trace) -> list[tuple[Table, dict[str, Table]]]:
    """Return by data key the times, (M,) rising, and the columns, each (M,), of a trace's tables, (M, C).

    Raises ValueError for a table with other columns than were named, or none with a time.
    """
    found = []
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
            raise ValueError(f"{key}: none of {len(rows)} rows has a time")
        others = {name: column[kept][first] for name, column in columns.items() if name not in clock}
        if trace.counter_bits is not None:
            others = {name: signed(column, trace.counter_bits) for name, column in others.items()}
        found.append((time, others))
    return found


def signed(counts: Table, bits: int) -> Table:
    """Return counters, of any shape, as the numbers that they mean in two's complement.

    >>> signed(np.array([3.0, 0xFFFFFE, -2.0]), 24)
    array([ 3., -2., -2.])
    """
    return np.where(counts >= 2.0 ** (bits - 1), counts - 2.0**bits, counts)


def join(
    signals: list[tuple[Table, dict[str, Table]]], axis: list[tuple[Table, dict[str, Table]]]
) -> dict[str, Table]:
    """Return columns, each (M,), at the times of the signal with the most points, where all others were recorded too.

    What has times of its own is interpolated linearly, as NSLS-II ISS does. Raises ValueError where they have no
    time in common, or two columns one name.
    """
    clock = max(signals, key=lambda s: s[0].size)[0]
    begin = max(time[0] for time, _ in (*signals, *axis))
    end = min(time[-1] for time, _ in (*signals, *axis))
    time = clock[(clock >= begin) & (clock <= end)]
    if time.size < 2:
        spans = "; ".join(f"{', '.join(c)}: {t[0]:.3f} to {t[-1]:.3f} s" for t, c in (*signals, *axis))
        raise ValueError(f"they were not recorded at the same time: {spans}")
    joined: dict[str, Table] = {"time": time}
    for own, columns in (*signals, *axis):
        for name, column in columns.items():
            if name in joined:
                raise ValueError(f"two columns are named {name}")
            joined[name] = np.interp(time, own, column)
    return joined
