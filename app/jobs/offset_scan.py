"""Studies how the oxidation states of standards depend on the offset between FEFF and experiment."""

import copy
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...agent.types import Array, Estimator
from ..config import Config
from ..output.cells import cell
from .known_compounds import KnownCompound, elements_of
from .standards import HIT_E, Read, judge

STEP_EV = 0.25
"""Distance between two offsets of a scan, eV."""


@dataclass(frozen=True)
class OffsetFit:
    """The offset at which some standards of one element agree best with their known values."""

    group: str
    standards: int
    card_ev: float
    """Offset of the model's card, eV."""
    best_ev: float
    """Offset with the least mean absolute error, eV."""
    is_at_end: bool
    """Whether the best offset is the first or last of the scan, so that a wider scan may find a better one."""
    card_error: float
    """Mean absolute error at the card's offset, e."""
    error: float
    """Mean absolute error at the best offset, e."""
    bias: float
    """Median error at the best offset, e."""
    scatter: float
    """Standard deviation of the errors at the best offset, e; 0 for one standard."""
    hits: int
    """Number of standards within the tolerance of a hit at the best offset."""
    gain: float
    """Slope of the answers against the known oxidation states at the best offset: 1 for correct answers, 0 if all are
    the same, NaN if all known ones are equal."""
    slope: float
    """Median change of the oxidation state at the card's offset, e per eV."""


@dataclass(frozen=True)
class OffsetScan:
    """Mean oxidation states of N standards at K offsets."""

    known: list[KnownCompound]
    """The N standards that have a model and can be read."""
    card_ev: Array
    """(N,) offset of the card of each standard's model, eV."""
    changes_ev: Array
    """(K,) offsets minus that of the card, eV; rising, 0 in the middle."""
    os: Array
    """(N, K) mean oxidation states, e; NaN if the spectrum is set aside."""

    @property
    def at_card(self) -> int:
        """Index of the card's offset."""
        return len(self.changes_ev) // 2

    def errors(self) -> Array:
        """(N, K) errors of the mean oxidation state, e; NaN without a known or an estimated value."""
        return self.os - np.array([[np.nan if one.os is None else one.os] for one in self.known])

    def fitting_ev(self) -> Array:
        """(N,) offset at which the answer equals the known oxidation state, eV; the one nearest to the card's.

        It is interpolated between the offsets of the scan; NaN if the known value lies outside all answers.
        """
        found = np.full(len(self.known), np.nan)
        for n, error in enumerate(self.errors()):
            turns = np.flatnonzero(np.signbit(error[:-1]) != np.signbit(error[1:]))
            turns = turns[np.isfinite(error[turns] + error[turns + 1])]
            if len(turns):
                share = error[turns] / (error[turns] - error[turns + 1])
                at = self.changes_ev[turns] + share * np.diff(self.changes_ev)[turns]
                found[n] = self.card_ev[n] + at[np.abs(at).argmin()]
        return found

    def fits(self) -> list[OffsetFit]:
        """Return the fit for the oxides of each element and, if they come from several sources, for each source."""
        found: list[OffsetFit | None] = []
        for element in elements_of(self.known):
            rows = [i for i, one in enumerate(self.known) if one.element == element and one.is_judged]
            sources = dict.fromkeys(self.known[i].columns.get("source", "") for i in rows)
            found.append(self._fit(element, rows))
            if len(sources) > 1:
                found += [
                    self._fit(f"{element}, {source or 'no source'}", [i for i in rows if self._source(i) == source])
                    for source in sources
                ]
        return [fit for fit in found if fit is not None]

    def _source(self, row: int) -> str:
        return self.known[row].columns.get("source", "")

    def _fit(self, group: str, rows: Sequence[int]) -> OffsetFit | None:
        """Return the fit for some standards; None if none of them is answered at the card's offset."""
        errors = self.errors()[[*rows]]
        answered = np.isfinite(errors[:, self.at_card])
        known, errors = np.array([self.known[i].os for i in rows], float)[answered], errors[answered]
        if not len(errors):
            return None
        # Means over different sets of standards cannot be compared.
        mean = np.where(np.isfinite(errors).all(axis=0), np.abs(errors).mean(axis=0), np.inf)
        best, middle = int(mean.argmin()), self.at_card
        card_ev = float(self.card_ev[rows[0]])
        steps = np.gradient(errors, self.changes_ev, axis=1)[:, middle]
        return OffsetFit(
            group,
            len(errors),
            card_ev,
            card_ev + float(self.changes_ev[best]),
            best in (0, len(mean) - 1),
            float(mean[middle]),
            float(mean[best]),
            float(np.median(errors[:, best])),
            float(errors[:, best].std(ddof=1)) if len(errors) > 1 else 0.0,
            int((np.abs(errors[:, best]) <= HIT_E).sum()),
            1 + float(np.polyfit(known, errors[:, best], 1)[0]) if np.ptp(known) > 0 else np.nan,
            float(np.nanmedian(steps)) if np.isfinite(steps).any() else np.nan,
        )


def scan_offsets(
    read: Sequence[Read],
    models: Sequence[Estimator],
    config: Config,
    half_range_ev: float,
    *,
    shifts: bool = False,
    done: Callable[[int, int], object] = lambda number, total: None,
) -> OffsetScan:
    """Serve all standards at offsets around that of each model's card.

    Parameters
    ----------
    read, models, config, shifts
        As for :func:`~xas_agent.app.jobs.standards.judge`.
    half_range_ev : float
        Largest change of the offset, eV.
    done : callable
        Receives the number of finished offsets, and the total.

    Returns
    -------
    OffsetScan
    """
    by_element = {model.absorber: model for model in models}
    usable = [(known, spectrum) for known, spectrum in read if known.element in by_element]
    steps = round(half_range_ev / STEP_EV)
    changes = STEP_EV * np.arange(-steps, steps + 1, dtype=float)
    os = np.full((len(usable), len(changes)), np.nan)
    for k, change_ev in enumerate(changes.tolist()):
        moved = [_moved(model, change_ev) for model in models]
        judged = judge(usable, moved, config, shifts=shifts, energy_uncertainty=False)  # only the means are needed
        os[:, k] = [np.nan if j.os is None else j.os.mean for j in judged]
        done(k + 1, len(changes))
    known = [one for one, _ in usable]
    card_ev = np.array([by_element[one.element].edge.feff_minus_experiment_ev for one in known])
    return OffsetScan(known, card_ev, changes, os)


def _moved(model: Estimator, change_ev: float) -> Estimator:
    """Return a model with another offset and the same weights."""
    moved = copy.copy(model)
    offset_ev = model.edge.feff_minus_experiment_ev + change_ev
    moved.edge = replace(model.edge, feff_minus_experiment_ev=offset_ev)
    return moved


def write_scan(folder: Path, scan: OffsetScan) -> Path:
    """Write ``offsets.csv`` to an existing folder, with a row per standard and offset; return its path."""
    path = folder / "offsets.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "element", "compound", "class", "OS", "offset_ev", "OS_mean"])
        for one, card_ev, states in zip(scan.known, scan.card_ev.tolist(), scan.os, strict=True):
            about = [one.columns.get("file", one.path.name), one.element, one.compound, one.kind]
            for change_ev, state in zip(scan.changes_ev.tolist(), states.tolist(), strict=True):
                known = "" if one.os is None else one.os
                row = [*about, known, card_ev + change_ev, state if np.isfinite(state) else ""]
                writer.writerow(map(cell, row))
    return path
