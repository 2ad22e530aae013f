"""Collects the runs and streams in documents, with the fields and values of each stream."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..fields import FieldSettings, announced_shape, has_many, is_scalar
from ..stream import Book, energy_column
from ..types import Array, Document, Received, RunDocument, RunInfo, SetAside, Stage

MAX_ROWS = 5000
"""Largest number of Events of a stream whose values are examined."""
MAX_STREAMS = 50
"""Largest number of streams that are kept; others are only counted."""


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """One field of a stream."""

    key: str
    unit: str
    points: int | None
    """Number of values in each Event; None if it varies or is unknown."""
    external: bool
    """Whether the values are in a file that has not been read."""
    example: Any
    """First value; None if no Event has one."""
    low: float | None
    """Smallest finite number; None if the values are not numbers."""
    high: float | None


@dataclass(slots=True, eq=False)
class StreamSummary:
    """All streams with one name and the same fields, over all runs."""

    name: str
    run: RunInfo
    descriptor: Mapping[str, Any]
    """The first descriptor."""
    runs: set[str] = field(default_factory=set)
    events: int = 0
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    """Data of at most ``MAX_ROWS`` Events, from the run with most of them."""

    @property
    def keys(self) -> Mapping[str, Mapping[str, Any]]:
        """The data keys with their descriptions."""
        return self.descriptor["data_keys"]

    def column(self, key: str) -> Array:
        """Return the values of a field, (M,): one from each Event, or all from the first whole spectrum.

        Empty if they are not real numbers.
        """
        first = next((row[key] for row in self.rows if key in row), None)
        scalar = is_scalar(self.keys[key]) if first is None else not has_many(first)
        if scalar:
            return energy_column(self.rows, key) if len(self.rows) > 1 else np.empty(0)
        return energy_column(self.rows[:1], key) if self.rows and key in self.rows[0] else np.empty(0)

    @np.errstate(all="ignore")
    def fields(self) -> list[FieldSummary]:
        """Return a summary of each field."""
        return [self._field(key, about) for key, about in self.keys.items()]

    def _field(self, key: str, about: Mapping[str, Any]) -> FieldSummary:
        first = next((row[key] for row in self.rows if key in row), None)
        values = self.column(key) if len(self.rows) > 1 or not is_scalar(about) else _numbers(first)
        finite = values[np.isfinite(values)]
        shape = announced_shape(about)
        return FieldSummary(
            key=key,
            unit=str(about.get("units") or ""),
            points=math.prod(n for n in shape if n is not None) if None not in shape else None,
            external=bool(about.get("external")),
            example=first,
            low=float(finite.min()) if finite.size else None,
            high=float(finite.max()) if finite.size else None,
        )


@dataclass(slots=True)
class Survey:
    """The contents of documents."""

    documents: int = 0
    starts: list[RunInfo] = field(default_factory=list)
    """The runs that are not the agent's own."""
    own_runs: int = 0
    """Number of runs of the agent itself."""
    streams: list[StreamSummary] = field(default_factory=list)
    further_streams: int = 0
    """Number of streams beyond ``MAX_STREAMS``."""
    problems: list[SetAside] = field(default_factory=list)
    """Notes on documents that cannot be read."""


def survey(documents: Iterable[Document], settings: FieldSettings, stages: Sequence[Stage] = ()) -> Survey:
    """Summarise documents of any number of runs, in any order.

    Parameters
    ----------
    documents : pairs (name, doc)
    settings : element, edge, and the plans to watch
    stages : stages between the book and the assembler, such as the reader of external files

    Returns
    -------
    Survey
    """
    found = Survey()
    known: dict[tuple[str, tuple[str, ...]], StreamSummary] = {}
    streams: dict[str, StreamSummary] = {}
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in _in_order(found, documents, settings, stages):
        if isinstance(item, SetAside):
            found.problems.append(item)
        elif item.name == "start":
            own = bool(item.doc.get("xas_agent"))
            found.own_runs += own
            found.starts += [] if own else [item.run]
        elif item.name == "descriptor" and not item.run.start.get("xas_agent"):
            name = str(item.doc.get("name", "primary"))
            key = name, tuple(item.doc["data_keys"])
            if key not in known and len(known) >= MAX_STREAMS:
                found.further_streams += 1
                continue
            summary = streams[item.doc["uid"]] = known.setdefault(key, StreamSummary(name, item.run, item.doc))
            summary.runs.add(item.run.uid)
        elif item.name == "event" and (stream := streams.get(item.doc["descriptor"])) is not None:
            stream.events += 1
            seen = rows.setdefault((item.run.uid, item.doc["descriptor"]), [])
            if len(seen) < MAX_ROWS:
                seen.append(item.doc["data"])
            if len(seen) > len(stream.rows):
                stream.rows = seen
                stream.run = item.run
    found.streams = list(known.values())
    return found


def _in_order(
    found: Survey, documents: Iterable[Document], settings: FieldSettings, stages: Sequence[Stage]
) -> Iterator[RunDocument | SetAside]:
    """Yield the documents in the order of their runs, through the stages, and count them."""
    book = Book(settings, lambda name: True)
    for name, doc in documents:
        found.documents += 1
        yield from _through(stages, book(Received(name, doc, 0.0)))
    yield from _through(stages, book.finish())
    for k, stage in enumerate(stages):
        yield from _through(stages[k + 1 :], stage.finish())


def _through(stages: Sequence[Stage], items: Iterable[RunDocument | SetAside]) -> Iterator[RunDocument | SetAside]:
    for stage in stages:
        items = [out for item in items for out in (stage(item) if isinstance(item, RunDocument) else (item,))]
    yield from items


def _numbers(value: Any) -> Array:
    """Return a single value as an array; empty if it is not a number."""
    return energy_column([{"": value}, {"": value}], "")[:1]
