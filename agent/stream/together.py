"""Forms the spectra of many whole-spectrum Events at once, if nothing about them is doubtful.

Doubtful Events are left to :func:`~.sweeps.form_spectrum`, which alone knows the reasons and repairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..fields import StreamFields
from ..types import Array, as_numbers
from .columns import MAX_SPECTRUM_POINTS
from .detectors import DETECTOR_ROLES, is_suspicious
from .sweeps import MAX_ENERGY_EV, SweepSpectrum

_MIN_POINTS = 8
"""Smallest number of points that is checked for flaws."""


def form_together(
    fields: StreamFields, rows: Sequence[Mapping[str, Any]], grid: Array | None, min_points: int
) -> list[SweepSpectrum | None]:
    """Form the spectra of N Events; each is equal to the spectrum that its Event gives alone.

    Parameters
    ----------
    fields : fields with a formula
    rows : data of N Events
    grid : (M,) energies, eV, of a stream without energies; None if they are unknown
    min_points : smallest number of points of a spectrum

    Returns
    -------
    N spectra, which share their energies if these are equal; None for Events that need a closer look
    """
    nothing: list[SweepSpectrum | None] = [None] * len(rows)
    columns = _columns(fields, rows)
    if columns is None:
        return nothing
    energy = _energies(fields, columns, grid)
    if energy is None or energy.shape[1] < max(_MIN_POINTS, min_points):
        return nothing
    if any(column.shape[1] != energy.shape[1] for column in columns.values()):
        return nothing
    with np.errstate(all="ignore"):
        doubtful = _doubtful(columns) | _is_no_sweep(energy)
        spectra = [_absorption(columns, fields), *_references(columns)]
    for spectrum in spectra:
        doubtful |= ~np.isfinite(spectrum).all(axis=1)
    falling = energy[:, -1] < energy[:, 0]
    for curves in (energy, *spectra):
        backwards = np.broadcast_to(falling, len(curves))
        curves[backwards] = curves[backwards, ::-1]
    energies = [*energy] * (len(rows) // len(energy))  # one array for all Events, or one for each
    directions = [
        "falling" if is_falling else "rising" for is_falling in np.broadcast_to(falling, len(rows)).tolist()
    ]
    mu, reference = spectra[0], spectra[1] if len(spectra) > 1 else nothing
    return [
        None if doubts else SweepSpectrum(energies[i], mu[i], reference[i], directions[i])  # type: ignore[arg-type]
        for i, doubts in enumerate(doubtful.tolist())
    ]


def _columns(fields: StreamFields, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array] | None:
    """Return the columns, (N, M) each, by role, with ``energy`` as recorded; None if a column is missing."""
    keys = {"energy": fields.energy, "i0": fields.i0, "mu": fields.mu, "reference": fields.reference}
    if fields.it is not None and (fields.formula == "transmission" or fields.iref is not None):
        keys |= {"it": fields.it, "iref": fields.iref}
    found: dict[str, Array] = {}
    for role, key in keys.items():
        if key is not None:
            column = _stacked(rows, key)
            if column is None:
                return None
            found[role] = column
    parts = [_stacked(rows, key) for key in fields.fluorescence]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts) or len({part.shape for part in whole}) > 1:
        return None
    if whole:
        found["fluorescence"] = np.sum(whole, axis=0)
    return found


def _stacked(rows: Sequence[Mapping[str, Any]], key: str) -> Array | None:
    """Return a field of N Events, (N, M); None unless it holds equally many real numbers in each."""
    values = [row.get(key) for row in rows]
    first = values[0]
    try:
        if isinstance(first, np.ndarray):
            if any(type(v) is not np.ndarray or v.shape != first.shape or v.dtype != first.dtype for v in values):
                return None
            if first.dtype.kind not in "iuf" or first.dtype == np.float16:
                return None
            column = np.stack(values)  # type: ignore[arg-type]
        else:
            column = as_numbers(values) if all(isinstance(value, list) for value in values) else None
    except (ValueError, OverflowError):  # several lengths
        return None
    if column is None or column.ndim != 2 or column.shape[1] > MAX_SPECTRUM_POINTS:
        return None
    return column.astype(np.float64, copy=False)


def _energies(fields: StreamFields, columns: dict[str, Array], grid: Array | None) -> Array | None:
    """Remove the energies from the columns and return them in eV: (1, M) if all Events share them, else (N, M).

    None if they are unknown or must be examined one by one.
    """
    recorded = columns.pop("energy", None)
    if recorded is None:
        return None if grid is None else np.array(grid, ndmin=2)
    if (recorded == recorded[0]).all():
        return np.array(fields.in_ev(recorded[0]), ndmin=2)
    if fields.axis is not None or not fields.unit_known:
        return None
    return recorded * fields.energy_scale


def _is_no_sweep(energy: Array) -> NDArray[np.bool_]:
    """Return (1,) or (N,) whether energies do not form a single sweep without repetitions."""
    steps = np.diff(energy)
    one_sweep = (steps > 0).all(axis=1) | (steps < 0).all(axis=1)
    return ~(one_sweep & (energy.min(axis=1) > 0) & (energy.max(axis=1) <= MAX_ENERGY_EV))


def _doubtful(columns: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return (N,) whether an Event may be padded or flawed, or has negative currents or missing numbers."""
    last = np.stack([column[:, -1] for column in columns.values()])
    doubtful = (last == 0).all(axis=0)  # padding
    if "mu" in columns:
        doubtful |= columns["mu"][:, -1] == 0
    for role, column in columns.items():
        doubtful |= ~np.isfinite(column).all(axis=1)
        if role in DETECTOR_ROLES:
            doubtful |= is_suspicious(column, role)
    return doubtful


def _absorption(columns: Mapping[str, Array], fields: StreamFields) -> Array:
    if fields.formula == "transmission":
        return np.log(columns["i0"]) - np.log(columns["it"])
    if fields.formula == "fluorescence":
        return columns["fluorescence"] / columns["i0"]
    return columns["mu"].copy()


def _references(columns: Mapping[str, Array]) -> list[Array]:
    """Return the absorption of the foil, (N, M), in a list that is empty without a foil."""
    if "iref" in columns:
        return [np.log(columns["it"]) - np.log(columns["iref"])]
    return [columns["reference"].copy()] if "reference" in columns else []
