"""Events out of StreamDatums: the rows that they announce, read from HDF5 as bluesky's consolidators lay them out."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...agent.stream import UnreadFile, document_time
from ...agent.types import RunDocument
from .files import AssetRefused, AssetSettings, NotYet, rows_of

Doc = Mapping[str, Any]

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 1.0


@dataclass(slots=True)
class Patience:
    """When to look again for something that is not there yet, and until when."""

    until: float
    again: float = 0.0
    _step: float = FIRST_RETRY_S

    def due(self, now: float) -> bool:
        """Whether to look now."""
        return now >= self.again

    def wait(self, now: float) -> bool:
        """Put the next look off; False where there has been waited long enough."""
        if now >= self.until:
            return False
        self.again = min(now + self._step, self.until)
        self._step = min(2 * self._step, LAST_RETRY_S)
        return True


@dataclass(slots=True)
class _Block:
    """The rows of one StreamDatum."""

    resource: str
    rows: range
    seq_nums: range
    at: float
    patience: Patience


@dataclass(slots=True)
class _Row:
    """What has come of one Event."""

    values: dict[str, Any] = field(default_factory=dict)
    event: Doc | None = None
    at: float = 0.0


class StreamRows:
    """Puts the Events of one descriptor together from the rows of its StreamDatums and what came in Events itself.

    They are given in the order of their ``seq_num``, each once; what lacks is waited for, until a later one has been
    whole for ``wait_s``. One without an Event of its own has its descriptor's time, since a StreamDatum has none
    (``fields.time`` names a data key that does).

    Parameters
    ----------
    descriptor : the EventDescriptor, as it came
    wanted : its data keys, external as ``STREAM:``, that are read
    resources : the StreamResources by uid, to which more may come
    """

    def __init__(
        self, settings: AssetSettings, descriptor: RunDocument, wanted: Iterable[str], resources: Mapping[str, Doc]
    ) -> None:
        self.settings, self._run, self._descriptor = settings, descriptor.run, descriptor.doc
        self._resources = resources
        self._wanted = frozenset(wanted)
        keys = self._descriptor["data_keys"].values()
        self._with_events = any(about.get("external") != "STREAM:" for about in keys)
        self._consolidators: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._seen: set[str] = set()
        self._rows: dict[int, _Row] = {}
        self._next = 1

    @property
    def reading(self) -> bool:
        """Whether rows that were announced are still to be read."""
        return bool(self._blocks)

    def lagging(self, now: float) -> bool:
        """Whether there are Events of which a part has come lately, and the rest may follow."""
        return any(now < row.at + self.settings.wait_s for row in self._rows.values())

    def datum(self, doc: Doc, at: float) -> None:
        """Take a StreamDatum; one that is repeated counts once."""
        if doc["uid"] in self._seen:
            return
        self._seen.add(doc["uid"])
        rows = range(doc["indices"]["start"], doc["indices"]["stop"])
        seq_nums = range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
        if rows:
            patience = Patience(at + self.settings.wait_s)
            self._blocks.append(_Block(doc["stream_resource"], rows, seq_nums, at, patience))

    def event(self, doc: Doc, at: float) -> None:
        """Take the part of an Event that is in its document."""
        row = self._row(int(doc["seq_num"]))
        row.event, row.at = doc, max(row.at, at)

    def advance(self, now: float) -> list[RunDocument]:
        """Read what can be read; return the Events that are whole, up to the first that is not."""
        waiting = []
        for block in self._blocks:
            if not block.patience.due(now):
                waiting.append(block)
                continue
            try:
                self._read(block)
            except NotYet as why:
                if block.patience.wait(now):
                    waiting.append(block)
                else:
                    self._fail(block, f"{why}; waited {self.settings.wait_s:g} s")
            except Exception as why:
                self._fail(block, str(why) if isinstance(why, AssetRefused) else f"{type(why).__name__}: {why}")
        self._blocks = waiting
        out = self._whole_ones()
        if self._rows and (beyond := self._overdue(now)) is not None:
            out += self._as_they_are(beyond)
            out += self._whole_ones()
        return out

    def finish(self) -> list[RunDocument]:
        """Return all that has come, whole or not."""
        self._blocks = []
        return self._as_they_are()

    def _whole_ones(self) -> list[RunDocument]:
        out = []
        while (row := self._rows.get(self._next)) is not None and self._whole(row):
            out.append(self._give(self._next))
        return out

    def _overdue(self, now: float) -> int | None:
        """Return the first Event that has been whole for as long as may be waited: what lacks before it was lost."""
        since = now - self.settings.wait_s
        late = min((seq for seq, row in self._rows.items() if row.at <= since and self._whole(row)), default=None)
        return None if late is None or any(block.seq_nums[0] < late for block in self._blocks) else late

    def _as_they_are(self, before: int | None = None) -> list[RunDocument]:
        """Return what has come of the Events before one, or of all; what lacks in them says so."""
        out = []
        for seq in sorted(seq for seq in self._rows if before is None or seq < before):
            row = self._rows[seq]
            if self._with_events and row.event is None:
                del self._rows[seq]
                continue
            row.values = {key: UnreadFile("no StreamDatum for it came") for key in self._wanted} | row.values
            out.append(self._give(seq))
        self._next = max(self._next, before or 0)
        return out

    def _whole(self, row: _Row) -> bool:
        return row.values.keys() >= self._wanted and (row.event is not None or not self._with_events)

    def _row(self, seq: int) -> _Row:
        return self._rows.setdefault(seq, _Row()) if seq >= self._next else _Row()  # given out before

    def _give(self, seq: int) -> RunDocument:
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

    def _read(self, block: _Block) -> None:
        resource = self._resources.get(block.resource)
        if resource is None:
            raise NotYet(f"StreamResource {block.resource} has not come")
        key = resource["data_key"]
        if key not in self._wanted:
            return
        if len(block.rows) != len(block.seq_nums):
            raise AssetRefused(f"{key}: {len(block.rows)} rows for {len(block.seq_nums)} Events")
        consolidator = self._consolidator(resource)
        try:
            self._put(block, key, self._values(consolidator, block.rows))
        except NotYet as why:
            shape = consolidator.datum_shape
            joined = shape[0] if consolidator.join_method == "concat" and shape else 1
            there = range(block.rows.start, why.rows // joined)
            if there:  # what has come is not kept waiting for the rest
                n = len(there)
                self._put(
                    replace(block, rows=there, seq_nums=block.seq_nums[:n]), key, self._values(consolidator, there)
                )
                block.rows, block.seq_nums = block.rows[n:], block.seq_nums[n:]
            raise

    def _fail(self, block: _Block, why: str) -> None:
        resource = self._resources.get(block.resource)
        keys = self._wanted if resource is None else {resource["data_key"]} & self._wanted
        for key in keys:
            self._put(block, key, [UnreadFile(why)] * len(block.seq_nums))

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
        """Return the values of Events, (n,) or (n, …): one row of the dataset each, or as many as are joined."""
        (asset,) = consolidator.assets
        path = self.settings.locate(asset.data_uri)
        inside = self.settings.inside if self.settings.roots else None
        dataset = consolidator.adapter_parameters()["dataset"]
        dataset = dataset if isinstance(dataset, str) else "/".join(dataset)
        shape: tuple[int, ...] = consolidator.datum_shape
        if consolidator.join_method == "concat" and shape:
            n = shape[0]
            data = rows_of(path, dataset, rows.start * n, rows.stop * n, inside)
            data = data.reshape(len(rows), *shape) if data.size == len(rows) * int(np.prod(shape)) else data
        else:
            data = rows_of(path, dataset, rows.start, rows.stop, inside)
        if data.shape[0] != len(rows):
            raise AssetRefused(f"{path}: {dataset} has rows of {data.shape[1:]}, announced as {shape}")
        return data.reshape(len(rows)) if data.size == len(rows) else data
