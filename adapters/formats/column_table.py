"""From the columns of a scan to its spectrum."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.types import Array, Formula
from .column_names import SIGNALS, AmbiguousColumnError, ColumnChoice, Columns, angle, choose, may_be_measured, plain
from .energy import EnergyAxisError, from_angle, in_ev, looks_like_energy
from .spectrum import FileSpectrum, SpectrumFileError

EXPECTED = "expected columns energy and mu, or energy, i0 and itrans, named in the header"
HOW = "name them with columns={'energy': …, 'i0': …, 'it': …} (--column energy=…)"


@dataclass(slots=True)
class ColumnTable:
    """A scan as its file has it."""

    path: Path
    columns: Sequence[Array]
    """Each (M,)."""
    labels: Sequence[str] = ()
    """Of the columns, with their units; empty where the file names none."""
    units: Sequence[str] = ()
    """Of the columns, where the file has them apart from the labels."""
    d_spacing: str = ""
    """Of the monochromator's crystal, Å, as the file has it."""
    known: dict[str, Any] = field(default_factory=dict)
    """What else the spectrum is told: id, row, element, edge, title, sample, time, notes, complete."""


def spectrum_of(table: ColumnTable, wanted: Columns | None = None) -> FileSpectrum:
    """The spectrum of a table's columns.

    μ is taken where it stands, else it is ln(i0/it) or if/i0 (Newville, Rev. Mineral. Geochem. 78, 33 (2014), eqs 2
    and 3), else a normalised one is taken; the reference is ln(it/ir). Neighbouring points at one energy are
    averaged, falling energies turned.

    Raises:
        SpectrumFileError: energy or absorption are not there, or may be any of several columns.
    """
    names, units = _names(table)
    try:
        choice = choose(names, wanted, table.known.get("element"))
    except AmbiguousColumnError as error:
        raise SpectrumFileError(f"{table.path}: found {error}") from error
    refusal = f"{table.path}: {_found(table, names, choice)}"
    try:
        energy, place, notes = _energies(table, names, units, choice)
    except EnergyAxisError as error:
        raise SpectrumFileError(f"{refusal}: {error}") from error
    channels = {
        role: np.sum([table.columns[place] for place in places], axis=0)
        if len(places) > 1
        else table.columns[places[0]]
        for role, places in choice.places.items()
        if role != "energy"
    }
    if place is not None and not choice.places and len(names) == 2 and may_be_measured(names[1 - place]):
        channels["mu"] = table.columns[1 - place]
        notes += (f"column {2 - place} taken as the absorption",)
    formula = _formula(channels)
    if energy is None or formula is None:
        raise SpectrumFileError(f"{refusal}, {EXPECTED}, or {HOW}")
    notes = (*table.known.get("notes", ()), *notes)
    if formula == "fluorescence":
        notes += tuple(choice.notes)
    if formula == "transmission" and "if" in channels:
        notes += ("taken in transmission; there is fluorescence, too",)
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
    """The spectrum of columns by role, each (M,), the energies in eV.

    Neighbouring points at one energy are averaged if ``average``. ``known`` are further fields of the spectrum;
    ``id`` and ``row`` must be among them.
    """
    mu = absorption(channels, formula)
    reference = channels.get("reference")
    if "ir" in channels and "it" in channels:
        reference = _log_ratio(channels["it"], channels["ir"])
    intensities = {role: channels[role] for role in ("i0", "it", "if", "ir") if role in channels}
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
    """μ (M,), dimensionless; NaN where an intensity is not positive."""
    if formula == "mu":
        return channels["mu"]
    if formula == "normalised":
        return channels["norm"]
    if formula == "transmission":
        return _log_ratio(channels["i0"], channels["it"])
    lit = channels["i0"] > 0
    return np.where(lit, channels["if"] / np.where(lit, channels["i0"], 1), np.nan)


def _formula(channels: Mapping[str, Array]) -> Formula | None:
    """How μ is made of the first kind of column that the file has."""
    if "mu" in channels:
        return "mu"
    if "i0" in channels and "it" in channels:
        return "transmission"
    if "i0" in channels and "if" in channels:
        return "fluorescence"
    return "normalised" if "norm" in channels else None


def _names(table: ColumnTable) -> tuple[list[str], list[str]]:
    """Names and units of the columns; the names are empty where there is none of known meaning."""
    count = len(table.columns)
    parts = [plain(label) for label in table.labels] or [("", "")] * count
    units = list(table.units) or [""] * count
    return [name for name, _ in parts], [
        unit or apart for unit, apart in zip((u for _, u in parts), units, strict=True)
    ]


def _energies(
    table: ColumnTable, names: list[str], units: list[str], choice: ColumnChoice
) -> tuple[Array | None, int | None, tuple[str, ...]]:
    """The energies, (M,) eV, the place of their column, and what was guessed of them."""
    if places := choice.places.get("energy"):
        (place,) = places
        energy, notes = in_ev(table.columns[place], names[place] or str(place + 1), units[place])
        return energy, place, notes
    if "energy" in choice.doubts:
        return None, None, ()
    turned = angle(names)
    if turned is not None and (units[turned] or table.d_spacing):
        values = from_angle(table.columns[turned], names[turned], units[turned], table.d_spacing)
        made = f"energies from the angles of {names[turned]!r} and a d spacing of {table.d_spacing} Å"
        return values, turned, (made,)
    used = {place for places in choice.places.values() for place in places}
    free = [i for i, name in enumerate(names) if i not in used and may_be_measured(name)]
    fitting = [i for i in free if looks_like_energy(table.columns[i])]
    if not fitting or (len(fitting) > 1 and fitting[0] != 0):
        return None, None, ()
    first = fitting[0]
    unit = looks_like_energy(table.columns[first]) or "eV"
    named = f"column {first + 1}" + (f" ({names[first]})" if names[first] else "")
    return in_ev(table.columns[first], "", unit)[0], first, (f"{named} taken as energy in {unit}, by its values",)


def _found(table: ColumnTable, names: Sequence[str], choice: ColumnChoice) -> str:
    """What is there, for a message."""
    listed = ", ".join(name.lower() or str(i + 1) for i, name in enumerate(names)) if any(names) else "unnamed"
    found = f"found {len(table.columns)} columns ({listed})"
    for role, places in choice.doubts.items():
        if role in ("energy", "i0", *SIGNALS):
            found += f", of which {' and '.join(names[place] for place in places)} may be {role}"
    return found


def _merged(energy: Array, mu: Array, reference: Array | None) -> tuple[Array, Array, Array | None]:
    """Average neighbouring points that stand at one energy."""
    first = np.flatnonzero(np.concatenate(([True], energy[1:] != energy[:-1])))
    if len(first) == len(energy):
        return energy, mu, reference
    count = np.diff(first, append=len(energy))

    def mean(column: Array) -> Array:
        return np.add.reduceat(column, first) / count

    return energy[first], mean(mu), None if reference is None else mean(reference)


def _log_ratio(before: Array, after: Array) -> Array:
    """``ln(before/after)``, NaN where either intensity is not positive."""
    positive = (before > 0) & (after > 0)
    return np.where(positive, np.log(np.where(positive, before, 1) / np.where(positive, after, 1)), np.nan)
