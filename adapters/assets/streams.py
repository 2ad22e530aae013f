"""Builds Events from StreamDatums: reads the announced rows from HDF5 in the layout of bluesky's consolidators."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from cachetools import FIFOCache

from ...agent.stream import UnreadFile, document_time
from ...agent.types import RunDocument
from .deadline import Deadline, ReadsHang
from .files import AssetSettings
from .hdf5 import rows_of
from .opening import AssetRefused, NotYet

Doc = Mapping[str, Any]

_FIRST_RETRY_S, _MAX_RETRY_S = 0.05, 1.0
MAX_DATUM_ROWS = 100_000
"""Largest number of rows of one StreamDatum: 100 s at 1 kHz. Each row becomes an Event."""
MAX_ROWS_AHEAD = 4096
"""Number of rows that are read at once and kept until the other data keys of their Events arrive."""
_MAX_BYTES_AHEAD = 32 * 2**20
"""Largest size of these rows for one data key, bytes, as announced by the descriptor."""
_MAX_SEEN = 10_000
"""Number of StreamDatums to remember, so that a repeated one is ignored."""


@dataclass(slots=True)
class Patience:
    """Times at which missing data are requested again, with doubling intervals, and the deadline."""

    deadline: float
    next_try: float = 0.0
    _interval_s: float = _FIRST_RETRY_S

    def due(self, now: float) -> bool:
        """Return whether to try now."""
        return now >= self.next_try

    def wait(self, now: float) -> bool:
        """Postpone the next attempt; return False after the deadline."""
        if now >= self.deadline:
            return False
        self.next_try = min(now + self._interval_s, self.deadline)
        self._interval_s = min(2 * self._interval_s, _MAX_RETRY_S)
        return True


@dataclass(slots=True)
class _Block:
    """The unread rows of one StreamDatum."""

    resource: str
    rows: range
    seq_nums: range
    at: float
    patience: Patience


@dataclass(slots=True)
class _Row:
    """The parts of one Event that have arrived so far."""

    values: dict[str, Any] = field(default_factory=dict)
    event: Doc | None = None
    at: float = 0.0


class StreamRows:
    """Assembles the Events of one descriptor from the rows of its StreamDatums and from partial Events.

    Each Event is returned once, in the order of ``seq_num``. An incomplete Event waits until a later one has been
    complete for ``wait_s``. An Event without a document has its descriptor's time, because a StreamDatum has no time
    (``fields.time`` may name a data key that contains it).

    Parameters
    ----------
    settings : AssetSettings
    descriptor : RunDocument
        The unchanged EventDescriptor.
    wanted : iterable of str
        Data keys to read, all external with the prefix ``STREAM:``.
    resources : mapping
        StreamResources by uid; the caller may add to it later.
    in_time : Deadline
        Limits the time of a read.
    """

    def __init__(
        self,
        settings: AssetSettings,
        descriptor: RunDocument,
        wanted: Iterable[str],
        resources: Mapping[str, Doc],
        in_time: Deadline,
    ) -> None:
        self._in_time = in_time
        self.settings, self._run, self._descriptor = settings, descriptor.run, descriptor.doc
        self._resources = resources
        self._wanted = frozenset(wanted)
        keys = self._descriptor["data_keys"].values()
        self._with_events = any(about.get("external") != "STREAM:" for about in keys)
        self._consolidators: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._seen: FIFOCache[str, None] = FIFOCache(_MAX_SEEN)
        self._rows: dict[int, _Row] = {}
        self._next = 1

    @property
    def reading(self) -> bool:
        """Return whether announced rows are still unread."""
        return bool(self._blocks)

    def lagging(self, now: float) -> bool:
        """Return whether an incomplete Event received a part within ``wait_s``, so that the rest may follow."""
        return any(now < row.at + self.settings.wait_s for row in self._rows.values())

    def datum(self, doc: Doc, at: float) -> None:
        """Take a StreamDatum; ignore a repeated one. Raise ValueError if its rows are not a range or are too many."""
        if doc["uid"] in self._seen:
            return
        rows, seq_nums = _rows(doc, "indices"), _rows(doc, "seq_nums")
        self._seen[doc["uid"]] = None
        if rows:
            patience = Patience(at + self.settings.wait_s)
            self._blocks.append(_Block(doc["stream_resource"], rows, seq_nums, at, patience))

    def event(self, doc: Doc, at: float) -> None:
        """Take an Event document with the values that are not external."""
        row = self._row(int(doc["seq_num"]))
        row.event, row.at = doc, max(row.at, at)

    def advance(self, now: float) -> list[RunDocument]:
        """Read the available rows; return the complete Events before the first incomplete one."""
        waiting = []
        for block in self._blocks:
            if not block.patience.due(now):
                waiting.append(block)
                continue
            try:
                if self._read(block, now):
                    waiting.append(block)
            except (NotYet, ReadsHang) as error:
                if block.patience.wait(now):
                    waiting.append(block)
                else:
                    self._fail(block, f"{error}; waited {self.settings.wait_s:g} s")
            except Exception as error:  # h5py and consolidators raise many types; the frame is set aside with it
                message = str(error) if isinstance(error, AssetRefused) else f"{type(error).__name__}: {error}"
                self._fail(block, message)
        self._blocks = waiting
        out = self._complete()
        if self._rows and (overdue := self._overdue(now)) is not None:
            out += self._incomplete(before=overdue)
            out += self._complete()
        return out

    def give_up(self, reason: str) -> None:
        """Stop reading; the announced rows are unreadable for this reason."""
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            self._fail(block, reason)

    def finish(self) -> list[RunDocument]:
        """Return all remaining Events, complete or not."""
        self._blocks = []
        return self._incomplete()

    def _complete(self) -> list[RunDocument]:
        out = []
        while (row := self._rows.get(self._next)) is not None and self._is_complete(row):
            out.append(self._pop(self._next))
        return out

    def _overdue(self, now: float) -> int | None:
        """Return the first Event that has been complete for ``wait_s``; parts missing before it are lost."""
        since = now - self.settings.wait_s
        complete = (seq for seq, row in self._rows.items() if row.at <= since and self._is_complete(row))
        first = min(complete, default=None)
        return None if first is None or any(block.seq_nums[0] < first for block in self._blocks) else first

    def _incomplete(self, before: int | None = None) -> list[RunDocument]:
        """Return all Events, or those before a number; an ``UnreadFile`` replaces each missing value."""
        out = []
        for seq in sorted(seq for seq in self._rows if before is None or seq < before):
            row = self._rows[seq]
            if self._with_events and row.event is None:
                del self._rows[seq]
                continue
            row.values = {key: UnreadFile("its StreamDatum is missing") for key in self._wanted} | row.values
            out.append(self._pop(seq))
        self._next = max(self._next, before or 0)
        return out

    def _is_complete(self, row: _Row) -> bool:
        return row.values.keys() >= self._wanted and (row.event is not None or not self._with_events)

    def _row(self, seq: int) -> _Row:
        return self._rows.setdefault(seq, _Row()) if seq >= self._next else _Row()  # already returned

    def _pop(self, seq: int) -> RunDocument:
        row = self._rows.pop(seq)
        self._next = seq + 1
        time = document_time(self._descriptor)
        event = row.event or {
            "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._descriptor['uid']}/{seq}")),
            "descriptor": self._descriptor["uid"],
            "seq_num": seq,
            "time": time,
            "data": {},
            "timestamps": dict.fromkeys(self._wanted, time),
            "filled": {},
        }
        return RunDocument(self._run, "event", {**event, "data": {**event["data"], **row.values}}, row.at)

    def _read(self, block: _Block, now: float) -> bool:
        """Read as many rows as may be held; return whether more are left."""
        resource = self._resources.get(block.resource)
        if resource is None:
            raise NotYet(f"StreamResource {block.resource} is missing")
        key = resource["data_key"]
        if key not in self._wanted:
            return False
        if len(block.rows) != len(block.seq_nums):
            raise AssetRefused(f"{key}: {len(block.rows)} rows for {len(block.seq_nums)} Events")
        consolidator = self._consolidator(resource)
        shape = consolidator.datum_shape
        ahead = max(1, min(MAX_ROWS_AHEAD, _MAX_BYTES_AHEAD // max(1, 8 * prod(shape))))
        n = min(len(block.rows), self._next + ahead - block.seq_nums.start)
        if n <= 0:
            raise NotYet(f"the other data keys of Event {self._next} are missing")
        try:
            self._take(block, n, key, consolidator)
        except NotYet as error:
            joined = shape[0] if consolidator.join_method == "concat" and shape else 1
            available = min(n, error.rows // joined - block.rows.start)
            if available > 0:  # these rows need not wait for the rest
                self._take(block, available, key, consolidator)
            raise
        block.patience = Patience(now + self.settings.wait_s)
        return bool(block.rows)

    def _take(self, block: _Block, n: int, key: str, consolidator: Any) -> None:
        """Read the first ``n`` rows of a block, and remove them from it."""
        part = replace(block, rows=block.rows[:n], seq_nums=block.seq_nums[:n])
        self._put(part, key, self._in_time(lambda: self._values(consolidator, part.rows)))
        block.rows, block.seq_nums = block.rows[n:], block.seq_nums[n:]

    def _fail(self, block: _Block, reason: str) -> None:
        resource = self._resources.get(block.resource)
        keys = self._wanted
        if resource is not None and isinstance(named := resource.get("data_key"), str):
            keys &= {named}
        for key in keys:
            self._put(block, key, [UnreadFile(reason)] * len(block.seq_nums))

    def _put(self, block: _Block, key: str, values: Iterable[Any]) -> None:
        if isinstance(values, np.ndarray) and values.ndim == 1:
            values = values.tolist()
        for seq, value in zip(block.seq_nums, values, strict=True):
            row = self._row(seq)
            row.values.setdefault(key, value)
            row.at = max(row.at, block.at)

    def _consolidator(self, resource: Doc) -> Any:
        uid = resource["uid"]
        if uid not in self._consolidators:
            try:
                from bluesky.consolidators import HDF5Consolidator
            except ImportError as error:
                message = f"reading StreamDatums needs {error.name}: pip install 'xas-agent[assets]'"
                raise AssetRefused(message) from None
            if resource["mimetype"] not in HDF5Consolidator.supported_mimetypes:
                raise AssetRefused(f"{resource['data_key']}: {resource['mimetype']}; only application/x-hdf5 is read")
            if resource["parameters"].get("slice"):
                raise AssetRefused(f"{resource['data_key']}: a slice of a dataset is not read")
            self._consolidators[uid] = HDF5Consolidator(resource, self._descriptor)  # type: ignore[arg-type]
        return self._consolidators[uid]

    def _values(self, consolidator: Any, rows: range) -> np.ndarray[Any, Any]:
        """Return the values of Events, (n,) or (n, …); each Event has one row of the dataset, or several joined."""
        (asset,) = consolidator.assets
        path = self.settings.locate(asset.data_uri)
        inside = self.settings.inside
        dataset = consolidator.adapter_parameters()["dataset"]
        dataset = dataset if isinstance(dataset, str) else "/".join(dataset)
        shape: tuple[int, ...] = consolidator.datum_shape
        if consolidator.join_method == "concat" and shape:
            n = shape[0]
            data = rows_of(path, dataset, rows.start * n, rows.stop * n, inside, prod(shape[1:]))
            data = data.reshape(len(rows), *shape) if data.size == len(rows) * int(np.prod(shape)) else data
        else:
            data = rows_of(path, dataset, rows.start, rows.stop, inside, prod(shape))
        if data.shape[0] != len(rows):
            raise AssetRefused(f"{path}: {dataset} has rows of {data.shape[1:]}, announced as {shape}")
        return data.reshape(len(rows)) if data.size == len(rows) else data


def _rows(doc: Doc, key: str) -> range:
    start, stop = doc[key]["start"], doc[key]["stop"]
    if not (type(start) is int and type(stop) is int and 0 <= start <= stop <= start + MAX_DATUM_ROWS):
        raise ValueError(
            f"found {key} {start!r} to {stop!r} in a stream_datum, expected at most {MAX_DATUM_ROWS} rows"
        )
    return range(start, stop)
