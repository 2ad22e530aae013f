"""The unit in which a stream records its energies."""

import re
from typing import Any

import numpy as np

from ..types import Array

XRAYS_EV, XRAYS_KEV = (100.0, 150_000.0), (0.9, 45.0)
"""Ranges of the energies of X-ray absorption spectra."""
MAX_ENERGY_RATIO = 2.0
"""Largest ratio of a spectrum's highest to its lowest energy; times and indices exceed it."""


def plain_unit(text: Any) -> str:
    """Return a descriptor's unit as ``ev``, ``kev``, another unit in lower case, or an empty text.

    >>> plain_unit("(keV)"), plain_unit("kiloelectronvolts"), plain_unit(None)
    ('kev', 'kev', '')
    """
    word = re.sub(r"[\s.()\[\]_-]+", "", str(text or "").lower())
    return re.sub(r"electronvolts?$", "ev", word.replace("kilo", "k"))


def unit_to_ev(text: Any) -> float | None:
    """Return the factor that converts a unit to eV; None if it is unknown or does not measure X-ray energies."""
    return {"ev": 1.0, "kev": 1000.0}.get(plain_unit(text))


@np.errstate(invalid="ignore")
def are_kev(values: Array) -> bool:
    """Return whether the values of a spectrum's energies, given without a unit, indicate keV.

    >>> are_kev(np.array([8.2, 8.3, 9.1])), are_kev(np.array([8200.0, 9100.0]))
    (True, False)
    """
    used = values[np.isfinite(values) & (values != 0)]  # a buffer may be padded with zeros
    if used.size < 2:
        return False
    low, high = float(used.min()), float(used.max())
    return XRAYS_KEV[0] <= low < high <= min(XRAYS_KEV[1], MAX_ENERGY_RATIO * low)
