"""The book's records of runs and streams: which documents arrived, and which are missing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cachetools import FIFOCache

from ..types import RunInfo
from .columns import announced_events
from .held import Held
from .sequence import SequenceNumbers

AGENT_STREAMS = frozenset({"descriptors", "spectra", "decisions", "quality"})
"""Streams of the agent's own runs; they identify such a run if its start is lost."""

MANY_EVENTS = 10
"""Number of Events from which a run counts as a measurement; a spectrum has at least as many points."""
SHARES = (112, 48, 48, 48)
"""Numbers of open runs that each kind may have before one of that kind is ended: runs without a descriptor, without
an Event, with fewer than ``MANY_EVENTS``, and with more."""
MAX_DATUMS = 10_000
"""Number of StreamDatums of a stream to remember, so that a repeated one counts once."""


@dataclass(slots=True, eq=False)
class StreamRecord:
    """The documents of one stream of a run, over all its descriptors."""

    run: "RunRecord"
    name: str
    counted: bool
    """Whether the run waits, at its end, for the Events that the RunStop announces for this stream."""
    ignored: bool = False
    order: SequenceNumbers = field(default_factory=SequenceNumbers)
    first: tuple[int, str] | None = None
    """Number and uid of the Event that arrived first."""
    numbered_anew: bool = False
    """Whether Events that came after the run reuse the numbers of earlier ones."""
    external_keys: int = 0
    """Number of data keys whose values arrive as StreamDatums."""
    external: bool = False
    """Whether some data keys have their values in files."""
    with_events: bool = False
    """Whether some data keys arrive in Events."""
    rows: int = 0
    """Number of rows that StreamDatums announced, summed over the data keys."""
    datums: FIFOCache[str, None] = field(default_factory=lambda: FIFOCache(MAX_DATUMS))

    def describe(self, keys: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the data keys of a descriptor."""
        self.external |= any("external" in about for about in keys.values())
        external = sum(about.get("external") == "STREAM:" for about in keys.values())
        self.external_keys = max(self.external_keys, external)
        self.with_events |= external < len(keys)

    def note_number(self, seq: int, uid: object) -> None:
        """Learn whether Events after the run reuse numbers; an Event that the transport repeats keeps its uid."""
        if self.first is None:
            self.first = seq, str(uid)
        elif self.run.finished and seq == self.first[0] and uid != self.first[1]:
            self.numbered_anew = True

    def add_datum(self, doc: Mapping[str, Any]) -> None:
        """Count the rows of a StreamDatum; a repeated one counts once."""
        if doc["uid"] not in self.datums:
            self.datums[doc["uid"]] = None
            self.rows += max(0, doc["seq_nums"]["stop"] - doc["seq_nums"]["start"])

    def missing(self, total: int) -> int:
        """Return how many of the first ``total`` Events, or of their rows, are missing."""
        events = self.order.missing(total) if self.with_events else 0
        return max(events, total * self.external_keys - self.rows)


@dataclass(slots=True, eq=False)
class RunRecord:
    """A run, from its first document until it is forgotten."""

    uid: str
    info: RunInfo | None = None
    """Properties of the run; None until the start arrives or is given up."""
    stop: dict[str, Any] | None = None
    stopped_at: float = 0.0
    """Arrival time of the stop, monotonic seconds."""
    streams: dict[str, StreamRecord] = field(default_factory=dict)
    """Streams by name."""
    descriptors: list[str] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    """Descriptors and Events that wait for the start."""
    finished: bool = False
    events: int = 0
    """Number of Events and StreamDatums that arrived."""
    bytes: int = 0
    """Size of its start and descriptors in memory, bytes."""
    last_count: int = 0
    """Number of its last document, counted over all runs."""
    last_at: float | None = None
    """Arrival time of its last document, monotonic seconds."""
    longest_gap_s: float = 1.0
    """Longest time between two of its documents, s, or 1 s."""

    def touch(self, count: int, at: float) -> None:
        """Note that a document of the run arrived."""
        if self.last_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, at - self.last_at)
        self.last_count, self.last_at = count, at

    def silence(self, now: float) -> float:
        """Return the time since its last document, in units of the longest gap between two of them."""
        return 0.0 if self.last_at is None else (now - self.last_at) / self.longest_gap_s

    @property
    def kind(self) -> int:
        """Index of the run's kind in ``SHARES``."""
        if not self.streams:
            return 0
        return 1 if not self.events else 2 if self.events < MANY_EVENTS else 3

    def is_complete(self, reads: Callable[[str], bool]) -> bool:
        """Return whether the run has started and stopped, and all Events that the stop announces have arrived.

        Parameters
        ----------
        reads : returns whether a stream with this name may hold part of a spectrum
        """
        if self.stop is None or self.info is None:
            return False
        return not self.info.watched or not any(
            self._lacks_events(name, number, reads) for name, number in announced_events(self.stop).items()
        )

    def _lacks_events(self, name: str, number: int, reads: Callable[[str], bool]) -> bool:
        stream = self.streams.get(name)
        if stream is None:
            return number > 0 and reads(name)
        return stream.counted and not stream.ignored and stream.missing(number) > 0

    def lacks_descriptor(self) -> bool:
        """Return whether the run has stopped without the descriptor of one of its streams."""
        if self.stop is None or (self.info is not None and not self.info.watched):
            return False
        if not isinstance(self.stop.get("num_events"), Mapping):
            return not self.streams
        return bool(self.without_descriptor(lambda _: True))

    def without_descriptor(self, reads: Callable[[str], bool]) -> dict[str, int]:
        """Return the number of Events that the stop announces for streams without a descriptor, by stream."""
        known = AGENT_STREAMS | self.streams.keys()
        announced = announced_events(self.stop or {})
        return {name: n for name, n in announced.items() if n > 0 and name not in known and reads(name)}


def least_needed(runs: Iterable[RunRecord], now: float) -> RunRecord:
    """Return the run to end if too many are open.

    Among the runs of the kind that exceeds its share most, it is the one with the longest silence relative to the
    longest gap between its documents. Stray RunStarts thus do not end a run that measures, and runs that never stop
    do not end a run that begins.
    """
    kinds: tuple[list[RunRecord], ...] = tuple([] for _ in SHARES)
    for run in runs:
        kinds[run.kind].append(run)
    largest = max(zip(kinds, SHARES, strict=True), key=lambda pair: (bool(pair[0]), len(pair[0]) - pair[1]))[0]
    return max(largest, key=lambda run: (run.silence(now), -run.last_count))
