"""Tracks by number which documents of a run have arrived."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Doc = Mapping[str, Any]

_MAX_HOLES = 1000
"""Number of gaps of a series to remember; the oldest are dropped first."""


class Part(NamedTuple):
    """The numbers of a document in its series: Events of a stream, or rows of a data key."""

    series: str
    first: int
    last: int


@dataclass(slots=True)
class Series:
    """Numbers, from 1, that have arrived in any order."""

    next: int = 1
    """The number after the highest one."""
    holes: list[list[int]] = field(default_factory=list)
    """First and last number of each gap below it."""

    def add(self, first: int, last: int) -> bool:
        """Record numbers; return whether any of them is new."""
        before = self.next, self.holes
        if self.holes:
            parts = [part for a, b in self.holes for part in ([a, min(b, first - 1)], [max(a, last + 1), b])]
            self.holes = [part for part in parts if part[0] <= part[1]]
        if first > self.next:
            self.holes = [*self.holes, [self.next, first - 1]][-_MAX_HOLES:]
        self.next = max(self.next, last + 1)
        return before != (self.next, self.holes)

    @property
    def complete_to(self) -> int:
        """Number up to which all have arrived."""
        return (self.holes[0][0] if self.holes else self.next) - 1


@dataclass(slots=True)
class RunAccount:
    """The documents of one run that have arrived."""

    uid: str
    started: bool = False
    streams: dict[str, str] = field(default_factory=dict)
    """Name of the stream of each descriptor, by its uid."""
    keys: dict[str, str] = field(default_factory=dict)
    """Data key of each StreamResource, by its uid."""
    series: dict[str, Series] = field(default_factory=dict)
    filled: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Highest number of each series that came from the catalogue, and its time."""

    def part(self, name: str, doc: Doc) -> Part | None:
        """Return the numbers of a document; None if it has none, is malformed, or has an unknown descriptor."""
        stream = self.streams.get(str(doc.get("descriptor")))
        if stream is None:
            return None
        try:
            match name:
                case "event":
                    return Part(stream, int(doc["seq_num"]), int(doc["seq_num"]))
                case "event_page":
                    return Part(stream, min(doc["seq_num"]), max(doc["seq_num"]))
                case "stream_datum":
                    key = self.keys.get(str(doc["stream_resource"]), str(doc["stream_resource"]))
                    return Part(f"{stream}/{key}", int(doc["indices"]["start"]) + 1, int(doc["indices"]["stop"]))
        except (KeyError, TypeError, ValueError):
            pass  # the reader reports it
        return None

    def missing_before(self, name: str, doc: Doc) -> dict[str, int]:
        """Return the number up to which each series should be complete before a document, if numbers are missing."""
        ends: dict[str, Any] = {}
        if name == "stop":
            counts = doc.get("num_events")
            if isinstance(counts, Mapping):
                ends = {stream: counts[stream] for stream in self.streams.values() if stream in counts}
        elif (part := self.part(name, doc)) is not None and part.first > self._series(part.series).next:
            ends = {part.series: part.first - 1}
        return {s: end for s, end in ends.items() if type(end) is int and end > self._series(s).complete_to}

    def _series(self, series: str) -> Series:
        return self.series.get(series) or Series()

    def add(self, name: str, doc: Doc) -> bool:
        """Record a document; return whether it is new."""
        uid = str(doc.get("uid"))
        match name:
            case "start":
                new, self.started = not self.started, True
            case "descriptor":
                new = uid not in self.streams
                self.streams[uid] = str(doc.get("name", "primary"))
            case "stream_resource":
                new = uid not in self.keys
                self.keys[uid] = str(doc.get("data_key"))
            case _:
                part = self.part(name, doc)
                new = part is None or self.series.setdefault(part.series, Series()).add(part.first, part.last)
        return new

    def fill(self, name: str, doc: Doc) -> Doc | None:
        """Record a document from the catalogue; return its new part, if any."""
        part = self.part(name, doc)
        if part is not None and name == "stream_datum":
            known = self._series(part.series).next  # the catalogue has one document for all rows of a key
            doc = _rows_from(doc, known - 1) if part.first < known <= part.last else doc
        if not self.add(name, doc):
            return None
        if part is not None:
            self.filled[part.series] = part.last, latest_time(doc)
        return doc

    def was_filled(self, name: str, doc: Doc) -> bool:
        """Return whether the catalogue supplied a document earlier; a repeated measurement has a later time."""
        part = self.part(name, doc)
        if part is None:
            return name != "stop" and name in ("start", "descriptor") and self._knows(name, doc)
        last, at = self.filled.get(part.series, (0, 0.0))
        return part.last <= last and latest_time(doc) <= at

    def _knows(self, name: str, doc: Doc) -> bool:
        return self.started if name == "start" else str(doc.get("uid")) in self.streams

    def rows(self) -> dict[str, int]:
        """Return the number of Events of each stream that need not be read again."""
        return {key: series.complete_to for key, series in self.series.items() if "/" not in key}

    def reaches(self, documents: Iterable[tuple[str, Doc]], ends: Mapping[str, int]) -> bool:
        """Return whether documents, together with those that have arrived, complete each series up to a number."""
        then = self.copy()
        for name, doc in documents:
            then.add(name, doc)
        return all(then._series(series).complete_to >= end for series, end in ends.items())

    def state(self) -> dict[str, Any]:
        """Return the account as JSON values."""
        return {
            "started": self.started,
            "streams": dict(self.streams),
            "keys": dict(self.keys),
            "series": {key: [series.next, series.holes] for key, series in self.series.items()},
            "filled": dict(self.filled),
        }

    def copy(self) -> "RunAccount":
        """Return an independent copy of the account."""
        return self.of(self.uid, self.state())

    @classmethod
    def of(cls, uid: str, state: Mapping[str, Any]) -> "RunAccount":
        """Return the account with a saved state."""
        series = {key: Series(number, holes) for key, (number, holes) in state["series"].items()}
        filled = {key: (last, at) for key, (last, at) in state["filled"].items()}
        return cls(uid, state["started"], dict(state["streams"]), dict(state["keys"]), series, filled)


def latest_time(doc: Doc) -> float:
    """Return the time of a document, or the latest one of a page; 0 if it has none."""
    at = doc.get("time", 0.0)
    try:
        return float(max(at) if isinstance(at, list) else at)
    except (TypeError, ValueError):
        return 0.0


def age_of(doc: Doc) -> float:
    """Return the time since a document was recorded, s; 0 if it has no time."""
    recorded = latest_time(doc)
    return max(0.0, time.time() - recorded) if recorded else 0.0


def _rows_from(doc: Doc, start: int) -> Doc:
    """Return a StreamDatum without its rows before ``start``."""
    indices, seq_nums = doc["indices"], doc["seq_nums"]
    return {
        **doc,
        "uid": f"{doc['uid']}/{start}",
        "indices": {"start": start, "stop": indices["stop"]},
        "seq_nums": {"start": seq_nums["start"] + start - indices["start"], "stop": seq_nums["stop"]},
    }
