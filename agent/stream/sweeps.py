"""Turns acquired columns into spectra: splits them into sweeps, sorts them and forms μ."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Array, Direction, Formula, Reason
from .detectors import DETECTOR_ROLES, find_flaw, turn_negative_currents

MAX_ENERGY_EV = 1e6
"""Largest plausible energy, eV; every absorption edge lies below it."""
MAX_SWEEPS = 4096
"""Largest number of sweeps in one Event or file: ten minutes of a monochromator that oscillates at 3 Hz."""
_MAX_STEP_BACK = 0.1
"""Largest reversal, as a share of the energy range, that may be jitter or a step back within a sweep."""


class UnusableError(Exception):
    """Data cannot become a frame; the exception holds the reason and a detail."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)  # not frozen, as for Frame
class SweepSpectrum:
    """The spectrum of one sweep, sorted to strictly rising energy."""

    energy: Array
    """(M,) energies, eV."""
    mu: Array
    """(M,) absorption, dimensionless."""
    reference: Array | None
    """(M,) absorption of the reference foil, dimensionless; None without a foil."""
    direction: Direction


@np.errstate(over="ignore", invalid="ignore")
def turn_threshold(energy: Array) -> float:
    """Return the smallest reversal of the energy, eV, that counts as a turn and not as jitter of the encoder.

    It is half the median step, or four times the median second difference if that is larger: about 6.6 σ of white
    jitter, and 0 on an even axis. It is at most a tenth of the energy range, since energies in random order would
    otherwise form one sweep.
    """
    steps = np.diff(energy)
    moves = steps[steps != 0]
    if moves.size < 2:
        return 0.0
    upper = _MAX_STEP_BACK * float(np.ptp(energy))
    half_step = 0.5 * float(np.median(np.abs(moves)))
    return min(max(half_step, 4.0 * float(np.median(np.abs(np.diff(energy, 2))))), upper)


