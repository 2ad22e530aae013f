"""``xas-agent calibrate``: fits the differences between measurement and FEFF to standards."""

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

_KEYS_WITHOUT_METALS = ("amplitude", "amplitude_sd", "step_ev", "broadening_ev", "broadening_sd_ev")


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration."""

    card: Card
    """Card of the model with the fitted offset and domain."""
    fits: list[StandardFit]

    def __str__(self) -> str:
        names = [f.standard.name + " (metal)" * f.standard.metal for f in self.fits]
        wide = max(map(len, names))
        columns = f"{'FEFF - exp. / eV':>17} {'scale':>15} {'amplitude':>12} {'broad. / eV':>12}  misfit"
        lines = [f"{'standard':{wide}} {columns}"]
        for f, name in zip(self.fits, names, strict=True):
            values = (f.offset_ev, f.scale, f.amplitude, f.broadening_ev)
            texts = [f"{v:.{n}f} ± {s:.{n}f}" for v, s, n in zip(values, f.sd, (2, 3, 2, 1), strict=True)]
            lines.append(f"{name:{wide}} {texts[0]:>17} {texts[1]:>15} {texts[2]:>12} {texts[3]:>12}  {f.misfit:.3f}")
        metals = [f.offset_ev for f in self.fits if f.standard.metal]
        others = [f.offset_ev for f in self.fits if not f.standard.metal]
        if metals and others:
            lines.append(f"metals stand {np.mean(metals) - np.mean(others):.1f} eV above the others (--metal-gap)")
        return "\n".join([*lines, "", yaml.safe_dump(self.found, sort_keys=False, allow_unicode=True, width=110)])

    @property
    def found(self) -> dict[str, dict[str, float | str]]:
        """The fitted values in the form of card and training config."""
        c = self.card
        return {"feff_minus_experiment": c.feff_minus_experiment.model_dump(), "domain": c.domain.model_dump()}

    @property
    def unrehearsed(self) -> list[str]:
        """Disturbances that are smaller in the model's training than the fitted domain requires."""
        return Augmentation.model_validate(self.card.training["augmentation"]).gaps(self.card.domain)


def calibrate_model(
    model: str, standards: Sequence[str], feff: Path, settings: AlignmentSettings, metal_gap_ev: float | None = None
) -> Calibration:
    """Fit the standards and return the card of ``model`` with the result.

    Parameters
    ----------
    standards : each ``FILE=ROW[,metal][,bond=Å]``: a measured spectrum, the ``id`` of its counterpart among the FEFF
        rows, whether it is the metal itself, and its known first-shell bond length
    feff : npz of FEFF rows; where a bond length is given, the csv beside it has that of FEFF's structure

    Raises
    ------
    StandardError
        A standard is malformed, has no counterpart, is of another element, or cannot be aligned.
    SpectrumFileError
        A file cannot be read.
    """
    card = cards.read_card(cards.find(model))
    rows = {s.id: s for s in read_spectra(feff)}
    read = [_standard(text, rows, feff, card) for text in standards]
    fits, offset, domain = calibrate(read, card.grid.grid(), card.edge_ev, settings, metal_gap_ev)
    if all(s.metal for s in read):  # metals do not determine these keys
        known = card.domain
        domain = domain.model_copy(update={k: getattr(known, k) for k in _KEYS_WITHOUT_METALS})
    found: dict[str, OffsetCard | DomainCard] = {"domain": domain}
    if offset is not None:
        found["feff_minus_experiment"] = offset
    return Calibration(card.model_copy(update=found), fits)


def write_calibration(calibration: Calibration, model: str) -> Path:
    """Write card and README of the model's folder and return the card's path."""
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
        raise StandardError(f"{feff}: no row {row!r}; it has {', '.join(list(rows)[:5])} and {len(rows)} in all")
    metal, stretch = False, 1.0
    for option in options:
        name, _, value = option.partition("=")
        if option == "metal":
            metal = True
        elif name == "bond":
            known = _length(value, text)
            stretch = _bond_of(row, feff) / known
        else:
            raise StandardError(f"{text}: found {option!r}, expected metal or bond=Å")
    spectra = read_spectra(Path(file))
    if len(spectra) != 1:
        raise StandardError(f"{file}: found {len(spectra)} spectra, expected the one of the standard")
    spectrum, counterpart = spectra[0], rows[row]
    if spectrum.element not in (None, "", card.absorber):
        raise StandardError(f"{file}: of {spectrum.element}, expected {card.absorber}, as {card.name} is")
    reference = spectrum.mu if metal else spectrum.reference
    name = f"{Path(file).name} against {row}"
    return Standard(name, spectrum.energy, spectrum.mu, reference, counterpart.energy, counterpart.mu, metal, stretch)


def _length(value: str, text: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not 1.0 < found < 4.0:
        raise StandardError(f"{text}: found bond {value!r}, expected a length in Å, such as bond=2.07")
    return found


def _bond_of(row: str, feff: Path) -> float:
    table = feff.with_suffix(".csv")
    if not table.is_file():
        raise StandardError(f"{table}: not found; a bond length needs FEFF's own, column mean_bond of the table")
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line.get("id") == row and line.get("mean_bond"):
                return float(line["mean_bond"])
    raise StandardError(f"{table}: no mean_bond for {row!r}; leave out bond=, or add it")
