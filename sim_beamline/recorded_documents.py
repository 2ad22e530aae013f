"""Reads recordings of Bluesky documents: their runs with the same streams and devices."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import event_model
import numpy as np
from event_model import DocumentNames, schema_validators
from jsonschema import ValidationError as SchemaError
from pydantic import BaseModel, BeforeValidator, ValidationError

from ..agent.types import Document, as_count, get_logger
from .devices import RecordedDevice
from .recording import CloseRun, OpenRun, OpenStream, Reading, ReplayError, Step

log = get_logger()


def _as_list(values: Any) -> Any:
    return list(values) if isinstance(values, np.ndarray) else values


_Column = Annotated[list[Any], BeforeValidator(_as_list)]
"""One value per Event; msgpack may contain it as an array."""


class _Start(BaseModel):
    uid: str
    xas_agent: Any = False


class _Configuration(BaseModel):
    data: dict[str, Any] = {}
    timestamps: dict[str, float] = {}
    data_keys: dict[str, dict[str, Any]] = {}


class _Descriptor(BaseModel):
    uid: str
    run_start: str
    data_keys: dict[str, dict[str, Any]]
    name: str = "primary"
    object_keys: dict[str, list[str]] = {}
    configuration: dict[str, _Configuration] = {}


class _Event(BaseModel):
    descriptor: str
    data: dict[str, Any]
    timestamps: dict[str, float] = {}
    time: float = 0.0
    seq_num: Any = None


class _EventPage(BaseModel):
    descriptor: str
    uid: _Column
    seq_num: _Column
    time: _Column
    data: dict[str, _Column]
    timestamps: dict[str, _Column]
    filled: dict[str, _Column] = {}


class _Stop(BaseModel):
    run_start: str
    exit_status: str = "success"
    reason: str | None = None
    num_events: dict[str, Any] | None = None


def from_documents(documents: Iterable[Document]) -> list[Step]:
    """Read recorded documents: one run per recorded run, interleaved as recorded.

    All metadata except uid and time are kept; each device of a descriptor becomes a simulated device. Runs of an
    agent (``xas_agent: true``) are left out, because they are not measurements. An Event with an unknown descriptor,
    or with other fields than its descriptor announces, is skipped and counted in the log. A run without a RunStop
    ends with ``abort``.

    Parameters
    ----------
    documents : iterable of (str, dict)

    Returns
    -------
    list of Step

    Raises
    ------
    ReplayError
        There is no run, the data lie in external files, or a required key is absent or of the wrong type.
    """
    recording = _Recording()
    for count, (name, doc) in enumerate(documents, 1):
        try:
            recording.take(name, doc)
        except ValidationError as error:
            details = error.errors(include_url=False)[0]
            key = ".".join(map(str, details["loc"])) or "document"
            cause = f"{key}: {details['msg']}"
            raise ReplayError(f"document {count}, {name}: not a Bluesky document ({cause})") from error
        except SchemaError as error:
            cause = f"{error.json_path.removeprefix('$.')}: {error.message}"[:300]
            raise ReplayError(f"document {count}, {name}: not a Bluesky document ({cause})") from error
    return recording.steps()


@dataclass(frozen=True, slots=True)
class _Stream:
    run: str
    name: str
    devices: tuple[RecordedDevice, ...]
    fields: frozenset[str]


class _Recording:
    """Runs and streams of the documents read so far."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._seen: set[str] = set()
        self._open: dict[str, None] = {}
        self._streams: dict[str, _Stream] = {}
        """Streams by descriptor uid."""
        self._by_name: dict[tuple[str, str], _Stream] = {}
        """Streams by run uid and stream name."""
        self._agents: set[str] = set()
        """Uids of agents' runs and their descriptors."""
        self._skipped = 0

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """Add a document; raise pydantic's or jsonschema's ValidationError for a malformed one.

        The RunEngine of the replay validates the metadata and data keys that it publishes again.
        """
        match name:
            case "start":
                start = _Start.model_validate(doc)
                schema_validators[DocumentNames.start].validate({**doc, "time": 0.0})
                self._start(start, doc)
            case "descriptor":
                descriptor = _Descriptor.model_validate(doc)
                about = {"uid": "", "run_start": "", "time": 0.0, "data_keys": descriptor.data_keys}
                schema_validators[DocumentNames.descriptor].validate(about)
                self._descriptor(descriptor)
            case "event":
                self._event(_Event.model_validate(doc))
            case "event_page":
                page = _EventPage.model_validate(doc).model_dump()
                for event in event_model.unpack_event_page(page):  # type: ignore[arg-type]
                    self._event(_Event.model_validate(event))
            case "bulk_events":
                for event in itertools.chain.from_iterable(doc.values()):
                    self._event(_Event.model_validate(event))
            case "stop":
                self._stop(_Stop.model_validate(doc))
            case _:
                raise ReplayError(f"found a {name} document; external data cannot be replayed")

    def steps(self) -> list[Step]:
        if not self._seen:
            raise ReplayError("found no RunStart of a measurement; expected Bluesky documents")
        if self._skipped:
            log.warning(
                "recorded events skipped: their run is not open, or their fields differ from the descriptor",
                events=self._skipped,
            )
        ends = [CloseRun(run, "abort", "the recording ends without a RunStop") for run in self._open]
        return [*self._steps, *ends]

    def _start(self, start: _Start, doc: Mapping[str, Any]) -> None:
        if start.xas_agent:
            self._agents.add(start.uid)
        elif start.uid not in self._seen:
            self._seen.add(start.uid)
            self._open[start.uid] = None
            self._steps.append(OpenRun(start.uid, {k: v for k, v in doc.items() if k not in ("uid", "time")}))

    def _descriptor(self, doc: _Descriptor) -> None:
        if doc.run_start in self._agents:
            self._agents.add(doc.uid)
        if doc.run_start not in self._open:
            return
        fields = frozenset(doc.data_keys)
        stream = self._by_name.get((doc.run_start, doc.name))
        if stream is None:
            stream = _Stream(doc.run_start, doc.name, tuple(_devices(doc)), fields)
            self._by_name[doc.run_start, doc.name] = stream
            self._steps.append(OpenStream(stream.run, stream.name, stream.devices))
        if stream.fields != fields:
            raise ReplayError(
                f"run {doc.run_start}: stream {doc.name!r} changes its fields, expected the same in all descriptors"
            )
        self._streams[doc.uid] = stream

    def _event(self, doc: _Event) -> None:
        if doc.descriptor in self._agents:
            return
        stream = self._streams.get(doc.descriptor)
        if stream is None or stream.run not in self._open or stream.fields != set(doc.data):
            self._skipped += 1
            return
        data = {k: np.asarray(v) if isinstance(v, list) else v for k, v in doc.data.items()}
        seq = as_count(doc.seq_num)
        self._steps.append(Reading(stream.run, stream.name, stream.devices, data, doc.timestamps, doc.time, seq))

    def _stop(self, doc: _Stop) -> None:
        if doc.run_start in self._open:
            del self._open[doc.run_start]
            counts = {name: as_count(number) for name, number in (doc.num_events or {}).items()}
            announced = {name: count for name, count in counts.items() if count is not None} or None
            self._steps.append(CloseRun(doc.run_start, doc.exit_status, doc.reason or "", announced))


def _devices(descriptor: _Descriptor) -> Iterator[RecordedDevice]:
    """Yield simulated devices with the descriptions of the recorded ones."""
    keys = dict(descriptor.data_keys)
    for name, fields in descriptor.object_keys.items():
        data_keys = {field: keys.pop(field) for field in fields if field in keys}
        configuration = descriptor.configuration.get(name)
        yield RecordedDevice(name, data_keys, configuration.model_dump() if configuration else None)
    if keys:
        yield RecordedDevice(descriptor.name, keys)
