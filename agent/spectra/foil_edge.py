"""E0 of a reference foil, read from one scan of it."""

import numpy as np

from ..types import Array, Edge, bin_means
from .batch import Batch
from .e0 import find_e0
from .noise import estimate_noise
from .settings import AlignmentSettings

_SEARCH_EV = (-35.0, 35.0)  # wider than the accepted shift, so that a more distant edge is found and not a bump
_MAX_SHIFT_EV = 15.0  # from the tabulated edge: a monochromator does not drift further
_BIN_BOUNDS_EV = np.arange(-60.0, 61.0, 4.0)  # about E0: coarse bins that average over the EXAFS
_LARGEST_RISE_EV = (-8.0, 20.0)  # about E0: metals have a second inflection 10 eV above it
# Part of the rise from −40…−12 to 12…40 eV that lies between −12…−4 and 4…12 eV: 0.55 for foils, 0.31 for a slope.
_MIN_SHARPNESS = 0.45
_WINDOWS_EV = ((-40, -12), (-12, -4), (4, 12), (12, 40))
_WINDOWS = tuple(slice(*np.searchsorted(_BIN_BOUNDS_EV, window)) for window in _WINDOWS_EV)


def foil_shifts(batch: Batch, edge: Edge, settings: AlignmentSettings) -> Array:
    """Shift that moves each foil's E0 to the tabulated edge.

    Returns
    -------
    (N,) eV; NaN without a foil, or where the foil shows no edge near the tabulated one. The foil of another element,
    or one further off, has bumps there that could be taken for its E0.
    """
    reference = batch.reference
    if reference is None or not settings.calibrate_on_reference:
        return np.full(len(batch), np.nan)
    relative = batch.energy - edge.edge_ev
    e0 = find_e0(relative, reference, settings.e0_smoothing_ev, _SEARCH_EV, first_inflection=True)
    near = np.abs(e0) < _MAX_SHIFT_EV
    coarse = bin_means(relative, reference, np.where(near, e0, 0.0)[:, None] + _BIN_BOUNDS_EV)
    low, below, above, high = (coarse[:, k].mean(axis=1) for k in _WINDOWS)
    steepest = _BIN_BOUNDS_EV[1:-1][np.diff(coarse).argmax(axis=1)]
    with np.errstate(over="ignore", invalid="ignore"):
        rise = high - low
        valid = near & (rise > settings.min_step_to_noise * estimate_noise(relative, reference))
        valid &= above - below > _MIN_SHARPNESS * rise
    valid &= (steepest > _LARGEST_RISE_EV[0]) & (steepest < _LARGEST_RISE_EV[1])
    return np.where(valid, -e0, np.nan)
