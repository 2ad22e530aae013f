"""Recorded experiments in the form that a replay measures again.

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
from .devices import RecordedDevice
from .engine import TRUTH

log = get_logger()

HIDDEN = ("x_", "true_")
"""Prefixes of columns with true values, which go to the truth run."""


class ReplayError(InputError):
    """A recording that cannot be replayed; the message names the file, what was found and what is expected."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The begin of a run; ``run`` is its key within the recording."""

    run: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """One Event that the replay measures again."""

    run: str
    stream: str
    devices: tuple[RecordedDevice, ...]
    data: Mapping[str, Any]
    timestamps: Mapping[str, float]
    time: float
    """Time of the recorded Event, Unix s."""


@dataclass(frozen=True, slots=True)
class CloseRun:
    """The end of a run with its recorded exit status and reason."""

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
    """Read a folder of normalised spectra as one run with one Event per spectrum, and a truth run.

    ``spectra.npz`` contains ``energy`` (E,) in eV, ``norm`` (N, E), the normalised absorption, and optionally
    ``reference`` (N, E), the absorption of the foil. ``series.csv`` contains one row per spectrum with the column
    ``start`` (ISO 8601; local time without a zone). Its other numeric columns become scalar readings; those named
    ``x_…`` or ``true_…`` go to the truth run.

    Parameters
    ----------
    folder : Path
    element, edge : str or None
        Absorber and edge in the RunStart.
    noise : float
        σ of Gaussian noise added to ``norm``; 0 adds no noise.
    seed : int
        Seed of the noise.

    Returns
    -------
    list of Step

    Raises
    ------
    ReplayError
        A file, array or column is missing or has the wrong shape.
    """
    arrays = _read_spectra(folder / "spectra.npz")
    columns = _read_series(folder / "series.csv", len(arrays["norm"]))
    times = columns.pop("recorded_time")
    if noise:
        arrays["norm"] = arrays["norm"] + np.random.default_rng(seed).normal(0, noise, arrays["norm"].shape)
    hidden = {name: values for name, values in columns.items() if name.startswith(HIDDEN)}
    shown = {name: values for name, values in columns.items() if name not in hidden}

    spectra = RecordedDevice(
        "spectra", {k: _key("array", v.shape[-1:], "eV" if k == "energy" else "") for k, v in arrays.items()}
    )
    scalar_keys = {k: _key("number") for k in shown} | {"recorded_time": _key("number", (), "s")}
    scalars = RecordedDevice("series", scalar_keys)
    truth = RecordedDevice("truth", {"frame": _key("integer"), **{k: _key("number") for k in hidden}})
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
    """Return the numeric columns, NaN for an empty cell, and ``start`` as ``recorded_time`` in Unix s."""
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
            continue  # text, such as a scan's name
    return columns


def from_documents(documents: Iterable[Document]) -> list[Step]:
    """Read recorded documents: one run per recorded run, interleaved as recorded.

    All metadata except uid and time are kept; each device of a descriptor becomes a simulated device. Runs of an
    agent (``xas_agent: true``) are left out, because they are no measurements. An Event with an unknown descriptor,
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
        There is no run, the data lie in external files, or a document lacks a required key.
    """
    recording = _Documents()
    for count, (name, doc) in enumerate(_single_events(documents), 1):
        try:
            recording.take(name, doc)
        except (KeyError, TypeError, AttributeError) as error:
            raise ReplayError(f"document {count}, {name}: not a Bluesky document ({error!r})") from error
    return recording.steps()


class _Documents:
    """Runs and streams of the documents read so far."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._seen: set[str] = set()
        self._open: dict[str, None] = {}
        self._streams: dict[str, _Stream] = {}
        """By descriptor uid."""
        self._devices: dict[tuple[str, str], _Stream] = {}
        self._agents: set[str] = set()
        """uids of agents' runs and their descriptors."""
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
            raise ReplayError(f"found a {name} document; external data cannot be replayed")

    def _describe(self, doc: Mapping[str, Any]) -> None:
        run, name = doc["run_start"], doc.get("name", "primary")
        stream = self._devices.setdefault(
            (run, name), _Stream(run, name, tuple(_devices(doc)), frozenset(doc["data_keys"]))
        )
        if stream.fields != set(doc["data_keys"]):
            raise ReplayError(f"run {run}: stream {name!r} changes its fields, expected the same in all descriptors")
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
            raise ReplayError("found no RunStart of a measurement; expected Bluesky documents")
        if self._skipped:
            log.warning(
                "recorded events skipped: their run is not open, or their fields differ from the descriptor",
                events=self._skipped,
            )
        ends = [CloseRun(run, "abort", "the recording ends without a RunStop") for run in self._open]
        return [*self._steps, *ends]


@dataclass(frozen=True, slots=True)
class _Stream:
    run: str
    name: str
    devices: tuple[RecordedDevice, ...]
    fields: frozenset[str]


def _single_events(documents: Iterable[Document]) -> Iterator[Document]:
    for name, doc in documents:
        if name == "event_page":
            yield from (("event", dict(event)) for event in event_model.unpack_event_page(doc))  # type: ignore[arg-type]
        else:
            yield name, doc


def _devices(descriptor: Mapping[str, Any]) -> Iterator[RecordedDevice]:
    """Yield simulated devices with the descriptions of the recorded ones."""
    keys = dict(descriptor["data_keys"])
    for name, fields in descriptor.get("object_keys", {}).items():
        data_keys = {field: keys.pop(field) for field in fields if field in keys}
        yield RecordedDevice(name, data_keys, descriptor.get("configuration", {}).get(name))
    if keys:
        yield RecordedDevice(descriptor.get("name", "primary"), keys)
