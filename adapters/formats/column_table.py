"""The columns of a scan, and the spectrum computed from them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.fields import FOIL_ROLES
from ...agent.stream import has_stray_energy, split_sweeps, turn_negative_currents, turns_too_often
from ...agent.types import Array, Formula
from ...wording import counted
from .column_names import (
    SIGNALS,
    AmbiguousColumnError,
    ColumnChoice,
    Columns,
    angle_column,
    by_role,
    choose_columns,
    given_spacing,
    match_absorption,
    may_be_measured,
    split_label,
)
from .doubts import doubt_columns, doubt_energies, doubt_points, doubt_range
from .energy import EnergyAxisError, from_angle, in_ev, looks_like_energy, spacing_in_angstrom
from .spectrum import INTENSITIES, MIN_POINTS, FileSpectrum, SpectrumFileError

EXPECTED = "expected columns energy and mu, or energy, i0 and itrans, named in the header"
HOW_TO_NAME = "name them (--column energy=…, columns={'energy': …})"


class UnknownColumnsError(SpectrumFileError):
    """The columns of energy and absorption in a table cannot be identified."""

    def __init__(self, message: str, table: "ColumnTable") -> None:
        super().__init__(message)
        self.table = table


@dataclass(slots=True)
class ColumnTable:
    """The columns of one scan in a file."""

    path: Path
    columns: Sequence[Array]
    """Columns, (M,) each."""
    labels: Sequence[str] = ()
    """Labels of the columns with their units; empty if the file does not name them."""
    units: Sequence[str] = ()
    """Units of the columns, if the file lists them apart from the labels."""
    d_spacing: str = ""
    """Text of the file, or of the caller, about the d spacing of the monochromator's crystal, Å."""
    known: dict[str, Any] = field(default_factory=dict)
    """Further fields of the spectrum: id, row, element, edge, title, sample, time, notes, complete."""
    no_foil: str = ""
    """Text of the file that states that no reference foil is in place."""
    header: Sequence[str] = ()
    """Lines above the table."""

    def named(self) -> dict[str, tuple[Array, str]]:
        """Return each column with its unit, by its name or, if it has none, by its number from 1."""
        names, units = _names(self)
        columns = zip(names, self.columns, units, strict=True)
        return {name or str(k): (column, unit) for k, (name, column, unit) in enumerate(columns, 1)}


def spectra_in(table: ColumnTable, wanted: Columns | None = None) -> list[FileSpectrum]:
    """Return the spectra of a table's columns, one for each sweep of the energy.

    μ is a column of the table, or otherwise ln(I0/It) or If/I0 (Newville, Rev. Mineral. Geochem. 78, 33 (2014), eqs 2
    and 3), or otherwise a normalised column; the reference is ln(It/Iref). Neighbouring points at one energy are
    averaged, and the points of one sweep are sorted by energy.

    Parameters
    ----------
    table : ColumnTable
    wanted : mapping, optional
        Columns that the caller names, by role.

    Returns
    -------
    list of FileSpectrum

    Raises
    ------
    UnknownColumnsError
        Energy or absorption are missing, or several columns match equally well.
    """
    names, units = _names(table)
    try:
        choice = choose_columns(names, wanted, table.known.get("element"))
        given = given_spacing(wanted)
    except AmbiguousColumnError as error:
        raise UnknownColumnsError(f"{table.path}: found {error}", table) from error
    summary = f"{table.path}: {_summary(table, names, choice)}"
    try:
        energy, place, notes = _energies(
            replace(table, d_spacing=given or table.d_spacing), names, units, choice, bool(given)
        )
    except EnergyAxisError as error:
        raise UnknownColumnsError(f"{summary}: {error}", table) from error
    if given and not any("a d spacing of" in note for note in notes):
        notes += ("the given d_spacing is not used, because no column of angles is read",)
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
    if place is not None and len(names) == 2 and _may_be_absorption(table, names, choice, 1 - place):
        channels["mu"] = table.columns[1 - place]
        notes += (f"column {2 - place} is read as the absorption",)
    formula = _formula(channels)
    if energy is None or formula is None:
        raise UnknownColumnsError(
            f"{summary}, {EXPECTED}, or {HOW_TO_NAME}; xas-agent inspect {table.path} proposes names", table
        )
    notes = (*table.known.get("notes", ()), *notes, *_doubts(table, energy, place, channels))
    if formula == "transmission" and "fluorescence" in channels:
        formula, note = _transmission_or_fluorescence(channels)
        there = ",".join(names[i] or str(i + 1) for i in choice.places["fluorescence"])
        notes += (note.format(f"(--column if={there})"),)
    if formula == "fluorescence":
        notes += tuple(choice.notes)
    if formula == "mu" and (others := _other_absorptions(names, choice)):
        chosen = names[choice.places["mu"][0]]
        notes += (f"{chosen!r} is used; the file also contains {', '.join(others)} (--column mu={others[0]})",)
    known: dict[str, Any] = table.known | {"notes": notes}
    return assemble(table.path, energy, channels, formula, **known)


