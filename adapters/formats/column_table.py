"""The columns of a scan, and the spectrum that is computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import FOIL_ROLES
from ...agent.types import Array, Formula
from .column_names import (
    SIGNALS,
    AmbiguousColumnError,
    ColumnChoice,
    Columns,
    angle_column,
    by_role,
    choose_columns,
    may_be_measured,
    split_label,
)
from .energy import EnergyAxisError, from_angle, in_ev, looks_like_energy
from .spectrum import INTENSITIES, FileSpectrum, SpectrumFileError

EXPECTED = "expected columns energy and mu, or energy, i0 and itrans, named in the header"
HOW_TO_NAME = "name them with columns={'energy': …, 'i0': …, 'it': …} (--column energy=…)"


@dataclass(slots=True)
class ColumnTable:
    """The columns of one scan in a file."""

    path: Path
    columns: Sequence[Array]
    """Each (M,)."""
    labels: Sequence[str] = ()
    """Labels of the columns with their units; empty if the file does not name them."""
    units: Sequence[str] = ()
    """Units of the columns, if the file lists them apart from the labels."""
    d_spacing: str = ""
    """Text of the file about the d spacing of the monochromator's crystal, Å."""
    known: dict[str, Any] = field(default_factory=dict)
    """Further fields of the spectrum: id, row, element, edge, title, sample, time, notes, complete."""
    no_foil: str = ""
    """Text of the file that states that no reference foil is in place."""


def spectrum_of(table: ColumnTable, wanted: Columns | None = None) -> FileSpectrum:
    """Return the spectrum of a table's columns.

    μ is a column of the table, or else ln(I0/It) or If/I0 (Newville, Rev. Mineral. Geochem. 78, 33 (2014), eqs 2
    and 3), or else a normalised column; the reference is ln(It/Iref). Neighbouring points at one energy are averaged,
    and falling energies are reversed.

    Parameters
    ----------
    table : ColumnTable
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    FileSpectrum

    Raises
    ------
    SpectrumFileError
        Energy or absorption are missing, or several columns match equally well.
    """
    names, units = _names(table)
    try:
        choice = choose_columns(names, wanted, table.known.get("element"))
    except AmbiguousColumnError as error:
        raise SpectrumFileError(f"{table.path}: found {error}") from error
    summary = f"{table.path}: {_summary(table, names, choice)}"
    try:
        energy, place, notes = _energies(table, names, units, choice)
    except EnergyAxisError as error:
        raise SpectrumFileError(f"{summary}: {error}") from error
    if table.no_foil:
        for role in choice.places.keys() & set(FOIL_ROLES) - by_role(wanted).keys():
            del choice.places[role]
            notes += (f"the column {role} is not read as a foil: the file states {table.no_foil!r}",)
    channels = {
        role: np.sum([table.columns[place] for place in places], axis=0)
        if len(places) > 1
        else table.columns[places[0]]
        for role, places in choice.places.items()
        if role != "energy"
    }
    if place is not None and not choice.places and len(names) == 2 and may_be_measured(names[1 - place]):
        channels["mu"] = table.columns[1 - place]
        notes += (f"column {2 - place} is read as the absorption",)
    formula = _formula(channels)
    if energy is None or formula is None:
        raise SpectrumFileError(f"{summary}, {EXPECTED}, or {HOW_TO_NAME}")
    notes = (*table.known.get("notes", ()), *notes)
    if formula == "fluorescence":
        notes += tuple(choice.notes)
    if formula == "transmission" and "fluorescence" in channels:
        notes += ("transmission is used; the file also contains fluorescence",)
    known: dict[str, Any] = table.known | {"notes": notes}
    return assemble(table.path, energy, channels, formula, **known)


def assemble(
    path: Path,
    energy: Array,
    channels: Mapping[str, Array],
    formula: Formula,
    *,
    average: bool = True,
    **known: Any,
) -> FileSpectrum:
    """Return the spectrum of columns by role.

    Parameters
    ----------
    path : Path
        The file.
    energy : ndarray, (M,)
        Energies, eV.
    channels : mapping of str to ndarray, (M,)
        Intensities or absorption by role.
    formula : str
        How μ is computed.
    average : bool
        Whether neighbouring points at one energy are averaged.
    **known
        Further fields of the spectrum; ``id`` and ``row`` are required.

    Returns
    -------
    FileSpectrum
    """
    mu = absorption(channels, formula)
    reference = channels.get("reference")
    if "iref" in channels and "it" in channels:
        reference = _log_ratio(channels["it"], channels["iref"])
    intensities = {role: channels[role] for role in INTENSITIES if role in channels}
    merged_energy, mu, reference = _merged(energy, mu, reference) if average else (energy, mu, reference)
    if len(merged_energy) != len(energy):
        intensities = {}
    if np.all(merged_energy[1:] < merged_energy[:-1]):
        merged_energy, mu = merged_energy[::-1], mu[::-1]
        reference = None if reference is None else reference[::-1]
        intensities = {role: values[::-1] for role, values in intensities.items()}
    normalised = True if formula == "normalised" else None if formula == "mu" else False
    return FileSpectrum(
        source=str(path),
        energy=merged_energy,
        mu=mu,
        reference=reference,
        formula=formula,
        channels=intensities,
        normalised=normalised,
        **known,
    )


