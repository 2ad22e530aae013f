"""Recorded experiments, brought into the one form that a replay measures again.

A recording is a sequence of :class:`OpenRun`, :class:`Reading` and :class:`CloseRun` in the order of time.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from ..agent.types import Array, Document, InputError, get_logger
from .devices import Recorded
from .engine import TRUTH

log = get_logger()

HIDDEN = ("x_", "true_")
"""Columns that begin so are what an agent has to find: they go to the truth run."""


class ReplayError(InputError):
    """A recording that cannot be replayed: names the file, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run begins; ``run`` is its key within the recording."""

    run: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """One Event to be measured again."""

    run: str
    stream: str
    devices: tuple[Recorded, ...]
    data: Mapping[str, Any]
    timestamps: Mapping[str, float]
    time: float
    """Unix seconds at which it was recorded."""


@dataclass(frozen=True, slots=True)
class CloseRun:
    """A run ends as it was recorded to end."""

    run: str
    exit_status: str
    reason: str


Step = OpenRun | Reading | CloseRun


def is_frame(reading: Reading) -> bool:
    """Whether an Event holds a whole spectrum."""
    return any(np.ndim(value) for value in reading.data.values())


def _key(dtype: str, shape: Iterable[int] = (), units: str = "") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "source": "SIM:replay", "units": units}


def from_folder(folder: Path, *, element: str | None, edge: str | None, noise: float, seed: int) -> list[Step]:
    """Read a folder of normalised spectra as one run with an Event per spectrum, and a truth run beside it.

    ``spectra.npz`` has ``energy`` (E,) in eV, ``norm`` (N, E) normalised absorption, and may have
    ``reference`` (N, E), the foil's absorption. ``series.csv`` has a row per spectrum with ``start`` (ISO
    8601; without a zone it is local time); its other numeric columns become scalar readings, those named
    ``x_…`` or ``true_…`` the truth.

    Args:
        noise: σ of Gaussian noise added to ``norm``; 0 adds none.

    Raises:
        ReplayError: something is missing or has the wrong shape.
    """
    arrays = _read_spectra(folder / "spectra.npz")
    columns = _read_series(folder / "series.csv", len(arrays["norm"]))
    times = columns.pop("recorded_time")
    if noise:
        arrays["norm"] = arrays["norm"] + np.random.default_rng(seed).normal(0, noise, arrays["norm"].shape)
    hidden = {name: values for name, values in columns.items() if name.startswith(HIDDEN)}
    shown = {name: values for name, values in columns.items() if name not in hidden}

    spectra = Recorded(
        "spectra", {k: _key("array", v.shape[-1:], "eV" if k == "energy" else "") for k, v in arrays.items()}
    )
    scalars = Recorded("series", {**{k: _key("number") for k in shown}, "recorded_time": _key("number", (), "s")})
    truth = Recorded("truth", {"frame": _key("integer"), **{k: _key("number") for k in hidden}})
    metadata: dict[str, Any] = {
        **{key: value for key, value in (("element", element), ("edge", edge)) if value},
        "plan_name": "replay",
        "purpose": "replay",
        "sample_name": folder.resolve().name,
        "frames_planned": len(times),
        "num_points": len(times),
        "recorded_time": times[0],
    }
    steps: list[Step] = [OpenRun("replay", metadata)]
    if hidden:
        steps.append(OpenRun(TRUTH, {"plan_name": "truth", "purpose": TRUTH}))
    for i, time in enumerate(times):
        data: dict[str, Any] = {name: v if v.ndim == 1 else v[i] for name, v in arrays.items()}
        data |= {name: values[i] for name, values in shown.items()} | {"recorded_time": time}
        steps.append(Reading("replay", "primary", (spectra, scalars), data, dict.fromkeys(data, time), time))
        if hidden:
            data = {"frame": i + 1, **{name: values[i] for name, values in hidden.items()}}
            steps.append(Reading(TRUTH, TRUTH, (truth,), data, dict.fromkeys(data, time), time))
    steps.append(CloseRun("replay", "success", ""))
    if hidden:
        steps.append(CloseRun(TRUTH, "success", ""))
    return steps


def _read_spectra(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise ReplayError(f"{path}: not found; expected an npz with energy (E,) and norm (N, E)")
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {k: archive[k].astype(float) for k in ("energy", "norm", "reference") if k in archive}
    except Exception as error:  # numpy, zipfile and zlib raise anything at all on damaged bytes
        raise ReplayError(f"{path}: not a readable npz of numbers ({error})") from error
    for name in ("energy", "norm"):
        if name not in arrays:
            raise ReplayError(f"{path}: has no array {name!r}; expected energy (E,) and norm (N, E)")
    energy = arrays["energy"]
    if energy.ndim != 1 or energy.size == 0:
        raise ReplayError(f"{path}: energy has shape {energy.shape}, expected (E,)")
    for name in ("norm", "reference"):
        if name not in arrays:
            continue
        shape = arrays[name].shape
        if len(shape) != 2 or shape[1] != energy.size or shape[0] == 0 or shape[0] != len(arrays["norm"]):
            raise ReplayError(f"{path}: {name} has shape {shape}, expected (N, {energy.size}) with N ≥ 1")
    return arrays


def _read_series(path: Path, rows: int) -> dict[str, list[float]]:
    """Return the numeric columns, NaN for an empty cell, and ``start`` as ``recorded_time``, Unix s."""
    if not path.is_file():
        raise ReplayError(f"{path}: not found; expected a table with a column start and a row per spectrum")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path}: not a readable table ({error})") from error
    if len(table) != rows:
        raise ReplayError(f"{path}: has {len(table)} rows, but spectra.npz has {rows} spectra")
    if "start" not in table[0]:
        raise ReplayError(f"{path}: has no column start; found {', '.join(map(str, table[0]))}")
    try:
        columns = {"recorded_time": [datetime.fromisoformat(row["start"]).timestamp() for row in table]}
    except (TypeError, ValueError) as error:
        raise ReplayError(f"{path}: a start is not an ISO 8601 time ({error})") from error
    for name in table[0]:
        if name in ("start", "recorded_time") or not isinstance(name, str):
            continue
        try:
            columns[name] = [float(row[name]) if row[name] else float("nan") for row in table]
        except ValueError:
            continue  # words, such as a scan's name
    return columns


def from_documents(documents: Iterable[Document]) -> list[Step]:
    """Read recorded ``(name, doc)`` pairs: one run per recorded run, interleaved as they were.

    Metadata are kept but for uid and time; each device of a descriptor becomes a simulated one. An agent's
    own runs (``xas_agent: true``) are left out: they were never measured. An Event whose descriptor is
    unknown, or whose fields are not those of its descriptor, cannot be measured again: it is skipped and
    counted in the log. A run without a stop document ends with ``abort``.

    Raises:
        ReplayError: no run at all, data held in external files, or a document without a required key.
    """
    recording = _Documents()
    for count, (name, doc) in enumerate(_single_events(documents), 1):
        try:
            recording.take(name, doc)
        except (KeyError, TypeError, AttributeError) as error:
            raise ReplayError(f"document {count}, {name}: not a Bluesky document ({error!r})") from error
    return recording.steps()


class _Documents:
    """The runs and streams met so far while recorded documents are read."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._seen: set[str] = set()
        self._open: dict[str, None] = {}
        self._streams: dict[str, _Stream] = {}
        """By descriptor uid."""
        self._devices: dict[tuple[str, str], _Stream] = {}
        self._agents: set[str] = set()
        """uids of agents' runs and of their descriptors."""
        self._skipped = 0

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            if doc.get("xas_agent"):
                self._agents.add(doc["uid"])
            elif doc["uid"] not in self._seen:
                self._seen.add(doc["uid"])
                self._open[doc["uid"]] = None
                self._steps.append(OpenRun(doc["uid"], {k: v for k, v in doc.items() if k not in ("uid", "time")}))
        elif name == "descriptor":
            if doc["run_start"] in self._open:
                self._describe(doc)
            elif doc["run_start"] in self._agents:
                self._agents.add(doc["uid"])
        elif name == "event":
            if doc["descriptor"] not in self._agents:
                self._measure(doc)
        elif name == "stop":
            if doc["run_start"] in self._open:
                del self._open[doc["run_start"]]
                self._steps.append(
                    CloseRun(doc["run_start"], doc.get("exit_status", "success"), doc.get("reason") or "")
                )
        else:
            raise ReplayError(f"the recording has a {name} document: external data cannot be replayed")

    def _describe(self, doc: Mapping[str, Any]) -> None:
        run, name = doc["run_start"], doc.get("name", "primary")
        stream = self._devices.setdefault(
            (run, name), _Stream(run, name, tuple(_devices(doc)), frozenset(doc["data_keys"]))
        )
        if stream.fields != set(doc["data_keys"]):
            raise ReplayError(f"run {run}: stream {name!r} changes its fields, which no replay can follow")
        self._streams[doc["uid"]] = stream

    def _measure(self, doc: Mapping[str, Any]) -> None:
        stream = self._streams.get(doc["descriptor"])
        if stream is None or stream.run not in self._open or stream.fields != set(doc["data"]):
            self._skipped += 1
            return
        data = {k: np.asarray(v) if isinstance(v, list) else v for k, v in doc["data"].items()}
        self._steps.append(
            Reading(stream.run, stream.name, stream.devices, data, doc.get("timestamps", {}), doc.get("time", 0.0))
        )

    def steps(self) -> list[Step]:
        if not self._seen:
            raise ReplayError("the recording has no RunStart of a measurement; expected Bluesky documents")
        if self._skipped:
            log.warning(
                "recorded events skipped: not of an open run, or not the fields of their descriptor",
                events=self._skipped,
            )
        ends = [CloseRun(run, "abort", "the recording ends without a RunStop") for run in self._open]
        return [*self._steps, *ends]


@dataclass(frozen=True, slots=True)
class _Stream:
    run: str
    name: str
    devices: tuple[Recorded, ...]
    fields: frozenset[str]


def _single_events(documents: Iterable[Document]) -> Iterator[Document]:
    for name, doc in documents:
        if name == "event_page":
            yield from (("event", dict(event)) for event in event_model.unpack_event_page(doc))  # type: ignore[arg-type]
        else:
            yield name, doc


def _devices(descriptor: Mapping[str, Any]) -> Iterator[Recorded]:
    """Simulated devices that describe themselves as the recorded ones did."""
    keys = dict(descriptor["data_keys"])
    for name, fields in descriptor.get("object_keys", {}).items():
        own = {field: keys.pop(field) for field in fields if field in keys}
        yield Recorded(name, own, descriptor.get("configuration", {}).get(name))
    if keys:
        yield Recorded(descriptor.get("name", "primary"), keys)
