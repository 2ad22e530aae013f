"""Conversion of a column to energies in eV: from eV, keV, Bragg angles, or numbers without a unit."""

import re

import numpy as np

from ...agent.types import HC_EV_ANGSTROM, Array

XRAYS_EV = (100.0, 150_000.0)
"""Range of the energies of X-ray absorption spectra, eV."""
XRAYS_KEV = (0.9, 45.0)
"""The same range in keV, without values that may be an ultraviolet scan in eV."""
MAX_ENERGY_RATIO = 2.0
"""Largest ratio of a spectrum's highest to its lowest energy; wave numbers, times and indices exceed it."""


class EnergyAxisError(ValueError):
    """A column that cannot be converted to energies in eV."""


def looks_like_energy(values: Array) -> str | None:
    """Return the unit, ``eV`` or ``keV``, in which the values may be energies of a spectrum; None if they cannot.

    Energies are monotonic and positive, and their range is that of a spectrum. Angles of 10 to 15 degrees fulfil this
    too, so that only columns without a telling name should be checked.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    steps = np.diff(values)
    if not ((steps >= 0).all() or (steps <= 0).all()):
        return None
    return _unit_by_values(values)


def _unit_by_values(values: Array) -> str | None:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low <= 0 or low == high or high / low > MAX_ENERGY_RATIO:
        return None
    if XRAYS_KEV[0] <= low and high <= XRAYS_KEV[1]:
        return "keV"
    return "eV" if XRAYS_EV[0] <= low and high <= XRAYS_EV[1] else None


def in_ev(values: Array, name: str, unit: str) -> tuple[Array, tuple[str, ...]]:
    """Convert a column of energies to eV.

    Parameters
    ----------
    values : ndarray
        Energies in the unit of the file.
    name : str
        Name of the column, for messages.
    unit : str
        Unit in the file, in any case; empty if the file does not give it.

    Returns
    -------
    energy : ndarray
        Energies, eV.
    notes : tuple of str
        Guesses and doubts about the unit.

    Raises
    ------
    EnergyAxisError
        The unit is not a unit of energy.
    """
    written = unit.strip().lower() or next(iter(re.findall(r"(?:^|_)(k?ev)$", name.lower())), "")
    if written in ("ev", "electronvolt", "electron volt"):
        doubt = f"energies of {name!r} are read as eV, the unit in the file, but their values suggest keV"
        return values, (doubt,) if _unit_by_values(values) == "keV" else ()
    if written in ("kev", "kiloelectronvolt"):
        doubt = f"energies of {name!r} are read as keV, the unit in the file, but their values suggest eV"
        return values * 1000.0, (doubt,) if _unit_by_values(values) == "eV" else ()
    if written and not re.fullmatch(r"a\.?u\.?|none|n/?a|-|\?", written):
        raise EnergyAxisError(f"energies of column {name!r} in {unit!r}, expected eV or keV")
    guess = _unit_by_values(values)
    if guess == "keV":
        return values * 1000.0, (f"energies of {name!r} are read as keV, because their values fit",)
    if guess == "eV":
        return values, ()
    return values, (f"energies of {name!r} are read as eV, although their values fit neither eV nor keV",)


def from_angle(values: Array, name: str, unit: str, d_spacing: str) -> Array:
    """Convert Bragg angles of a monochromator to energies: E = hc / (2 d sin θ).

    Parameters
    ----------
    values : ndarray, (M,)
        Bragg angles.
    name : str
        Name of the column, for messages.
    unit : str
        Unit of the angles in the file: degrees or radians.
    d_spacing : str
        Text of the file about the d spacing of the crystal, Å.

    Returns
    -------
    ndarray, (M,)
        Energies, eV.

    Raises
    ------
    EnergyAxisError
        The d spacing is missing, the unit is unknown, or an angle lies outside 0 to 90 degrees.
    """
    number = re.match(r"\s*([\d.]+)", d_spacing)
    if not number or not 0.1 < float(number[1].rstrip(".") or 0) < 100:
        found = f"Mono.d_spacing {d_spacing!r}" if d_spacing else "no Mono.d_spacing"
        raise EnergyAxisError(f"angles in column {name!r} and {found}, expected its value in Å")
    if re.match(r"deg", unit.strip(), re.I):
        theta = np.deg2rad(values)
    elif re.match(r"rad", unit.strip(), re.I):
        theta = values
    else:
        raise EnergyAxisError(f"angles of column {name!r} in {unit or 'no unit'!r}, expected degrees or radians")
    if not np.isfinite(theta).all() or theta.min() <= 0 or theta.max() > np.pi / 2:
        raise EnergyAxisError(f"angles of column {name!r} outside 0 to 90 degrees")
    return HC_EV_ANGSTROM / (2 * float(number[1].rstrip(".")) * np.sin(theta))
