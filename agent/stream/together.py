"""Forms the spectra of many whole-spectrum Events at once, where nothing about them is doubtful.

What is doubtful is left to :func:`~.sweeps.form_spectrum`, which alone knows the reasons and repairs.
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
"""Fewer are not checked for flaws."""


def form_together(
    fields: StreamFields, rows: Sequence[Mapping[str, Any]], grid: Array | None, min_points: int
) -> list[SweepSpectrum | None]:
    """Form the spectra of N Events that have the same energies; equal to those that each gives alone.

    Parameters
    ----------
    fields : with a formula
    rows : data of N Events
    grid : (M,) eV, energies of a stream without energies; None if they are not known
    min_points : smallest number of points of a spectrum

    Returns
    -------
    N spectra, which share their energies; None for those that need a closer look
    """
    nothing: list[SweepSpectrum | None] = [None] * len(rows)
    columns = _columns(fields, rows)
    if columns is None:
        return nothing
    energy = _axis(fields, columns, grid)
    if energy is None or energy.size < max(_MIN_POINTS, min_points):
        return nothing
    if any(column.shape[1] != energy.size for column in columns.values()):
        return nothing
    with np.errstate(all="ignore"):
        doubtful = _doubtful(columns)
        mu, reference = _absorption(columns, fields), _reference(columns)
        doubtful |= ~np.isfinite(mu).all(axis=1)
        if reference is not None:
            doubtful |= ~np.isfinite(reference).all(axis=1)
    rising = bool(energy[-1] >= energy[0])
    if not rising:
        energy, mu = energy[::-1].copy(), mu[:, ::-1].copy()
        reference = None if reference is None else reference[:, ::-1].copy()
    return [
        None
        if doubts
        else SweepSpectrum(
            energy, mu[i], None if reference is None else reference[i], "rising" if rising else "falling"
        )
        for i, doubts in enumerate(doubtful.tolist())
    ]


def _columns(fields: StreamFields, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array] | None:
    """Return the columns, (N, M) each, by role, with ``energy`` as recorded; None if one is no such column."""
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
    """Return a field of N Events, (N, M); None if it is not a row of as many real numbers in each."""
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
    except (ValueError, OverflowError):  # of several lengths
        return None
    if column is None or column.ndim != 2 or column.shape[1] > MAX_SPECTRUM_POINTS:
        return None
    return column.astype(np.float64, copy=False)


def _axis(fields: StreamFields, columns: dict[str, Array], grid: Array | None) -> Array | None:
    """Take the energies out of the columns; return them, (M,) eV, if they are one sweep that all Events share."""
    recorded = columns.pop("energy", None)
    if recorded is not None and not (recorded == recorded[0]).all():
        return None
    energy = grid if recorded is None else fields.in_ev(recorded[0])
    if energy is None or energy.size < _MIN_POINTS or not np.isfinite(energy).all():
        return None
    steps = np.diff(energy)
    one_sweep = (steps > 0).all() or (steps < 0).all()
    plausible = energy.min() > 0 and energy.max() <= MAX_ENERGY_EV
    return energy.copy() if one_sweep and plausible else None


def _doubtful(columns: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return (N,) whether an Event may be padded, or has a flaw, negative currents or no numbers."""
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
    return columns["mu"]


def _reference(columns: Mapping[str, Array]) -> Array | None:
    if "iref" in columns:
        return np.log(columns["it"]) - np.log(columns["iref"])
    return columns.get("reference")
