"""Converts a caller's input (arrays, spectra, paths) to spectra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...adapters.files import Batch, expand, read_all
from ...adapters.formats import Columns, FileSpectrum
from ...agent.types import Array, InputError, Reason, Refusal

_HIGHEST_KEV = 45.0
"""Number up to which an energy is more likely in keV than in eV."""
_TYPES = "expected energies and μ, a spectrum or a list of read_spectra, or a path"

Item = FileSpectrum | tuple[FileSpectrum, Refusal]
"""A spectrum, or a stand-in for an unreadable file with the reason."""


def items_of(given: Any, columns: Columns | None = None) -> list[Item]:
    """Return the spectra of a path, a spectrum, or a sequence of these, in the given order.

    Raises
    ------
    InputError
        The input is none of these, or a file cannot be read; if there are several files, the others are read.
    """
    if isinstance(given, str | Path):
        return _of_files(given, columns)
    if isinstance(given, FileSpectrum):
        return [given]
    if isinstance(given, Sequence) and not all(isinstance(one, str | Path | FileSpectrum) for one in given):
        kinds = ", ".join(dict.fromkeys(type(one).__name__ for one in given))
        raise InputError(f"infer: found a sequence of {kinds} without mu, {_TYPES}")
    if isinstance(given, Sequence):
        return [item for one in given for item in items_of(one, columns)]
    raise InputError(f"infer: found {type(given).__name__} without mu, {_TYPES}")


def _of_files(path: str | Path, columns: Columns | None) -> list[Item]:
    files, batch = expand([Path(path)]), Batch()
    found = dict(read_all(files, columns, batch))
    items: list[Item] = []
    for number, file in enumerate(files):
        items += found.get(file, [])
        if (error := batch.refused.get(file)) is not None:
            nothing = FileSpectrum(file.name, str(file), number, np.empty(0), np.empty(0))
            items.append((nothing, Refusal(Reason.FILE_NOT_READABLE, str(error).removeprefix(f"{file}: "))))
    return items


def spectra_of(
    energy: Any, mu: Any, reference: Any = None, sample: str | Sequence[str] | None = None
) -> list[FileSpectrum]:
    """Return arrays as spectra.

    Parameters
    ----------
    energy : ndarray, (M,) or (N, M), or N of different lengths
        Energies, eV.
    mu : ndarray, (M,) or (N, M), or N of different lengths
        Absorption.
    reference : ndarray, (M,) or (N, M), optional
        Absorption of a foil measured at the same time.
    sample : str or sequence of str, optional

    Returns
    -------
    list of FileSpectrum
        N spectra with the ids ``0``, ``1``, …, in the order of ``mu``.

    Raises
    ------
    InputError
        The shapes do not match, the values are not real numbers, or the energies are not in eV; the message states
        what was found, what was expected, and what to do.
    """
    absorption = _rows("mu", mu)
    energies = _shared(_rows("energy", energy), "energy", absorption)
    foils = (
        [None] * len(absorption)
        if reference is None
        else _shared(_rows("reference", reference), "reference", absorption)
    )
    names = [sample] * len(absorption) if sample is None or isinstance(sample, str) else [*sample]
    if len(names) != len(absorption):
        raise InputError(f"sample: found {len(names)} names, expected {len(absorption)}, one per spectrum")
    for e, m in zip(energies[:1], absorption[:1], strict=True):
        _check_unit(e, m)
    return [
        FileSpectrum(str(i), "", i, *_rising(e, m, foil), sample=name)
        for i, (e, m, foil, name) in enumerate(zip(energies, absorption, foils, names, strict=True))
    ]


def _rows(name: str, values: Any) -> list[Array]:
    """Return the rows, (M,) each, of numbers of shape (M,) or (N, M), or of a sequence of N arrays."""
    if isinstance(values, Mapping | str | bytes):
        raise InputError(f"{name}: found {type(values).__name__}, expected an array of numbers")
    try:
        array = np.ma.asarray(values)
    except ValueError:  # arrays of different lengths
        return [row for part in values for row in _one(name, part)]
    if array.dtype.kind not in "iuf":
        if array.dtype.kind == "O" and array.ndim == 1 and array.size and all(np.ndim(part) == 1 for part in values):
            return [row for part in values for row in _one(name, part)]
        raise InputError(f"{name}: found values of type {array.dtype}, expected real numbers")
    if array.ndim not in (1, 2):
        raise InputError(f"{name}: found shape {array.shape}, expected (M,) or (N, M): one row per spectrum")
    return [*np.ma.filled(np.ma.atleast_2d(array.astype(float)), np.nan)]


def _one(name: str, values: Any) -> list[Array]:
    rows = _rows(name, values)
    if np.ndim(values) != 1:
        raise InputError(f"{name}: found an array of {np.ndim(values)} dimensions in a list, expected (M,) each")
    return rows


def _shared(rows: list[Array], name: str, mu: list[Array]) -> list[Array]:
    """Return a row of equal length for each row of μ; a single row serves all."""
    rows = rows * len(mu) if len(rows) == 1 else rows
    if len(rows) == len(mu) and all(len(a) == len(m) for a, m in zip(rows, mu, strict=True)):
        return rows
    found = f"{_shape(rows)} values of {name} and {_shape(mu)} of mu"
    if len({len(m) for m in mu}) == 1 and all(len(row) == len(mu) for row in rows):
        raise InputError(f"found {found}, expected mu as (N, M), one row per spectrum: give mu.T")
    raise InputError(f"found {found}, expected the same number in each spectrum")


def _shape(rows: list[Array]) -> str:
    lengths = {len(row) for row in rows}
    points = str(lengths.pop()) if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"
    return points if len(rows) == 1 else f"{len(rows)} × {points}"


def _check_unit(energy: Array, mu: Array) -> None:
    finite = energy[np.isfinite(energy)]
    if not finite.size or finite.max() > _HIGHEST_KEV or finite.min() <= 0:
        return
    found = f"energy: found {finite.min():.4g} to {finite.max():.4g}, expected eV"
    if mu.size and np.isfinite(mu).all() and mu.min() > _HIGHEST_KEV and (np.diff(mu) > 0).all():
        raise InputError(f"{found}; energy and mu seem exchanged: give infer(energy, mu)")
    raise InputError(f"{found}; if they are keV, give 1000 * energy")


def _rising(energy: Array, mu: Array, reference: Array | None) -> tuple[Array, Array, Array | None]:
    """Return a scan with rising energies; a scan measured downwards is reversed."""
    if len(energy) < 2 or not (np.diff(energy) < 0).all():
        return energy, mu, reference
    return energy[::-1], mu[::-1], None if reference is None else reference[::-1]