def assemble(
    path: Path,
    energy: Array,
    channels: Mapping[str, Array],
    formula: Formula,
    *,
    id: str,
    row: int,
    average: bool = True,
    complete: bool = True,
    notes: Sequence[str] = (),
    **known: Any,
) -> list[FileSpectrum]:
    """Return the spectra of columns by role, one for each sweep of the energy, as a stream would give them.

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
    id, row
        Those of the first spectrum. Several spectra have the ids ``id#1``, ``id#2``, ….
    average : bool
        Whether neighbouring points at one energy are averaged.
    complete : bool
        Whether the last spectrum is complete.
    notes : sequence of str
        Notes on all spectra; those on negative currents, padding and sweeps follow them.
    **known
        Further fields of each spectrum.

    Returns
    -------
    list of FileSpectrum
    """
    channels, turned = turn_negative_currents(channels)
    if turned:
        notes = (*notes, f"the negative currents of {', '.join(turned)} are read with the opposite sign")
    filled = len(np.trim_zeros(energy, "b"))
    if 0 < filled < len(energy):
        notes = (*notes, f"{len(energy) - filled} rows of padding at the end, with the energy 0, are left out")
        energy, channels = energy[:filled], {role: values[:filled] for role, values in channels.items()}
    sweeps = _sweeps(energy)
    count = len(sweeps)
    if count > 1:
        notes = (*notes, f"the energy turns {counted(count - 1, 'time')}: read as {count} spectra")
    return [
        _spectrum(
            path,
            energy[part],
            {role: values[part] for role, values in channels.items()},
            formula,
            average=average,
            id=id if count == 1 else f"{id}#{number + 1}",
            row=row + number,
            complete=complete or number + 1 < count,
            notes=notes,
            **known,
        )
        for number, part in enumerate(sweeps)
    ]


def _sweeps(energy: Array) -> list[slice]:
    """Return the sweeps in the order of the file; only one if energies are not finite, stray or turn too often."""
    whole = [slice(0, len(energy))]
    if not np.isfinite(energy).all():
        return whole
    sweeps = split_sweeps(energy)
    short = turns_too_often([part.stop - part.start for part in sweeps], MIN_POINTS)
    return whole if short or not sweeps or has_stray_energy(energy, sweeps) else sweeps


