"""``xas-agent calibrate``: the differences between measurement and FEFF, from standards, for a model's card."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ...adapters.formats import FileSpectrum, read_spectra
from ...agent.spectra import AlignmentSettings
from ...models import card as cards
from ...models.card import Card, DomainCard, OffsetCard
from ...models.readable import readable
from ...models.training import Augmentation, Standard, StandardError, StandardFit, calibrate

_NOT_FROM_METALS = ("amplitude", "amplitude_sd", "step_ev", "broadening_ev", "broadening_sd_ev")
"""Keys of the domain that a metal does not determine; they keep the card's values."""


_BOND_RANGE_ANG = (1.0, 4.0)
"""Range of plausible first-shell bond lengths, Å."""


@dataclass(frozen=True)
class Calibration:
    """Offset and domain of a model from standards."""

    card: Card
    """Card with the fitted offset and domain."""
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
        """The fit of each standard, below the names of the columns."""
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
        """Keys of the domain that exceed the augmentation of the model's training, in words."""
        return Augmentation.model_validate(self.card.training["augmentation"]).gaps(self.card.domain)


def calibrate_model(
    model: str, standards: Sequence[str], feff: Path, settings: AlignmentSettings, metal_gap_ev: float | None = None
) -> Calibration:
    """Fit offset and domain of a model to measured standards.

    Parameters
    ----------
    model : str
        Name or folder of the model.
    standards : sequence of str
        Each ``FILE=ROW[,metal][,bond=Å]``: a measured spectrum, the ``id`` of its counterpart in the FEFF rows,
        whether it is the metal, and its known first-shell bond length, Å.
    feff : Path
        npz of FEFF rows; for ``bond`` the csv beside it must contain the bond length of FEFF's structure.
    settings : AlignmentSettings
    metal_gap_ev : float, optional
        Excess of the offset of a metal over that of its oxides, eV, if all standards are metals.

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
    card = cards.read_card(cards.find(model))
    rows = {s.id: s for s in read_spectra(feff)}
    measured = [_standard(text, rows, feff, card) for text in standards]
    fits, offset, domain = calibrate(measured, card.grid.grid(), card.edge_ev, settings, metal_gap_ev)
    if all(standard.metal for standard in measured):
        domain = domain.model_copy(update={key: getattr(card.domain, key) for key in _NOT_FROM_METALS})
    changes: dict[str, OffsetCard | DomainCard] = {"domain": domain}
    if offset is not None:
        changes["feff_minus_experiment"] = offset
    return Calibration(card.model_copy(update=changes), fits)


def write_calibration(calibration: Calibration, model: str) -> Path:
    """Write card and README of the model's folder; return the card's path."""
    folder = cards.find(model)
    cards.write_card(folder, calibration.card)
    (folder / "README.md").write_text(readable(calibration.card), encoding="utf-8")
    return folder / "card.yaml"


def _standard(text: str, rows: dict[str, FileSpectrum], feff: Path, card: Card) -> Standard:
    file, _, about = text.partition("=")
    row, *options = about.split(",")
    if not row:
        raise StandardError(f"{text}: found no FEFF row, expected FILE=ROW, such as NiO.xdi=NiO_Ni000")
    if row not in rows:
        raise StandardError(f"{feff}: no row {row!r}; found {len(rows)} rows, such as {', '.join(list(rows)[:5])}")
    metal, stretch = False, 1.0
    for option in options:
        name, _, value = option.partition("=")
        if option == "metal":
            metal = True
        elif name == "bond":
            known_ang = _length(value, text)
            stretch = _bond_of(row, feff) / known_ang
        else:
            raise StandardError(f"{text}: found {option!r}, expected metal or bond=Å")
    spectra = read_spectra(Path(file))
    if len(spectra) != 1:
        raise StandardError(f"{file}: found {len(spectra)} spectra, expected one")
    spectrum, counterpart = spectra[0], rows[row]
    if spectrum.element not in (None, "", card.absorber):
        raise StandardError(f"{file}: found the element {spectrum.element}, expected {card.absorber} for {card.name}")
    reference = spectrum.mu if metal else spectrum.reference
    name = f"{Path(file).name} against {row}"
    return Standard(name, spectrum.energy, spectrum.mu, reference, counterpart.energy, counterpart.mu, metal, stretch)


def _length(value: str, text: str) -> float:
    try:
        length = float(value)
    except ValueError:
        length = float("nan")
    if not _BOND_RANGE_ANG[0] < length < _BOND_RANGE_ANG[1]:
        raise StandardError(f"{text}: found bond {value!r}, expected a length in Å, such as bond=2.07")
    return length


def _bond_of(row: str, feff: Path) -> float:
    table = feff.with_suffix(".csv")
    if not table.is_file():
        raise StandardError(f"{table}: not found; bond= requires FEFF's bond length, column mean_bond of this table")
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line.get("id") == row and line.get("mean_bond"):
                return float(line["mean_bond"])
    raise StandardError(f"{table}: no mean_bond for {row!r}; add it or omit bond=")
