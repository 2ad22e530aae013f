"""From columns as acquired to spectra: split where the energy turns round, sort, and form μ."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..types import Array, Direction, Formula, Reason
from .detectors import DETECTOR_ROLES, find_flaw

MAX_ENERGY_EV = 1e6
"""Beyond every absorption edge: a higher reading is none."""


class UnusableError(Exception):
    """Data that cannot become a frame: the reason and its detail."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SweepSpectrum:
    """One sweep, sorted to strictly rising energy."""

    energy: Array
    """(M,) eV."""
    mu: Array
    """(M,) dimensionless."""
    reference: Array | None
    """(M,) dimensionless."""
    direction: Direction


@np.errstate(over="ignore", invalid="ignore")
def turn_threshold(energy: Array) -> float:
    """Return how far, in eV, the energy must come back before that is a turn and no jitter of the encoder.

    Half the median step, or four times the median second difference where that is more: about 6.6 σ of white jitter,
    nothing on an even axis. At most a tenth of what the axis spans, lest energies in no order at all pass for one
    sweep.
    """
    steps = np.diff(energy)
    moved = steps[steps != 0]
    if moved.size < 2:
        return 0.0
    most = 0.1 * float(np.ptp(energy))
    half_step = 0.5 * float(np.median(np.abs(moved)))
    return min(max(half_step, 4.0 * float(np.median(np.abs(np.diff(energy, 2))))), most)


@np.errstate(over="ignore", invalid="ignore")
def split_sweeps(energy: Array) -> list[slice]:
    """Split energies, (M,) in the order of acquisition, into sweeps: consecutive, in one direction each.

    A turning point that was measured twice is shared between its two sweeps; one measured once belongs to the
    earlier. A fly-back in one jump belongs to neither.

    >>> split_sweeps(np.array([1.0, 2, 3, 4, 3, 2, 1]))
    [slice(0, 4, None), slice(4, 7, None)]
    >>> split_sweeps(np.array([1.0, 2, 3, 4, 1, 2, 3, 4]))
    [slice(0, 4, None), slice(4, 8, None)]
    """
    if energy.size < 3:
        return [slice(0, energy.size)] if energy.size else []
    steps = np.diff(energy)
    if (steps >= 0).all() or (steps <= 0).all():
        return [slice(0, energy.size)]
    back = turn_threshold(energy)
    if (np.maximum.accumulate(energy) - energy).max() <= back or (
        energy - np.minimum.accumulate(energy)
    ).max() <= back:
        return [slice(0, energy.size)]
    turns = _turns(energy.tolist(), back)
    borders = itertools.accumulate(
        (0, *(_border(energy, steps, turns, k) for k in range(len(turns))), energy.size), max
    )
    return [slice(a, b) for a, b in itertools.pairwise(borders) if b > a]


def _turns(energy: list[float], back: float) -> list[int]:
    """Return the indices of the extremes from which the energy comes back by more than ``back``."""
    turns: list[int] = []
    rising: bool | None = None
    low = high = extreme = 0
    for i, e in enumerate(energy):
        if rising is None:
            low, high = (i if e < energy[low] else low), (i if e > energy[high] else high)
            if e - energy[low] > back or energy[high] - e > back:
                rising, extreme = e - energy[low] > back, i
        elif (e > energy[extreme]) if rising else (e < energy[extreme]):
            extreme = i
        elif abs(energy[extreme] - e) > back:
            turns.append(extreme)
            rising, extreme = not rising, i
    return turns


def _border(energy: Array, steps: Array, turns: list[int], k: int) -> int:
    """Return the index at which the sweep after turn ``k`` begins."""
    turn = turns[k]
    begin = turns[k - 1] if k else 0
    end = turns[k + 1] if k + 1 < len(turns) else energy.size - 1
    before = np.abs(steps[max(begin, turn - 5) : turn])
    after = np.abs(steps[turn : turn + 5])
    near = 0.5 * min(_median_moved(before), _median_moved(after))
    first = last = turn
    while first - 1 > begin and abs(energy[first - 1] - energy[turn]) <= near:
        first -= 1
    while last + 1 < end and abs(energy[last + 1] - energy[turn]) <= near:
        last += 1
    if k and begin == first - 1:  # came here in one jump: a fly-back
        return first
    if abs(steps[last]) >= 0.5 * abs(energy[turn] - energy[begin]):  # leaves in one
        return last + 1
    return first + (last - first + 2) // 2


def _median_moved(steps: Array) -> float:
    moved = steps[steps > 0]
    return float(np.median(moved)) if moved.size else 0.0


_AXES = ("energy", "time")


