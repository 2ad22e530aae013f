"""Reads the numbers of one Event, or of the Events of one sweep, as columns by role."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..fields import StreamFields
from ..types import Reason, as_count, as_number, as_numbers
from .sweeps import Array, UnusableError

MAX_SPECTRUM_POINTS = 2_000_000
"""Largest number of points of one Event: half an hour of an electrometer at 1 kHz. To sort more points would delay
all runs by seconds."""
_KINDS = {"c": "complex", "M": "dates", "m": "durations", "U": "texts", "S": "texts", "b": "true or false"}
"""Names of the types that are not real numbers, by numpy's kind."""


class UnreadFile(str):
    """The reason why a file could not be read; it replaces the file's data in an Event."""

    __slots__ = ()


def read_sweep_columns(fields: StreamFields, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Return the columns, (M,) each, of the M Events of a sweep; raise UnusableError if one cannot be read."""
    return _by_role(fields, lambda key: _column(rows, key, is_energy=key == fields.energy))


def read_event_columns(fields: StreamFields, data: Mapping[str, Any], grid: Array | None) -> dict[str, Array]:
    """Return the columns, (M,) each, of a whole-spectrum Event; raise UnusableError if one cannot be read.

    ``grid`` holds the energies, eV, if the stream has none.
    """
    columns = _by_role(fields, lambda key: read_vector(data, key, is_energy=key == fields.energy))
    if fields.energy is None:
        if grid is None:
            raise UnusableError(Reason.NO_ENERGY, "spectra without energies")
        columns["energy"] = grid
    for role in ("reference", "iref", "time"):
        if role in columns and columns[role].size != columns["energy"].size:
            del columns[role]
    if len({c.size for c in columns.values()}) != 1:
        raise UnusableError(Reason.LENGTHS_DIFFER, ", ".join(f"{role} {c.size}" for role, c in columns.items()))
    if not np.isfinite(columns["energy"]).all():
        raise UnusableError(Reason.NAN_IN_DATA, "not all energies are finite")
    return columns


def read_vector(data: Mapping[str, Any], key: str, *, is_energy: bool = False) -> Array:
    """Return a field of a whole-spectrum Event, (M,).

    The descriptor states the shape of the first reading; later readings may have more or fewer points.
    """
    if key not in data:
        raise UnusableError(Reason.FIELD_MISSING, f"{key} is not in the event")
    value = data[key]
    plain = type(value) is np.ndarray and value.dtype == np.float64 and value.ndim == 1
    if plain and 1 < value.size <= MAX_SPECTRUM_POINTS:  # the usual case, which needs no closer look
        return value
    _refuse_unread((value,))
    column = _real_numbers(key, value, is_energy)
    if column is None or sum(n != 1 for n in column.shape) != 1:
        found = "arrays of several lengths" if column is None else f"shape {list(column.shape)}"
        raise UnusableError(Reason.SHAPE_DISAGREES, f"{key} has {found}, expected one row of numbers")
    if column.size > MAX_SPECTRUM_POINTS:
        detail = f"{key} has {column.size} points, at most {MAX_SPECTRUM_POINTS} are read"
        raise UnusableError(Reason.TOO_MANY_POINTS, detail)
    return column.reshape(-1)


def read_energy(data: Mapping[str, Any], fields: StreamFields) -> float:
    """Return the energy of an Event of a step scan, eV; NaN if it has no energy."""
    value = as_number(data.get(fields.energy or ""))
    if value is None:
        return math.nan
    energy = value * fields.energy_scale if fields.axis is None else float(fields.in_ev(value))
    return energy if math.isfinite(energy) else math.nan


def energy_column(rows: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Return a field of one whole spectrum or of the points of a scan, (M,); empty if it holds no such numbers."""
    try:
        read = read_vector(rows[0], key) if len(rows) == 1 else _column(rows, key, is_energy=True)
    except UnusableError:
        return np.empty(0)
    return read


def average_readings(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    """Return the mean of each of ``keys`` over a sweep; omit means that are not finite."""
    means = {}
    for key in keys:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(np.mean([np.float64(row[key]) for row in rows if key in row] or [math.nan]))
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(mean):
            means[key] = mean
    return means


def read_point_time(data: Mapping[str, Any], fields: StreamFields, doc: Mapping[str, Any]) -> float:
    """Return the time of a point, Unix seconds: from the configured field if possible, otherwise from its Event."""
    time = None if fields.time is None else as_number(data.get(fields.time))
    return document_time(doc) if time is None else time


def document_time(doc: Mapping[str, Any]) -> float:
    """Return a document's time, Unix seconds; 0 if it is missing or not finite."""
    return as_number(doc.get("time"), texts=True) or 0.0


def announced_events(stop: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of Events that a RunStop announces, by stream."""
    numbers = stop.get("num_events")
    if not isinstance(numbers, Mapping):
        return {}
    counts = {str(name): as_count(number) for name, number in numbers.items()}
    return {name: count for name, count in counts.items() if count is not None}


def finite_scalars(data: Mapping[str, Any], keys: Iterable[str] | None = None) -> dict[str, float]:
    """Return the finite numbers of a mapping, including arrays of one number; skip booleans and texts.

    ``keys`` selects entries; by default all are read.
    """
    found = {}
    for key in data if keys is None else keys:
        if (number := as_number(data.get(key))) is not None:
            found[str(key)] = number
    return found


@np.errstate(over="ignore", invalid="ignore")
def _by_role(fields: StreamFields, read: Callable[[str], Array]) -> dict[str, Array]:
    """Read the columns of the formula; omit unreadable columns of the reference foil."""
    columns: dict[str, Array] = {}
    if fields.energy is not None:
        columns["energy"] = fields.in_ev(read(fields.energy))
    if fields.i0 is not None:
        columns["i0"] = read(fields.i0)
    if fields.fluorescence:
        parts = [read(key) for key in fields.fluorescence]
        if len({part.size for part in parts}) != 1:
            raise UnusableError(Reason.LENGTHS_DIFFER, f"fluorescence channels {[part.size for part in parts]}")
        columns["fluorescence"] = np.sum(parts, axis=0)
    if fields.mu is not None:
        columns["mu"] = read(fields.mu)
    if fields.it is not None and fields.formula == "transmission":
        columns["it"] = read(fields.it)
    try:
        if fields.time is not None:
            columns["time"] = read(fields.time)
        if fields.iref is not None and fields.it is not None:
            it = columns["it"] if "it" in columns else read(fields.it)
            columns |= {"iref": read(fields.iref), "it": it}
        if fields.reference is not None:
            columns["reference"] = read(fields.reference)
    except UnusableError:
        pass
    return columns


def _column(rows: Sequence[Mapping[str, Any]], key: str, *, is_energy: bool) -> Array:
    """Return one number per row, (M,); an array of one number counts as a number."""
    if (plain := _floats(rows, key)) is not None:
        return plain
    _refuse_unread(row.get(key) for row in rows)
    if any(key not in row for row in rows):
        raise UnusableError(Reason.FIELD_MISSING, f"{key} is not in every event")
    column = _real_numbers(key, [row[key] for row in rows], is_energy)
    if column is None and all(np.size(row[key]) == 1 for row in rows):  # numbers, and arrays of one number
        column = _real_numbers(key, [np.ma.ravel(row[key])[0] for row in rows], is_energy)
    if column is None or column.size != len(rows):
        raise UnusableError(Reason.SHAPE_DISAGREES, f"{key} is not one number in every event")
    return column.reshape(-1)


def _floats(rows: Sequence[Mapping[str, Any]], key: str) -> Array | None:
    """Return one number per row, (M,), if all are Python floats, the quick and usual case; otherwise None."""
    try:
        values = [row[key] for row in rows]
    except KeyError:
        return None
    return np.array(values) if {*map(type, values)} == {float} else None


def _real_numbers(key: str, values: Any, is_energy: bool) -> Array | None:
    """Return values of any common shape as float64; None if shapes differ. Raise UnusableError for other types."""
    try:
        numbers = as_numbers(values)
        column = None if numbers is None else numbers.astype(np.float64, copy=False)
    except (ValueError, OverflowError):
        return None
    if numbers is None:
        found = np.asarray(values).dtype
        kind = "partly true or false" if found.kind in "iuf" else _KINDS.get(found.kind, f"of type {found}")
        raise UnusableError(Reason.SHAPE_DISAGREES, f"values of {key} are {kind}, expected real numbers")
    if is_energy and numbers.dtype == np.float16:
        detail = f"energies of {key} are float16, which has three digits; expected float32 or float64"
        raise UnusableError(Reason.SHAPE_DISAGREES, detail)
    return column


def _refuse_unread(values: Iterable[Any]) -> None:
    unread = next((value for value in values if isinstance(value, UnreadFile)), None)
    if unread is not None:
        raise UnusableError(Reason.FILE_NOT_READABLE, str(unread))
