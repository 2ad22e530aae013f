"""Finds the absorption edge of a scan and the fields that change there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..stream import split_sweeps
from ..types import Array, all_edges

_MAX_POSITIONS = 150
"""Number of energies tried as the edge."""
_ENDS = 0.08
"""Share of the energy range at either end that is not searched."""
_MIN_GAIN = 0.3
"""Smallest share of the variance about a line that a step at the edge must explain."""
_MIN_STEP = 0.003
"""Smallest change of the logarithm at the edge."""
_EDGE_BELOW_EV, _EDGE_ABOVE_EV = 25.0, 5.0
"""Largest distances of the tabulated edge below and above the step, eV; oxidation shifts the step upwards."""
_SHELLS = ("K", "L3", "L2", "L1")


@dataclass(frozen=True, slots=True)
class Steps:
    """The changes of a scan's fields at its edge."""

    e0_ev: float | None
    """Energy of the step that fits best, eV; None if no field has a step."""
    steps: Mapping[str, float]
    """Change of the logarithm of each field that has a step there: negative for It, positive for fluorescence."""
    flat: Mapping[str, Array]
    """Logarithms, each (M,), of the other fields that vary."""
    logs: Mapping[str, Array]
    """Logarithms, (M,) each, of all fields, by rising energy; fields that change sign keep their values."""
    intensities: frozenset[str]
    """Fields that do not change sign."""


@dataclass(frozen=True, slots=True)
class EdgeMatch:
    """A tabulated edge that the energies of a scan suggest."""

    element: str
    edge: str
    energy_ev: float


def find_steps(energy: Array, columns: Mapping[str, Array]) -> Steps:
    """Find the edge of a scan, and the fields that rise or fall at it.

    Each field is fitted by a line and a step. The edge is where a step explains most of the variance of one field
    about the line alone.

    Parameters
    ----------
    energy : (M,) energies, eV, in the order of acquisition
    columns : fields, (M,) each, that may be intensities or absorption
    """
    sweep = max(split_sweeps(energy), key=lambda part: part.stop - part.start, default=slice(0, 0))
    order = np.argsort(energy[sweep], kind="stable")
    x = energy[sweep][order]
    logs = {key: log for key, column in columns.items() if (log := _log(column[sweep][order])) is not None}
    intensities = frozenset(key for key in logs if _has_one_sign(columns[key]))
    if x.size < 10 or not logs or x[0] == x[-1]:
        return Steps(None, {}, {}, logs, intensities)
    y = np.stack(list(logs.values()), axis=1)
    low, high = x[0] + _ENDS * (x[-1] - x[0]), x[-1] - _ENDS * (x[-1] - x[0])
    inside = x[(x > low) & (x < high)]
    line = np.stack([np.ones_like(x), (x - x.mean()) / np.ptp(x)], axis=1)
    _, before = _fit(line, y)
    best, gains, heights = None, np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for at in inside[:: 1 + inside.size // _MAX_POSITIONS]:
        coefficients, after = _fit(np.column_stack([line, x >= at]), y)
        gain = 1.0 - after / np.where(before > 0, before, np.inf)
        gain[before <= 0] = 0.0
        if gain.max() > gains.max():
            best, gains, heights = float(at), gain, coefficients[-1]
    found = {
        key: float(height)
        for key, gain, height in zip(logs, gains, heights, strict=True)
        if gain > _MIN_GAIN and abs(height) > _MIN_STEP
    }
    varying = {key: log for key, log in logs.items() if key not in found and np.ptp(log) > 0}
    if best is None or not found:
        return Steps(None, {}, varying, logs, intensities)
    return Steps(best, found, varying, logs, intensities)


def suggest_edges(low_ev: float, high_ev: float, e0_ev: float | None) -> list[EdgeMatch]:
    """Return the tabulated edges that a scan may show, the likeliest first.

    Parameters
    ----------
    low_ev, high_ev : range of the scan, eV
    e0_ev : energy of its edge, eV; None returns all K and L3 edges within the range
    """
    inside = [EdgeMatch(*found) for found in all_edges() if low_ev < found[2] < high_ev]
    if e0_ev is None:
        return [found for found in inside if found.edge in ("K", "L3")]
    near = [found for found in inside if -_EDGE_ABOVE_EV <= e0_ev - found.energy_ev <= _EDGE_BELOW_EV]
    return sorted(near, key=lambda found: (_SHELLS.index(found.edge), abs(e0_ev - found.energy_ev)))


def _log(column: Array) -> Array | None:
    """Return the logarithm of intensities of one sign, and other values unchanged; None if they are not finite."""
    if not np.isfinite(column).all():
        return None
    return np.log(np.abs(column)) if _has_one_sign(column) else column


def _has_one_sign(column: Array) -> bool:
    return bool((column > 0).all() or (column < 0).all())


def _fit(design: Array, y: Array) -> tuple[Array, Array]:
    """Return coefficients and sums of squared residuals of a linear fit, by column of ``y``."""
    coefficients: Array = np.linalg.lstsq(design, y, rcond=None)[0].astype(np.float64, copy=False)
    return coefficients, ((y - design @ coefficients) ** 2).sum(axis=0)