@np.errstate(over="ignore", invalid="ignore")
def split_sweeps(energy: Array) -> list[slice]:
    """Split energies, (M,) in the order of acquisition, into consecutive sweeps of one direction each.

    If the turning point was measured twice, each of the two sweeps gets one of the points; a single turning point
    belongs to the earlier sweep. A fly-back in one jump belongs to neither. A single step back by at most a tenth of
    the range, for example where the regions of a scan overlap, is not a turn. If there are far more than
    ``MAX_SWEEPS`` sweeps, which no caller reads, they are divided at the extremes.

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
    threshold = turn_threshold(energy)
    largest_fall = (np.maximum.accumulate(energy) - energy).max()
    largest_rise = (energy - np.minimum.accumulate(energy)).max()
    if largest_fall <= threshold or largest_rise <= threshold:
        return [slice(0, energy.size)]
    turns = _find_turns(energy.tolist(), threshold)
    if len(turns) > 4 * MAX_SWEEPS:  # noise; the borders below would take a minute for a million points
        return [slice(a, b) for a, b in itertools.pairwise((0, *turns, energy.size))]
    if turns:
        turns = _without_single_steps(energy, turns)
    if not turns:
        return [slice(0, energy.size)]
    borders = itertools.accumulate(
        (0, *(_find_border(energy, steps, turns, k) for k in range(len(turns))), energy.size), max
    )
    return [slice(a, b) for a, b in itertools.pairwise(borders) if b > a]


def turns_too_often(points: Sequence[int], min_points: int) -> bool:
    """Return whether the energy turns several times without a sufficiently long sweep, or turns too many times.

    Parameters
    ----------
    points : number of points of each sweep
    min_points : smallest number of points of a spectrum
    """
    return len(points) > MAX_SWEEPS or (len(points) > 2 and max(points) < min_points)


def has_stray_energy(energy: Array, sweeps: Sequence[slice]) -> bool:
    """Return whether a sweep continues where the one before it ended: a wrong energy divides them, not a turn.

    >>> energy = np.array([1.0, 2, 3, 9, 4, 5, 6])
    >>> has_stray_energy(energy, split_sweeps(energy))
    True
    """
    for before, after in itertools.pairwise(energy[part] for part in sweeps):
        if before.size < 2 or after.size < 2:
            continue
        rising = bool(before[-2] > before[0] or (before.size == 2 and before[1] > before[0]))
        follows = after[-1] > after[1] if after.size > 2 else after[1] > after[0]
        beyond = after[1] > before[-2] if rising else after[1] < before[-2]
        if beyond and bool(follows) == rising:
            return True
    return False


def may_continue(before: Array, after: Array) -> bool:
    """Return whether a step back may lie within one sweep, for example where the regions of a scan overlap.

    Only the range of the whole sweep decides this (:func:`split_sweeps`). The condition here is that the energy steps
    back by at most half the range so far, and then follows the old direction. A fly-back to the next sweep goes
    further.

    Parameters
    ----------
    before, after : energies on the two sides of the step, (M,) and (N,)

    >>> may_continue(np.array([1.0, 2, 3, 4]), np.array([3.0, 4]))
    True
    >>> may_continue(np.array([1.0, 2, 3, 4]), np.array([3.0, 2]))
    False
    """
    if before.size < 2:
        return False
    sign = 1.0 if before[-1] >= before[0] else -1.0
    back = sign * (before[-1] - after[0])
    return bool(0 < back <= 0.5 * np.ptp(before) and sign * (after[-1] - after[0]) >= 0)


def _find_turns(energy: list[float], threshold: float) -> list[int]:
    """Return the indices of the extremes from which the energy returns by more than the threshold, eV."""
    turns: list[int] = []
    rising: bool | None = None
    low = high = extreme = 0
    for i, e in enumerate(energy):
        if rising is None:
            low, high = (i if e < energy[low] else low), (i if e > energy[high] else high)
            if e - energy[low] > threshold or energy[high] - e > threshold:
                rising, extreme = e - energy[low] > threshold, i
        elif (e > energy[extreme]) if rising else (e < energy[extreme]):
            extreme = i
        elif abs(energy[extreme] - e) > threshold:
            turns.append(extreme)
            rising, extreme = not rising, i
    return turns


def _without_single_steps(energy: Array, turns: list[int]) -> list[int]:
    """Remove the turns at both ends of a single step back, after which the sweep continues."""
    largest = _MAX_STEP_BACK * float(np.ptp(energy))
    since_last = np.abs(energy[turns[-1] :] - energy[turns[-1]])
    extremes = [0, *turns, turns[-1] + int(np.argmax(since_last))]
    single = [b - a == 1 and abs(energy[b] - energy[a]) <= largest for a, b in itertools.pairwise(extremes)]
    kept: list[int] = []
    k = int(single[0])
    while k < len(turns):
        if single[k + 1]:
            k += 2
        else:
            kept.append(turns[k])
            k += 1
    return kept


def _find_border(energy: Array, steps: Array, turns: list[int], k: int) -> int:
    """Return the index of the first point of the sweep after turn ``k``."""
    turn = turns[k]
    begin = turns[k - 1] if k else 0
    end = turns[k + 1] if k + 1 < len(turns) else energy.size - 1
    before = np.abs(steps[max(begin, turn - 5) : turn])
    after = np.abs(steps[turn : turn + 5])
    near = 0.5 * min(_median_move(before), _median_move(after))
    first = last = turn
    while first - 1 > begin and abs(energy[first - 1] - energy[turn]) <= near:
        first -= 1
    while last + 1 < end and abs(energy[last + 1] - energy[turn]) <= near:
        last += 1
    if k and begin == first - 1:  # a fly-back in one jump ends here
        return first
    if abs(steps[last]) >= 0.5 * abs(energy[turn] - energy[begin]):  # a fly-back in one jump begins here
        return last + 1
    return first + (last - first + 2) // 2


def _median_move(steps: Array) -> float:
    moves = steps[steps > 0]
    return float(np.median(moves)) if moves.size else 0.0


_AXES = ("energy", "time")


def strip_padding(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Remove the padding of a fixed-size buffer: zeros at the end, and exact repetitions of the previous row.

    A row is zero if its energy or all its intensities are 0. An absorption that is already computed may be 0 below
    the edge; its zeros are padding only if at least the last two points of a rising sweep are 0.

    Parameters
    ----------
    columns : columns, (M,) each, by role; ``energy`` and either ``i0`` or ``mu`` are required
    """
    if any(c.size and c[-1] == 0 for role, c in columns.items() if role != "time"):
        columns = _without_zeros(columns)
    energy = columns["energy"]
    repeated = energy[1:] == energy[:-1]
    if repeated.any():
        for role, c in columns.items():
            repeated = repeated & ((c[1:] == c[:-1]) | (role == "time"))
        keep = np.concatenate(([True], ~repeated))
        columns = {role: c[keep] for role, c in columns.items()}
    return dict(columns)


