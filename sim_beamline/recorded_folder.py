"""Reads recordings in a folder: a series of normalised spectra with a table."""

import csv
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..agent.types import Array
from .devices import RecordedDevice
from .engine import TRUTH
from .recording import CloseRun, OpenRun, Reading, ReplayError, Step

_TRUE_VALUE_PREFIXES = ("x_", "true_")
"""Prefixes of columns with true values, which go to the truth run."""


def _data_key(dtype: str, shape: Iterable[int] = (), units: str = "") -> dict[str, Any]:
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
    hidden = {name: values for name, values in columns.items() if name.startswith(_TRUE_VALUE_PREFIXES)}
    shown = {name: values for name, values in columns.items() if name not in hidden}

    spectra = RecordedDevice(
        "spectra", {k: _data_key("array", v.shape[-1:], "eV" if k == "energy" else "") for k, v in arrays.items()}
    )
    scalar_keys = {k: _data_key("number") for k in shown} | {"recorded_time": _data_key("number", (), "s")}
    scalars = RecordedDevice("series", scalar_keys)
    truth = RecordedDevice("truth", {"frame": _data_key("integer"), **{k: _data_key("number") for k in hidden}})
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
    except Exception as error:  # numpy, zipfile and zlib raise many types of exception on damaged bytes
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
