"""The numbers of one Event, or of the Events of one sweep, as columns by their role."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..fields import StreamFields
from ..types import Reason
from .sweeps import Array, UnusableError


class UnreadFile(str):
    """Stands in an Event for what is in a file that could not be read, and says why."""

    __slots__ = ()


def read_sweep_columns(channels: StreamFields, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Return the columns, each (M,), of the M Events of a sweep. Raises UnusableError."""
    return _by_role(channels, lambda key: _column(rows, key))


def read_event_columns(
    channels: StreamFields, data: Mapping[str, Any], data_keys: Mapping[str, Any], grid: Array | None
) -> dict[str, Array]:
    """Return the columns, each (M,), of a whole-spectrum Event. Raises UnusableError.

    ``grid`` are the energies, eV, of a stream that has none of its own.
    """
    columns = _by_role(channels, lambda key: read_vector(data, key, data_keys[key].get("shape")))
    if channels.energy is None:
        if grid is None:
            raise UnusableError(Reason.NO_ENERGY, "spectra without their energies")
        columns["energy"] = grid
    for role in ("reference", "iref", "time"):
        if role in columns and columns[role].size != columns["energy"].size:
            del columns[role]
    if len({c.size for c in columns.values()}) != 1:
        raise UnusableError(Reason.LENGTHS_DIFFER, ", ".join(f"{role} {c.size}" for role, c in columns.items()))
    if not np.isfinite(columns["energy"]).all():
        raise UnusableError(Reason.NAN_IN_DATA, "not all energies are finite")
    return columns


def read_vector(data: Mapping[str, Any], key: str, shape: Any) -> Array:
    """Return a field of a whole-spectrum Event, (M,), if it has the shape that its descriptor announces."""
    if key not in data:
        raise UnusableError(Reason.FIELD_MISSING, f"{key} is not in the event")
    _refuse_unread((data[key],))
    try:
        column = np.asarray(data[key], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UnusableError(Reason.SHAPE_DISAGREES, f"{key} is no array of numbers") from None
    found = [n for n in column.shape if n != 1]
    announced = [n for n in shape or [None] if n != 1]
    fits = len(found) == len(announced) == 1 and announced[0] in (None, found[0])
    if not fits:
        raise UnusableError(Reason.SHAPE_DISAGREES, f"{key} has {list(column.shape)}, announced {shape}")
    return column.reshape(-1)


def read_energy(data: Mapping[str, Any], channels: StreamFields) -> float:
    """Return the energy of an Event of a step scan, eV; NaN where it has none."""
    value: Any = data.get(channels.energy or "")
    if type(value) is not float:
        try:
            value = float(value if np.ndim(value) == 0 else np.reshape(value, -1)[0])
        except (TypeError, ValueError, OverflowError, IndexError):
            return math.nan
    value = float(channels.in_ev(value))
    return value if math.isfinite(value) else math.nan


def average_readings(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    """Return the mean over a sweep of each of ``keys``; one that is not a finite number is left out."""
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


def read_point_time(data: Mapping[str, Any], channels: StreamFields, doc: Mapping[str, Any]) -> float:
    """Return when a point was measured, Unix seconds: as its own field says, else as its Event does."""
    if channels.time is None or channels.time not in data:
        return document_time(doc)
    return finite_scalars({"time": data[channels.time]}).get("time", document_time(doc))


def document_time(doc: Mapping[str, Any]) -> float:
    """Return a document's time, Unix seconds; 0 where it has none that is a finite number."""
    time = doc.get("time", 0.0)
    return float(time) if isinstance(time, (int, float)) and abs(time) <= sys.float_info.max else 0.0


def announced_events(stop: Mapping[str, Any]) -> dict[str, int]:
    """Return how many events of each stream a RunStop announces."""
    numbers = stop.get("num_events")
    if not isinstance(numbers, Mapping):
        return {}
    return {str(name): number for name, number in numbers.items() if isinstance(number, int)}


def finite_scalars(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a mapping, arrays of one included; truth values and texts are left out."""
    found = {}
    for key, value in data.items():
        if isinstance(value, (list, tuple, np.ndarray)) and np.size(value) == 1:
            value = np.asarray(value).reshape(-1)[0]
        if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
            continue
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            continue
        if math.isfinite(number):
            found[str(key)] = number
    return found


@np.errstate(over="ignore", invalid="ignore")
def _by_role(channels: StreamFields, read: Callable[[str], Array]) -> dict[str, Array]:
    """Read what the formula takes; what only the reference foil takes may fail, the frame does without."""
    columns: dict[str, Array] = {}
    if channels.energy is not None:
        columns["energy"] = channels.in_ev(read(channels.energy))
    if channels.i0 is not None:
        columns["i0"] = read(channels.i0)
    if channels.fluorescence:
        parts = [read(key) for key in channels.fluorescence]
        if len({part.size for part in parts}) != 1:
            raise UnusableError(Reason.LENGTHS_DIFFER, f"fluorescence channels {[part.size for part in parts]}")
        columns["fluorescence"] = np.sum(parts, axis=0)
    if channels.mu is not None:
        columns["mu"] = read(channels.mu)
    if channels.it is not None and channels.formula == "transmission":
        columns["it"] = read(channels.it)
    try:
        if channels.time is not None:
            columns["time"] = read(channels.time)
        if channels.iref is not None and channels.it is not None:
            it = columns["it"] if "it" in columns else read(channels.it)
            columns |= {"iref": read(channels.iref), "it": it}
        if channels.reference is not None:
            columns["reference"] = read(channels.reference)
    except UnusableError:
        pass
    return columns


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Return one number per row, (M,); arrays of one count as numbers."""
    _refuse_unread(row.get(key) for row in rows)
    try:
        column = np.array([row[key] for row in rows], dtype=np.float64)
    except KeyError:
        raise UnusableError(Reason.FIELD_MISSING, f"{key} is not in every event") from None
    except (TypeError, ValueError, OverflowError):
        column = np.empty(0)
    if column.size != len(rows):
        raise UnusableError(Reason.SHAPE_DISAGREES, f"{key} is not one number in every event")
    return column.reshape(-1)


def _refuse_unread(values: Iterable[Any]) -> None:
    why = next((value for value in values if isinstance(value, UnreadFile)), None)
    if why is not None:
        raise UnusableError(Reason.FILE_NOT_READABLE, str(why))