def _without_zeros(columns: Mapping[str, Array]) -> Mapping[str, Array]:
    """Remove zero rows at the end."""
    energy = columns["energy"]
    empty = energy == 0
    if "i0" in columns:
        empty = empty | np.logical_and.reduce([c == 0 for role, c in columns.items() if role not in _AXES])
    elif energy.size > 2 and columns["mu"][-1] == columns["mu"][-2] == 0 and energy[-2] > energy[0]:
        empty = empty | (columns["mu"] == 0)
    if not empty[-1:].any():
        return columns
    kept = int(np.flatnonzero(~empty)[-1]) + 1 if not empty.all() else 0
    return {role: c[:kept] for role, c in columns.items()}


@np.errstate(over="ignore", invalid="ignore")
def form_spectrum(
    columns: Mapping[str, Array], formula: Formula | None, min_points: int, bin_ev: float | None = None
) -> SweepSpectrum:
    """Form the spectrum of one sweep.

    μ is ln(I0/It), If/I0 or the given absorption (M. Newville, Rev. Mineral. Geochem. 78, 33 (2014), eqs 2 and 3);
    the reference is ln(It/Iref). Points at one energy are averaged.

    Parameters
    ----------
    columns : columns, (M,) each, by role: energy (eV), i0, it, fluorescence, mu, iref, reference
    formula : formula of μ
    min_points : smallest number of distinct energies
    bin_ev : width, eV, of the energy bins in which the intensities are first averaged; None uses every point

    Raises
    ------
    UnusableError
        The columns do not give an absorption spectrum.
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
    columns, _ = turn_negative_currents(columns)
    direction: Direction = "rising" if energy[-1] >= energy[0] else "falling"
    if bin_ev is not None:
        columns = bin_columns(columns, bin_ev)
        energy = columns["energy"]
    mu = _absorption(columns, formula)
    for role in _NEEDED[formula]:
        if role in DETECTOR_ROLES and (detector_flaw := find_flaw(columns, role)) is not None:
            raise UnusableError(*detector_flaw)
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
    """Average columns, (M,) each, in energy bins of ``width_ev``.

    The energy of a bin is the mean energy of its points, so that a straight line stays straight. Empty bins are
    omitted.

    >>> bin_columns({"energy": np.array([1.1, 1.3, 2.2]), "i0": np.array([2.0, 4.0, 5.0])}, 1.0)
    {'energy': array([1.2, 2.2]), 'i0': array([3., 5.])}
    """
    energy = columns["energy"]
    _, bins, count = np.unique(np.floor(energy / width_ev), return_inverse=True, return_counts=True)
    return {role: np.bincount(bins, weights=c, minlength=count.size) / count for role, c in columns.items()}


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
        # The difference of logarithms remains finite for intensities whose ratio overflows.
        return np.log(i0) - np.log(_positive(columns["it"], Reason.IT_NOT_POSITIVE))
    return columns["fluorescence"] / i0


def _positive(intensity: Array, reason: Reason) -> Array:
    if intensity.min() <= 0:
        bad = np.count_nonzero(intensity <= 0)
        raise UnusableError(reason, f"{bad} of {intensity.size} values, lowest {intensity.min():g}")
    return intensity


def _reference(columns: Mapping[str, Array]) -> Array | None:
    """Return the foil's absorption; None if it was not measured or if its detector has a flaw."""
    if "iref" in columns:
        it, iref = columns["it"], columns["iref"]
        if not (np.isfinite(it) & np.isfinite(iref) & (it > 0) & (iref > 0)).all() or find_flaw(columns, "iref"):
            return None
        return np.log(it) - np.log(iref)
    reference = columns.get("reference")
    return reference if reference is not None and np.isfinite(reference).all() else None