def _spectrum(
    path: Path,
    energy: Array,
    channels: Mapping[str, Array],
    formula: Formula,
    *,
    average: bool,
    notes: Sequence[str],
    **known: Any,
) -> FileSpectrum:
    """Return the spectrum of one sweep."""
    energy, channels, moved = _in_order(energy, channels)
    if moved:
        notes = (*notes, f"{moved} of {len(energy)} points are out of order and are sorted by energy")
    mu = absorption(channels, formula)
    reference = channels.get("reference")
    if "iref" in channels and "it" in channels:
        reference = _log_ratio(channels["it"], channels["iref"])
    intensities = {role: channels[role] for role in INTENSITIES if role in channels}
    merged_energy, mu, reference = _merged(energy, mu, reference) if average else (energy, mu, reference)
    if len(merged_energy) != len(energy):
        intensities = {}
    normalised = True if formula == "normalised" else None if formula == "mu" else False
    return FileSpectrum(
        source=str(path),
        energy=merged_energy,
        mu=mu,
        reference=reference,
        formula=formula,
        channels=intensities,
        normalised=normalised,
        notes=tuple(notes),
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
    """Return the formula of μ: the first available of μ, transmission, fluorescence, normalised μ."""
    if "mu" in channels:
        return "mu"
    if "i0" in channels and "it" in channels:
        return "transmission"
    if "i0" in channels and "fluorescence" in channels:
        return "fluorescence"
    return "normalised" if "normalised" in channels else None


def _doubts(table: ColumnTable, energy: Array, place: int | None, channels: Mapping[str, Array]) -> tuple[str, ...]:
    """Return notes on damaged numbers, as far as the file itself reveals them."""
    return (
        *doubt_points(table.header, len(energy)),
        *doubt_range(table.header, energy),
        *doubt_energies(energy if energy[-1] > energy[0] else energy[::-1]),
        *doubt_columns(table.columns, place, channels),
    )


def _transmission_or_fluorescence(channels: Mapping[str, Array]) -> tuple[Formula, str]:
    """Return the formula of μ if both signals are recorded, and a note that names the command to change it.

    A sample without a usable transmitted beam, such as a thick one, is measured in fluorescence.
    """
    currents, _ = turn_negative_currents(channels)
    dark, points = np.count_nonzero(~np.isfinite(absorption(currents, "transmission"))), len(channels["it"])
    if dark <= points / 10 or not np.isfinite(absorption(currents, "fluorescence")).all():
        return "transmission", "transmission is used; the file also contains fluorescence {}"
    return "fluorescence", f"fluorescence is used {{}}: the transmission has no value in {dark} of {points} points"


def _other_absorptions(names: Sequence[str], choice: ColumnChoice) -> list[str]:
    """Return the names of further absorption columns, such as fluorescence beside transmission."""
    chosen = choice.places.get("mu", [])
    return [name for i, name in enumerate(names) if chosen and i not in chosen and match_absorption(name)]


def _names(table: ColumnTable) -> tuple[list[str], list[str]]:
    """Return names and units of the columns; both are empty strings for columns without a label."""
    count = len(table.columns)
    parts = [split_label(label) for label in table.labels] or [("", "")] * count
    units = list(table.units) or [""] * count
    return [name for name, _ in parts], [
        unit or apart for unit, apart in zip((u for _, u in parts), units, strict=True)
    ]


def _energies(
    table: ColumnTable, names: list[str], units: list[str], choice: ColumnChoice, d_spacing_given: bool
) -> tuple[Array | None, int | None, tuple[str, ...]]:
    """Return the energies, (M,) eV, the index of their column, and notes on guesses.

    Numbers without a unit, in a column whose name is neither that of an angle nor that of an energy, are angles only
    if the caller gives the d spacing.
    """
    if places := choice.places.get("energy"):
        (place,) = places
        other_name = not re.match("[eé]", names[place], re.I)
        angles = place == angle_column(names) or (d_spacing_given and other_name)
        if re.match(r"deg|rad", units[place], re.I) or (angles and _may_be_angles(table, units, place)):
            return _from_angles(table, names, units, place)
        energy, notes = in_ev(table.columns[place], names[place] or str(place + 1), units[place])
        return energy, place, notes
    if "energy" in choice.doubts:
        return None, None, ()
    turned = angle_column(names)
    if turned is not None and (units[turned] or table.d_spacing or _may_be_angles(table, units, turned)):
        return _from_angles(table, names, units, turned)
    used = {place for places in choice.places.values() for place in places}
    free = [i for i, name in enumerate(names) if i not in used and may_be_measured(name)]
    fitting = [i for i in free if _may_be_energies(names[i], table.columns[i])]
    if not fitting or (len(fitting) > 1 and fitting[0] != 0):
        return None, None, ()
    first = fitting[0]
    unit = looks_like_energy(table.columns[first]) or "eV"
    named = f"column {first + 1}" + (f" ({names[first]})" if names[first] else "")
    note = f"{named} is read as energy in {unit}, because its values fit"
    return in_ev(table.columns[first], "", unit)[0], first, (note,)


def _may_be_energies(name: str, values: Array) -> bool:
    """Return whether a column may hold energies: in eV, or in keV (similar to lengths in Å) if its name allows."""
    unit = None if re.search(r"ring|current|machine|volt|press", name, re.I) else looks_like_energy(values)
    return unit == "eV" or (unit == "keV" and re.match(r"[eé]|x?$", name, re.I) is not None)


def _may_be_angles(table: ColumnTable, units: Sequence[str], place: int) -> bool:
    """Return whether a column without a unit may contain Bragg angles in degrees."""
    values = table.columns[place]
    return not units[place] and looks_like_energy(values) != "eV" and bool(((values > 0) & (values < 90)).all())


def _from_angles(
    table: ColumnTable, names: Sequence[str], units: Sequence[str], place: int
) -> tuple[Array, int, tuple[str, ...]]:
    """Return the energies, (M,) eV, of a column of Bragg angles, its index, and a note."""
    name = names[place] or str(place + 1)
    energy = from_angle(table.columns[place], name, units[place] or "degrees", table.d_spacing)
    spacing = spacing_in_angstrom(table.d_spacing)
    unit = "" if units[place] else ", read as degrees,"
    note = f"energies are computed from the angles of {name!r}{unit} and a d spacing of {spacing:g} Å"
    return energy, place, (note,)


def _summary(table: ColumnTable, names: Sequence[str], choice: ColumnChoice) -> str:
    """Return a text on the columns of a table, for error messages."""
    listed = ", ".join(name.lower() or str(i + 1) for i, name in enumerate(names)) if any(names) else "unnamed"
    text = f"found {len(table.columns)} columns ({listed})"
    for role, places in choice.doubts.items():
        if role in ("energy", "i0", *SIGNALS):
            text += f", of which {' and '.join(names[place] for place in places)} may be {role}"
    return text


def _may_be_absorption(table: ColumnTable, names: Sequence[str], choice: ColumnChoice, place: int) -> bool:
    """Return whether the only column beside the energies may be the absorption.

    It has no role, and its name does not denote another quantity.
    """
    known = {place for places in (*choice.places.values(), *choice.doubts.values()) for place in places}
    return place not in known and may_be_measured(names[place]) and bool(np.isfinite(table.columns[place]).any())


def _in_order(energy: Array, channels: Mapping[str, Array]) -> tuple[Array, Mapping[str, Array], int]:
    """Sort the points of one sweep by energy, with the same definition of a sweep as for streams.

    Returns
    -------
    energy : ndarray, (M,)
        Unchanged if it is not finite or has several sweeps.
    channels : mapping of str to ndarray, (M,)
    moved : int
        Number of steps against the direction of the sweep.
    """
    steps = np.diff(energy)
    if not (steps < 0).any() or not np.isfinite(energy).all() or len(split_sweeps(energy)) > 1:
        return energy, channels, 0
    order = np.argsort(energy, kind="stable")
    moved = int(min(np.count_nonzero(steps < 0), np.count_nonzero(steps > 0)))
    return energy[order], {role: values[order] for role, values in channels.items()}, moved


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
