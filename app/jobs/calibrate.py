"""``xas-agent calibrate``: determines the differences between measurement and FEFF from standards."""

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ...adapters.formats import FileSpectrum, read_spectra
from ...agent.spectra import AlignmentSettings
from ...models import card as cards
from ...models.card import Card, DomainCard, OffsetCard
from ...models.readable import write_card_and_readme
from ...models.training import (
    Augmentation,
    Standard,
    StandardError,
    StandardFit,
    TrainingConfig,
    calibrate,
    mean_of_sites,
)
from ..config import ConfigError, read_training

_NOT_FROM_METALS = ("amplitude", "amplitude_sd", "step_ev", "broadening_ev", "broadening_sd_ev")
"""Keys of the domain that a metal does not determine; they keep the values of the card."""
_NOT_FITTED = ("metal_gap_ev", "misfit_sd", "series_slope")
"""Keys of the domain that no standard determines."""


_BOND_RANGE_ANG = (1.0, 4.0)
"""Range of plausible first-shell bond lengths, Å."""

_SHIFT_RANGE_EV = (-15.0, 15.0)
"""Largest plausible error of a monochromator, eV."""

_MULTIPLICITY_RANGE = (0.0, 1000.0)
"""Range of plausible multiplicities of the sites of a unit cell."""


@dataclass(frozen=True)
class Calibration:
    """Offset and domain of a model, fitted to standards."""

    card: Card | TrainingConfig
    """Card, or training config of a future model, with the fitted offset and domain."""
    fits: list[StandardFit]

    def __str__(self) -> str:
        lines: list[str] = []
        metals = [f.offset_ev for f in self.fits if f.standard.metal]
        others = [f.offset_ev for f in self.fits if not f.standard.metal]
        if metals and others:
            gap_ev = np.mean(metals) - np.mean(others)
            lines.append(f"offsets of metals exceed those of the others by {gap_ev:.1f} eV (--metal-gap)")
        return "\n".join([*lines, "", yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True, width=110)])

    @property
    def table(self) -> list[list[str]]:
        """The fit of each standard, below a row with the names of the columns."""
        rows = [["standard", "FEFF - exp. / eV", "scale", "amplitude", "broad. / eV", "misfit"]]
        for f in self.fits:
            values = (f.offset_ev, f.scale, f.amplitude, f.broadening_ev)
            cells = [f"{v:.{n}f} ± {s:.{n}f}" for v, s, n in zip(values, f.sd, (2, 3, 2, 1), strict=True)]
            rows.append([f.standard.name + " (metal)" * f.standard.metal, *cells, f"{f.misfit:.3f}"])
        return rows

    @property
    def settings(self) -> dict[str, dict[str, float | str]]:
        """Offset and domain as keys of the card and of a training config."""
        offset, domain = self.card.feff_minus_experiment, self.card.domain
        return {"feff_minus_experiment": offset.model_dump(), "domain": domain.model_dump()}

    @property
    def uncovered(self) -> list[str]:
        """Keys of the domain that exceed the augmentation in the model's training, in words."""
        if isinstance(self.card, TrainingConfig):
            return self.card.augmentation.gaps(self.card.domain)
        return Augmentation.model_validate(self.card.training["augmentation"]).gaps(self.card.domain)


@dataclass(frozen=True)
class _FeffRow:
    spectrum: FileSpectrum
    file: Path


def calibrate_model(
    model: str,
    standards: Sequence[str],
    feff: Sequence[Path],
    settings: AlignmentSettings,
    metal_gap_ev: float | None = None,
    scale: float | None = None,
) -> Calibration:
    """Fit offset and domain of a model to measured standards.

    Parameters
    ----------
    model : str
        Name or folder of the model, or the file of a training config.
    standards : sequence of str
        Each ``FILE=ROW[+ROW…][,metal][,bond=Å][,shift=eV][,reference=COLUMN]``: a measured spectrum; the ``id`` of
        its counterpart in the FEFF rows; whether it is the metal; its known first-shell bond length, Å; the energy
        to add to its energies, eV; and the column of its foil, if the file does not state it. A compound with
        several sites has a row for each, with its multiplicity: ``2*ROW``.
    feff : sequence of Path
        npz files of FEFF rows; for ``bond`` the csv beside each must contain the bond length of FEFF's structure.
        If several files contain a row, the first one counts.
    settings : AlignmentSettings
    metal_gap_ev : float, optional
        Offset of a metal minus that of its oxides, eV, if all standards are metals.
    scale : float, optional
        Known energy scale; None to fit it.

    Returns
    -------
    Calibration

    Raises
    ------
    StandardError
        A standard is malformed, has no counterpart, has another element, or cannot be aligned.
    SpectrumFileError
        A file cannot be read.
    """
    card = read_training(model) if Path(model).is_file() else cards.read_card(cards.find(model))
    rows = {s.id: _FeffRow(s, path) for path in reversed(feff) for s in read_spectra(path)}
    measured = [_standard(text, rows, card) for text in standards]
    fits, offset, domain = calibrate(measured, card.grid.grid(), card.edge_ev, settings, metal_gap_ev, scale)
    kept = {key: getattr(card.domain, key) for key in _NOT_FITTED}
    domain = domain.model_copy(update=kept)
    if all(standard.metal for standard in measured):
        domain = domain.model_copy(update={key: getattr(card.domain, key) for key in _NOT_FROM_METALS})
    changes: dict[str, OffsetCard | DomainCard] = {"domain": domain}
    if offset is not None:
        changes["feff_minus_experiment"] = offset
    return Calibration(card.model_copy(update=changes), fits)