def absorption(channels: Mapping[str, Array], formula: Formula) -> Array:
    """Return μ, (M,), dimensionless; NaN where an intensity is not positive."""
    if formula == "mu":
        return channels["mu"]
    if formula == "normalised":
        return channels["normalised"]
    if formula == "transmission":
        return _log_ratio(channels["i0"], channels["it"])
    lit = channels["i0"] > 0
    return np.where(lit, channels["fluorescence"] / np.where(lit, channels["i0"], 1), np.nan)


def _formula(channels: Mapping[str, Array]) -> Formula | None:
    """Return how μ is computed: from the first available of μ, transmission, fluorescence, normalised μ."""
    if "mu" in channels:
        return "mu"
    if "i0" in channels and "it" in channels:
        return "transmission"
    if "i0" in channels and "fluorescence" in channels:
        return "fluorescence"
    return "normalised" if "normalised" in channels else None


def _names(table: ColumnTable) -> tuple[list[str], list[str]]:
    """Return names and units of the columns; both are empty strings for columns without a label."""
    count = len(table.columns)
    parts = [split_label(label) for label in table.labels] or [("", "")] * count
    units = list(table.units) or [""] * count
    return [name for name, _ in parts], [
        unit or apart for unit, apart in zip((u for _, u in parts), units, strict=True)
    ]


def _energies(
    table: ColumnTable, names: list[str], units: list[str], choice: ColumnChoice
) -> tuple[Array | None, int | None, tuple[str, ...]]:
    """Return the energies, (M,) eV, the index of their column, and notes on guesses."""
    if places := choice.places.get("energy"):
        (place,) = places
        energy, notes = in_ev(table.columns[place], names[place] or str(place + 1), units[place])
        return energy, place, notes
    if "energy" in choice.doubts:
        return None, None, ()
    turned = angle_column(names)
    if turned is not None and (units[turned] or table.d_spacing):
        values = from_angle(table.columns[turned], names[turned], units[turned], table.d_spacing)
        d_spacing = table.d_spacing.split()[0]
        note = f"energies are computed from the angles of {names[turned]!r} and a d spacing of {d_spacing} Å"
        return values, turned, (note,)
    used = {place for places in choice.places.values() for place in places}
    free = [i for i, name in enumerate(names) if i not in used and may_be_measured(name)]
    fitting = [i for i in free if looks_like_energy(table.columns[i])]
    if not fitting or (len(fitting) > 1 and fitting[0] != 0):
        return None, None, ()
    first = fitting[0]
    unit = looks_like_energy(table.columns[first]) or "eV"
    named = f"column {first + 1}" + (f" ({names[first]})" if names[first] else "")
    note = f"{named} is read as energy in {unit}, because its values fit"
    return in_ev(table.columns[first], "", unit)[0], first, (note,)


def _summary(table: ColumnTable, names: Sequence[str], choice: ColumnChoice) -> str:
    """Return a text on the columns of a table, for error messages."""
    listed = ", ".join(name.lower() or str(i + 1) for i, name in enumerate(names)) if any(names) else "unnamed"
    text = f"found {len(table.columns)} columns ({listed})"
    for role, places in choice.doubts.items():
        if role in ("energy", "i0", *SIGNALS):
            text += f", of which {' and '.join(names[place] for place in places)} may be {role}"
    return text


def _merged(energy: Array, mu: Array, reference: Array | None) -> tuple[Array, Array, Array | None]:
    """Average neighbouring points that have the same energy."""
    first = np.flatnonzero(np.concatenate(([True], energy[1:] != energy[:-1])))
    if len(first) == len(energy):
        return energy, mu, reference
    count = np.diff(first, append=len(energy))

    def mean(column: Array) -> Array:
        return np.add.reduceat(column, first) / count

    return energy[first], mean(mu), None if reference is None else mean(reference)


def _log_ratio(before: Array, after: Array) -> Array:
    """Return ``ln(before/after)``; NaN where either intensity is not positive."""
    positive = (before > 0) & (after > 0)
    return np.where(positive, np.log(np.where(positive, before, 1) / np.where(positive, after, 1)), np.nan)