def strip_padding(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Drop what a fixed-size buffer adds: zeros at the end, and rows that repeat the one before exactly.

    A row is padding where its energy is 0, or where all its intensities are (of an absorption that is already
    computed: where two or more are 0 at the high end of a rising sweep, since before the edge 0 is a value).
    """
    energy = columns["energy"]
    empty = energy == 0
    if "i0" in columns:
        empty = empty | np.logical_and.reduce([c == 0 for role, c in columns.items() if role not in _AXES])
    elif energy.size > 2 and columns["mu"][-1] == columns["mu"][-2] == 0 and energy[-2] > energy[0]:
        empty = empty | (columns["mu"] == 0)
    if empty[-1:].any():
        kept = int(np.flatnonzero(~empty)[-1]) + 1 if not empty.all() else 0
        columns = {role: c[:kept] for role, c in columns.items()}
    energy = columns["energy"]
    stuck = energy[1:] == energy[:-1]
    if stuck.any():
        for role, c in columns.items():
            stuck = stuck & ((c[1:] == c[:-1]) | (role == "time"))
        keep = np.concatenate(([True], ~stuck))
        columns = {role: c[keep] for role, c in columns.items()}
    return dict(columns)


@np.errstate(over="ignore", invalid="ignore")
def form_spectrum(
    columns: Mapping[str, Array], formula: Formula | None, min_points: int, bin_ev: float | None = None
) -> SweepSpectrum:
    """Form one sweep's spectrum from its columns, each (M,), by role: energy (eV), i0, it, if, mu, iref, reference.

    μ = ln(I0/It), If/I0, or as given (Newville, Rev. Mineral. Geochem. 78, 33 (2014), eqs 2 and 3); the reference
    is ln(It/Iref). Points at one energy are averaged; with ``bin_ev`` the intensities are, before that, in bins of
    this width. Raises UnusableError.
    """
    energy = columns["energy"]
    if formula is None:
        raise UnusableError(Reason.NO_ABSORPTION_FIELDS)
    if energy.size < min_points:
        raise UnusableError(Reason.TOO_FEW_POINTS, f"{energy.size} points, at least {min_points} needed")
    for role in _NEEDED[formula]:
        bad = np.count_nonzero(~np.isfinite(columns[role]))
        if bad:
            raise UnusableError(Reason.NAN_IN_DATA, f"{bad} of {energy.size} values of {role} are not finite")
    if energy.min() <= 0:
        raise UnusableError(Reason.ENERGY_NOT_POSITIVE, f"lowest energy {energy.min():g} eV")
    if energy.max() > MAX_ENERGY_EV:
        raise UnusableError(Reason.ENERGY_TOO_HIGH, f"highest energy {energy.max():g} eV, at most {MAX_ENERGY_EV:g}")
    direction: Direction = "rising" if energy[-1] >= energy[0] else "falling"
    if bin_ev is not None:
        columns = bin_columns(columns, bin_ev)
        energy = columns["energy"]
    mu = _absorption(columns, formula)
    for role in _NEEDED[formula]:
        if role in DETECTOR_ROLES and (found := find_flaw(columns, role)) is not None:
            raise UnusableError(*found)
    rows = np.vstack([mu] if (reference := _reference(columns)) is None else [mu, reference])
    steps = np.diff(energy)
    if not (steps > 0).all():
        order = np.argsort(energy, kind="stable")
        energy, rows = energy[order], rows[:, order]
        if (energy[1:] == energy[:-1]).any():
            energy, first, count = np.unique(energy, return_index=True, return_counts=True)
            rows = np.add.reduceat(rows, first, axis=1) / count
    if energy.size < min_points:
        raise UnusableError(Reason.TOO_FEW_POINTS, f"{energy.size} distinct energies, at least {min_points} needed")
    if not np.isfinite(rows[0]).all():
        raise UnusableError(Reason.ABSORPTION_NOT_FINITE, f"{formula} overflows")
    reference = rows[1] if len(rows) > 1 and np.isfinite(rows[1]).all() else None
    return SweepSpectrum(energy.copy(), rows[0], reference, direction)


def bin_columns(columns: Mapping[str, Array], width_ev: float) -> dict[str, Array]:
    """Average columns, each (M,), in bins of ``width_ev`` of their energy; a bin's energy is the mean of its points'.

    So a straight line stays one, however the points are spread in their bins. Bins without a point are left out.

    >>> bin_columns({"energy": np.array([1.1, 1.3, 2.2]), "i0": np.array([2.0, 4.0, 5.0])}, 1.0)
    {'energy': array([1.2, 2.2]), 'i0': array([3., 5.])}
    """
    energy = columns["energy"]
    _, where, count = np.unique(np.floor(energy / width_ev), return_inverse=True, return_counts=True)
    return {role: np.bincount(where, weights=c, minlength=count.size) / count for role, c in columns.items()}


_NEEDED: Mapping[Formula, tuple[str, ...]] = {
    "transmission": ("energy", "i0", "it"),
    "fluorescence": ("energy", "i0", "fluorescence"),
    "mu": ("energy", "mu"),
    "normalised": ("energy", "mu"),
}


def _absorption(columns: Mapping[str, Array], formula: Formula) -> Array:
    if formula in ("mu", "normalised"):
        return columns["mu"]
    i0 = _positive(columns["i0"], Reason.I0_NOT_POSITIVE)
    if formula == "transmission":
        return np.log(i0) - np.log(_positive(columns["it"], Reason.IT_NOT_POSITIVE))  # of numbers whose ratio is none
    return columns["fluorescence"] / i0


def _positive(intensity: Array, reason: Reason) -> Array:
    if intensity.min() <= 0:
        bad = np.count_nonzero(intensity <= 0)
        raise UnusableError(reason, f"{bad} of {intensity.size} values, lowest {intensity.min():g}")
    return intensity


def _reference(columns: Mapping[str, Array]) -> Array | None:
    """Return the foil's absorption, or None where it was not measured or not well: the frame does without."""
    if "iref" in columns:
        it, iref = columns["it"], columns["iref"]
        if not (np.isfinite(it) & np.isfinite(iref) & (it > 0) & (iref > 0)).all() or find_flaw(columns, "iref"):
            return None
        return np.log(it) - np.log(iref)
    reference = columns.get("reference")
    return reference if reference is not None and np.isfinite(reference).all() else None