def folder_to_write(model: str) -> Path:
    """Return the model's folder.

    Raises
    ------
    ConfigError
        ``model`` is a training config; rewriting it would lose its comments.
    """
    if Path(model).is_file():
        raise ConfigError(f"{model}: a training config is not written; without --write its keys are printed")
    return cards.find(model)


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write card and README of a model's folder; omit the standards, whose answers change. Return the card's path."""
    assert isinstance(calibration.card, Card)
    write_card_and_readme(folder, calibration.card.model_copy(update={"standards": ()}))
    return folder / "card.yaml"


def _standard(text: str, rows: dict[str, _FeffRow], card: Card | TrainingConfig) -> Standard:
    file, _, about = text.partition("=")
    counterpart, *options = about.split(",")
    sites = _sites(counterpart, text, rows)
    metal, stretch, shift_ev, columns = False, 1.0, 0.0, None
    for option in options:
        name, _, value = option.partition("=")
        if option == "metal":
            metal = True
        elif name == "bond":
            known_ang = _number(value, text, "bond", _BOND_RANGE_ANG, "bond=2.07 (Å)")
            bonds = [_bond_of(row.spectrum.id, row.file) for _, row in sites]
            stretch = float(np.average(bonds, weights=[weight for weight, _ in sites])) / known_ang
        elif name == "shift":
            shift_ev = _number(value, text, "shift", _SHIFT_RANGE_EV, "shift=1.25 (eV)")
        elif name == "reference" and value:
            columns = {"iref": value}
        else:
            raise StandardError(f"{text}: found {option!r}, expected metal, bond=Å, shift=eV or reference=COLUMN")
    spectra = read_spectra(Path(file), columns=columns)
    if len(spectra) != 1:
        raise StandardError(f"{file}: found {len(spectra)} spectra, expected one")
    spectrum = spectra[0]
    if spectrum.element not in (None, "", card.absorber):
        raise StandardError(f"{file}: found the element {spectrum.element}, expected {card.absorber} for {card.name}")
    reference = spectrum.mu if metal else spectrum.reference
    if shift_ev and reference is not None:
        raise StandardError(f"{text}: shift has no effect, since the foil calibrates the energies; leave it out")
    energy, mu = mean_of_sites([(weight, row.spectrum.energy, row.spectrum.mu) for weight, row in sites])
    name = f"{Path(file).name} against {counterpart}"
    return Standard(name, spectrum.energy + shift_ev, spectrum.mu, reference, energy, mu, metal, stretch)


def _sites(counterpart: str, text: str, rows: dict[str, _FeffRow]) -> list[tuple[float, _FeffRow]]:
    """Return the weight and the FEFF row of each site in ``2*ROW+ROW``."""
    sites: list[tuple[float, _FeffRow]] = []
    for site in counterpart.split("+"):
        weight, star, row = site.rpartition("*")
        if not row:
            raise StandardError(f"{text}: found no FEFF row, expected FILE=ROW, such as NiO.xdi=NiO_Ni000")
        if row not in rows:
            alike = difflib.get_close_matches(row, rows, 5, 0.5) or list(rows)[:5]
            found = f"found {len(rows)} rows, such as {', '.join(alike)}"
            raise StandardError(f"{text}: no row {row!r} among the FEFF rows; {found}")
        number = _number(weight, text, "the multiplicity", _MULTIPLICITY_RANGE, "2*ROW") if star else 1.0
        sites.append((number, rows[row]))
    return sites


def _number(value: str, text: str, name: str, bounds: tuple[float, float], example: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    low, high = bounds
    if not low < number < high:
        raise StandardError(f"{text}: found {name} {value!r}, expected {low:g} to {high:g}, such as {example}")
    return number


def _bond_of(row: str, feff: Path) -> float:
    table = feff.with_suffix(".csv")
    if not table.is_file():
        raise StandardError(f"{table}: not found; bond= requires FEFF's bond length, column mean_bond of this table")
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line.get("id") == row and line.get("mean_bond"):
                return float(line["mean_bond"])
    raise StandardError(f"{table}: no mean_bond for {row!r}; add it or omit bond=")
